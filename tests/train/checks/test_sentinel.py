import argparse
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from surface_train.__main__ import _parser
from surface_train.checks.sentinel import Collapse, Spread, Watch, passed
from surface_train.settings import Sentinel

SOUND = (0.06, 0.05, 0.04)  # foreground, truth, variance
LIMITS = Sentinel()


@pytest.mark.parametrize(
    ("foreground", "variance", "odd"),
    [
        (0.95, 0.001, ""),
        (0.001, 0.001, ""),
        (0.9988, 0.001, "99.88% foreground, wanted at most 95%"),
        (0.9501, 0.0, "95.01% foreground, wanted at most 95%"),
        (0.0009, 0.2, "0.09% foreground, wanted at least 0.1%"),
        (0.0, 0.0, "0.00% foreground, wanted at least 0.1%"),
        (0.5, 0.0009, "variance 0.0009, wanted at least 0.001"),
        (0.5, 0.0, "variance 0, wanted at least 0.001"),
        (0.5, None, ""),
        (math.nan, 0.2, "nan% foreground, wanted at most 95%"),
        (0.5, math.nan, "variance nan, wanted at least 0.001"),
    ],
)
def test_a_prediction_passes_a_limit_and_it_is_said_which(foreground: float, variance: float | None, odd: str) -> None:
    assert passed(LIMITS, foreground, variance) == odd


def test_the_limits_are_those_of_the_settings() -> None:
    assert passed(Sentinel(least_foreground=0.2), 0.1) == "10.00% foreground, wanted at least 20%"
    assert passed(Sentinel(most_foreground=0.05), 0.1) == "10.00% foreground, wanted at most 5%"
    assert not passed(Sentinel(least_variance=0), 0.1, 0.0)


def test_the_fifth_strike_in_a_row_stops_the_run() -> None:
    watch = Watch(LIMITS)
    for wanted in (1, 2, 3, 4):
        watch.see(0.9988, 0.053, 0.02)
        assert watch.strikes == wanted
    with pytest.raises(Collapse):
        watch.see(0.9988, 0.053, 0.02)
    assert watch.strikes == 5


def test_a_sound_validation_starts_the_count_again() -> None:
    watch = Watch(LIMITS)
    for odd in ((1.0, 0.05, 0.2), (0.0, 0.05, 0.2), (0.3, 0.05, 0.0), (math.nan, 0.05, math.nan)):
        watch.see(*odd)  # whichever limit it is, they count together
    assert watch.strikes == 4
    watch.see(*SOUND)
    assert watch.strikes == 0
    for _ in range(4):
        watch.see(1.0, 0.05, 0.2)


def test_a_resumed_run_goes_on_counting() -> None:
    with pytest.raises(Collapse, match="5 validations in a row"):
        Watch(LIMITS, strikes=4).see(1.0, 0.05, 0.2)
    watch = Watch(LIMITS, strikes=4)
    watch.see(*SOUND)
    assert watch.strikes == 0


@given(st.lists(st.booleans(), max_size=30), st.integers(1, 6))
def test_it_stops_exactly_where_so_many_in_a_row_are_odd(odd: list[bool], most: int) -> None:
    wanted = "".join("x" if it else "." for it in odd).find("x" * most)
    watch = Watch(Sentinel(validations=most))
    stopped = -1
    for index, it in enumerate(odd):
        try:
            watch.see(*((0.0, 0.05, 0.0) if it else SOUND))
        except Collapse:
            stopped = index - most + 1
            break
    assert stopped == wanted


def test_the_message_has_the_number_the_causes_in_order_and_a_check_for_each() -> None:
    with pytest.raises(Collapse) as caught:
        Watch(Sentinel(validations=1)).see(0.9988, 0.053, 0.0204)
    lines = str(caught.value).splitlines()
    assert lines[0] == (
        "the prediction collapsed: found 99.88% foreground, wanted at most 95%, after 1 validation past a limit; "
        "the last one: foreground 99.88%, truth 5.30%, variance of the probabilities 0.02."
    )
    causes = [line.partition(": ")[0] for line in lines[2:6]]
    assert causes == [
        "1. an activation applied twice",
        "2. labels counted wrong",
        "3. an intensity mismatch",
        "4. the loss",
    ]
    assert all("python -m surface_train " in line for line in lines[2:6])
    assert "\n\n" not in str(caught.value)  # it reads on when its lines are joined


def test_every_check_is_a_command_that_there_is() -> None:
    with pytest.raises(Collapse) as caught:
        Watch(Sentinel(validations=1)).see(1.0, 0.05, 0.0)
    commands = re.findall(
        r"python -m surface_train ((?:audit|fit)(?: (?:--?\w+|\S*[A-Z]\S*?))+?)(?=,| [a-z])", str(caught.value)
    )
    assert len(commands) == 4
    for command in commands:
        assert isinstance(_parser().parse_args(command.split()), argparse.Namespace)


def spread_of(*parts: np.ndarray, threshold: float = 0.5) -> Spread:
    made = Spread(threshold, LIMITS)
    for part in parts:
        made.add(part)
    return made


def test_probabilities_added_in_slabs_are_those_of_the_whole() -> None:
    values = np.random.default_rng(0).random((6, 5, 4)).astype(np.float32)
    values[0, 0, :2] = 0
    made = spread_of(values[:1], values[1:1], values[1:5], values[5:], threshold=0.3)
    assert made.count == values.size
    assert made.foreground == np.mean(values > 0.3)
    assert made.variance == pytest.approx(values.astype(np.float64).var(), rel=1e-9)
    assert (made.least, made.greatest) == (0.0, values.max())
    assert made.least_not_zero == values[values > 0].min()
    assert made.fault == ""
    low, high, mean, std = values.min(), values.max(), values.mean(), values.std()
    assert made.text.startswith(f"min {low:.3f}, max {high:.3f}, mean {mean:.3f}, std {std:.3f}, foreground ")


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ([0.0, 0.0], "UNIFORM: found 0.00% foreground, wanted at least 0.1%"),
        ([0.3, 0.3], "UNIFORM: found 0.00% foreground, wanted at least 0.1%"),
        ([0.51, 0.49], "UNIFORM: found variance 0.0001, wanted at least 0.001"),
        ([0.5, 0.73], "FLOORED: every probability is 0.5 or more: an activation"),
        ([0.5, 0.99], "FLOORED: every probability is 0.5 or more: an activation"),
        ([0.0, 0.5, 0.731], "FLOORED: every probability is 0.5 or more, but for zeros: an activation"),
        ([0.0, 1.0], ""),  # a network sure of itself, or a mask in float
        ([0.0, 0.6, 0.9], ""),
        ([0.01, 0.5, 0.73], ""),
    ],
)
def test_a_spread_tells_its_fault(values: list[float], fault: str) -> None:
    found = spread_of(np.array(values, np.float32)).fault
    assert found.startswith(fault)
    assert bool(found) is bool(fault)


def test_nothing_at_all_is_no_sound_prediction() -> None:
    assert spread_of(np.zeros(0, np.float32)).fault.startswith("EMPTY")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_sigmoid_of_a_sigmoid_is_found_in_any_precision(dtype: type) -> None:
    logits = np.random.default_rng(0).normal(-2, 6, 10_000)
    once = 1 / (1 + np.exp(-logits))
    twice = 1 / (1 + np.exp(-once))
    assert spread_of(once.astype(dtype)).fault == ""
    assert spread_of(twice.astype(dtype)).fault.startswith("FLOORED")
