import itertools
import math
from dataclasses import replace

import pytest

from surface_train.loop.schedule import learning_rate
from surface_train.settings import Average, Optimiser, TrainingSettings

HIGH, LOW = 1e-3, 2e-4
RUN = TrainingSettings(
    epochs=10,
    steps_per_epoch=10,
    optimiser=Optimiser(learning_rate=HIGH, warmup_steps=5),
    average=Average(start_epoch=6),
)


def rate(step: int, run: TrainingSettings = RUN, averaging_from: int = 6, drops: int = 0) -> float:
    return learning_rate(step, run, averaging_from=averaging_from, drops=drops)


def with_schedule(schedule: str) -> TrainingSettings:
    return replace(RUN, optimiser=replace(RUN.optimiser, schedule=schedule))


def test_it_warms_up_in_equal_steps() -> None:
    cosine = [LOW + (HIGH - LOW) * (1 + math.cos(math.pi * step / 50)) / 2 for step in range(5)]
    assert [rate(step) for step in range(5)] == pytest.approx([(step + 1) / 5 * at for step, at in enumerate(cosine)])


def test_it_falls_along_half_a_cosine_to_the_averaging() -> None:
    assert rate(25) == pytest.approx((HIGH + LOW) / 2)
    falling = [rate(step) for step in range(5, 51)]
    assert falling == sorted(falling, reverse=True)
    assert rate(49) == pytest.approx(LOW, rel=0.01)


def test_poly_is_the_power_of_what_is_left() -> None:
    run = with_schedule("poly")
    assert rate(25, run) == pytest.approx(LOW + (HIGH - LOW) * 0.5**0.9)
    assert rate(40, run) == pytest.approx(LOW + (HIGH - LOW) * 0.2**0.9)


def test_a_plateau_takes_a_tenth_and_never_goes_below_the_averagings_rate() -> None:
    run = replace(with_schedule("plateau"), average=replace(RUN.average, learning_rate=3e-5))
    assert [rate(30, run, drops=drops) for drops in range(3)] == pytest.approx([HIGH, HIGH / 10, 3e-5])
    assert rate(5, run) == rate(49, run) == HIGH


@pytest.mark.parametrize("schedule", ["cosine", "poly", "plateau"])
def test_it_is_constant_from_the_averagings_first_step_on(schedule: str) -> None:
    assert {rate(step, with_schedule(schedule)) for step in range(50, 100)} == {LOW}


@pytest.mark.parametrize("schedule", ["cosine", "poly"])
def test_averaging_that_begins_early_is_constant_from_there_and_changes_nothing_before(schedule: str) -> None:
    run = with_schedule(schedule)
    assert {rate(step, run, averaging_from=4) for step in range(30, 80)} == {LOW}
    assert [rate(step, run, averaging_from=4) for step in range(30)] == [rate(step, run) for step in range(30)]


def test_after_the_warm_up_it_never_jumps() -> None:
    rates = [rate(step) for step in range(4, 100)]
    longest = (HIGH - LOW) * math.pi / 2 / 50  # the steepest slope of half a cosine over 50 steps
    assert max(abs(a - b) for a, b in itertools.pairwise(rates)) <= longest


def test_without_a_warm_up_it_begins_at_its_full_value() -> None:
    run = replace(RUN, optimiser=replace(RUN.optimiser, warmup_steps=0))
    assert rate(0, run) == HIGH


def test_averaging_from_the_first_epoch_still_warms_up() -> None:
    run = TrainingSettings(
        epochs=2, optimiser=Optimiser(learning_rate=HIGH, warmup_steps=2), average=Average(start_epoch=1)
    )
    assert [rate(step, run, averaging_from=1) for step in range(3)] == [LOW / 2, LOW, LOW]
