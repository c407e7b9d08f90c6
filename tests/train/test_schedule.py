import itertools
import math

import pytest

from surface_train.schedule import learning_rate
from surface_train.settings import Average, Optimiser, Settings

HIGH, LOW = 1e-3, 2e-4
RUN = Settings(
    epochs=10, steps_per_epoch=10, optimiser=Optimiser(HIGH, warmup_steps=5), average=Average(6, learning_rate=LOW)
)


def test_it_warms_up_in_equal_steps() -> None:
    found = [learning_rate(step, RUN) for step in range(5)]
    cosine = [LOW + (HIGH - LOW) * (1 + math.cos(math.pi * step / 50)) / 2 for step in range(5)]
    assert found == pytest.approx([(step + 1) / 5 * full for step, full in enumerate(cosine)])


def test_it_falls_along_half_a_cosine_to_the_averaging() -> None:
    assert learning_rate(25, RUN) == pytest.approx((HIGH + LOW) / 2)
    falling = [learning_rate(step, RUN) for step in range(5, 51)]
    assert falling == sorted(falling, reverse=True)
    assert learning_rate(49, RUN) == pytest.approx(LOW, rel=0.01)


def test_it_is_constant_from_the_averagings_first_step_on() -> None:
    assert {learning_rate(step, RUN) for step in range(50, 100)} == {LOW}


def test_after_the_warm_up_it_never_jumps() -> None:
    rates = [learning_rate(step, RUN) for step in range(4, 100)]
    longest = (HIGH - LOW) * math.pi / 2 / 50  # the steepest slope of half a cosine over 50 steps
    assert max(abs(a - b) for a, b in itertools.pairwise(rates)) <= longest


def test_without_a_warm_up_it_begins_at_its_full_value() -> None:
    run = Settings(epochs=2, optimiser=Optimiser(HIGH, warmup_steps=0), average=Average(2, learning_rate=LOW))
    assert learning_rate(0, run) == HIGH


def test_averaging_from_the_first_epoch_still_warms_up() -> None:
    run = Settings(epochs=2, optimiser=Optimiser(HIGH, warmup_steps=2), average=Average(1, learning_rate=LOW))
    assert [learning_rate(step, run) for step in range(3)] == [LOW / 2, LOW, LOW]
