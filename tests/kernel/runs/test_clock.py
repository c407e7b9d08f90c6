import time

import pytest
from scenes import run_python

from surface_kernel.runs.clock import MARGIN, REMEMBERED, Clock, process_age_s


class Watch:
    """A time that stands still until it is told."""

    def __init__(self):
        self.s = 0.0

    def __call__(self):
        return self.s


def test_it_counts_down():
    watch = Watch()
    clock = Clock(100, watch)
    watch.s = 7
    assert (clock.elapsed_s, clock.left_s) == (7, 93)


def test_a_process_is_as_old_as_it_is():
    """The second spent before anything of ours was imported counts too."""
    code = "import time; time.sleep(1)\nfrom surface_kernel.runs.clock import process_age_s\nprint(process_age_s())"
    began_s = time.monotonic()
    age_s = float(run_python(code).stdout)
    assert 1 <= age_s <= time.monotonic() - began_s + 0.05
    assert process_age_s() > age_s


def test_without_proc_it_counts_from_the_import():
    code = """
from pathlib import Path
Path.read_text = lambda *_, **__: (_ for _ in ()).throw(OSError("no /proc"))
from surface_kernel.runs.clock import process_age_s
print(0 <= process_age_s() < 10)
"""
    assert run_python(code).stdout == "True\n"


def test_work_is_expected_by_its_size_with_a_margin_and_as_slow_as_the_slowest():
    clock = Clock(1000, Watch())
    assert clock.expect_s("predict", 50) == 0
    assert not clock.knows("predict")
    clock.learn("predict", 100, 200)  # 2 s for each of the size
    assert clock.expect_s("predict", 50) == 50 * 2 * MARGIN
    clock.learn("predict", 10, 10)  # 1 s: the mean is 1.5, and 1.5 × 1.25 is less than 2
    assert clock.expect_s("predict", 50) == 50 * 2
    assert clock.knows("predict")
    assert clock.expect_s("finish", 50) == 0


def test_what_was_long_ago_is_forgotten():
    clock = Clock(1000, Watch())
    clock.learn("predict", 1, 100)
    for _ in range(REMEMBERED):
        clock.learn("predict", 1, 2)
    assert clock.expect_s("predict", 1) == pytest.approx(2 * MARGIN)


def test_nothing_is_learnt_from_no_work():
    clock = Clock(1000, Watch())
    clock.learn("predict", 0, 5)
    clock.learn("predict", 5, 0)
    assert not clock.knows("predict")
