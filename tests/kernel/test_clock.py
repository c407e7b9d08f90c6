from surface_kernel.clock import Clock


class Watch:
    """A time that stands still until it is told."""

    def __init__(self):
        self.s = 1000.0

    def __call__(self):
        return self.s


def test_elapsed_counts_from_the_making():
    watch = Watch()
    clock = Clock(100, now_s=watch)
    watch.s += 7
    assert clock.elapsed_s == 7


def test_the_first_volume_fits_while_there_is_time_beyond_the_reserve():
    watch = Watch()
    clock = Clock(1000, now_s=watch)
    assert clock.fits(10**12)
    watch.s += 969.9
    assert clock.fits(1)
    watch.s += 0.1  # 1000 - 30 s kept for the submission
    assert not clock.fits(1)


def test_a_short_budget_keeps_a_tenth():
    watch = Watch()
    clock = Clock(10, now_s=watch)
    watch.s += 8.9
    assert clock.fits(1)
    watch.s += 0.2
    assert not clock.fits(1)


def test_no_budget_fits_nothing():
    assert not Clock(0, now_s=Watch()).fits(1)
    assert not Clock(-5, now_s=Watch()).fits(1)


def test_the_next_volume_is_expected_as_slow_as_the_slowest_and_a_margin():
    watch = Watch()
    clock = Clock(1000, now_s=watch)
    clock.learn(100, 200)  # 2 s a voxel
    clock.learn(100, 50)  # a fast one does not make it hopeful
    assert clock.fits(387)  # 387 × 2 × 1.25 = 967.5 of the 970 s that are left
    assert not clock.fits(388)  # 970 s
    watch.s += 500
    assert clock.fits(187)  # 467.5 of 470
    assert not clock.fits(188)


def test_it_runs_by_itself():
    clock = Clock(3600)
    assert 0 <= clock.elapsed_s < 3600
    assert clock.fits(1)
