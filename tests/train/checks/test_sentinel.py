import argparse
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from surface_train.__main__ import _parser
from surface_train.checks.sentinel import SeenProbabilities, violation, watch
from surface_train.settings import Sentinel

SOUND = (0.06, 0.05, 0.04)  # foreground, truth, variance
LIMITS = Sentinel()


def watched(
    strikes: int, foreground: float, truth: float, variance: float, limits: Sentinel = LIMITS
) -> tuple[int, str]:
    return watch(limits, strikes, foreground=foreground, truth=truth, variance=variance)


@pytest.mark.parametrize(
    ("foreground", "variance", "fault"),
    [
        (0.95, 0.001, ""),
        (0.001, 0.001, ""),
        (0.9988, 0.001, "expected at most 95% foreground, got 99.88%"),
        (0.9501, 0.0, "expected at most 95% foreground, got 95.01%"),
        (0.0009, 0.2, "expected at least 0.1% foreground, got 0.09%"),
        (0.0, 0.0, "expected at least 0.1% foreground, got 0.00%"),
        (0.5, 0.0009, "expected a variance of at least 0.001, got 0.0009"),
        (0.5, 0.0, "expected a variance of at least 0.001, got 0"),
        (0.5, None, ""),
        (math.nan, 0.2, "expected at most 95% foreground, got nan%"),
        (0.5, math.nan, "expected a variance of at least 0.001, got nan"),
    ],
)
def test_the_limit_that_a_prediction_violates_is_named(foreground: float, variance: float | None, fault: str) -> None:
    assert violation(LIMITS, foreground, variance) == fault


def test_the_limits_are_those_of_the_settings() -> None:
    assert violation(Sentinel(least_foreground=0.2), 0.1) == "expected at least 20% foreground, got 10.00%"
    assert violation(Sentinel(most_foreground=0.05), 0.1) == "expected at most 5% foreground, got 10.00%"
    assert not violation(Sentinel(least_variance=0), 0.1, 0.0)


def test_the_fifth_strike_in_a_row_stops_the_run() -> None:
    strikes = 0
    for expected in (1, 2, 3, 4):
        strikes, collapse = watched(strikes, 0.9988, 0.053, 0.02)
        assert (strikes, collapse) == (expected, "")
    strikes, collapse = watched(strikes, 0.9988, 0.053, 0.02)
    assert strikes == 5
    assert "5 consecutive validations" in collapse


def test_a_sound_validation_starts_the_count_again() -> None:
    strikes = 0
    for odd in ((1.0, 0.05, 0.2), (0.0, 0.05, 0.2), (0.3, 0.05, 0.0), (math.nan, 0.05, math.nan)):
        strikes, collapse = watched(strikes, *odd)  # whichever limit it is, they count together
        assert collapse == ""
    assert strikes == 4
    assert watched(strikes, *SOUND) == (0, "")
    assert watched(0, 1.0, 0.05, 0.2) == (1, "")


@given(st.lists(st.booleans(), max_size=30), st.integers(1, 6))
def test_it_stops_exactly_where_so_many_in_a_row_are_odd(odd: list[bool], most: int) -> None:
    expected = "".join("x" if it else "." for it in odd).find("x" * most)
    strikes, stopped = 0, -1
    for index, it in enumerate(odd):
        strikes, collapse = watched(strikes, *((0.0, 0.05, 0.0) if it else SOUND), limits=Sentinel(validations=most))
        if collapse:
            stopped = index - most + 1
            break
    assert stopped == expected


def test_the_message_has_the_number_the_causes_in_order_and_a_check_for_each() -> None:
    _, collapse = watched(0, 0.9988, 0.053, 0.0204, limits=Sentinel(validations=1))
    lines = collapse.splitlines()
    assert lines[0] == (
        "the prediction collapsed: expected at most 95% foreground, got 99.88%; past a limit in 1 validation, "
        "the last one with foreground 99.88%, truth 5.30%, variance of the probabilities 0.02."
    )
    causes = [line.partition(": ")[0] for line in lines[2:6]]
    assert causes == [
        "1. an activation applied twice",
        "2. labels counted wrong",
        "3. an intensity mismatch",
        "4. the loss",
    ]
    assert all("python -m surface_train " in line for line in lines[2:6])
    assert "\n\n" not in collapse  # it reads on when its lines are joined


def test_every_check_is_a_command_that_there_is() -> None:
    _, collapse = watched(0, 1.0, 0.05, 0.0, limits=Sentinel(validations=1))
    commands = re.findall(
        r"python -m surface_train ((?:audit|fit)(?: (?:--?\w+|\S*[A-Z]\S*?))+?)(?=,| [a-z])", collapse
    )
    assert len(commands) == 4
    for command in commands:
        assert isinstance(_parser().parse_args(command.split()), argparse.Namespace)


def seen_in(*parts: np.ndarray, threshold: float = 0.5) -> SeenProbabilities:
    made = SeenProbabilities(threshold, LIMITS)
    for part in parts:
        made.add(part)
    return made


def test_probabilities_added_in_slabs_are_those_of_the_whole() -> None:
    values = np.random.default_rng(0).random((6, 5, 4)).astype(np.float32)
    values[0, 0, :2] = 0
    made = seen_in(values[:1], values[1:1], values[1:5], values[5:], threshold=0.3)
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
        ([0.0, 0.0], "UNIFORM: expected at least 0.1% foreground, got 0.00%"),
        ([0.3, 0.3], "UNIFORM: expected at least 0.1% foreground, got 0.00%"),
        ([0.51, 0.49], "UNIFORM: expected a variance of at least 0.001, got 0.0001"),
        ([0.5, 0.73], "FLOORED: every probability is 0.5 or more: was an activation"),
        ([0.5, 0.99], "FLOORED: every probability is 0.5 or more: was an activation"),
        ([0.0, 0.5, 0.731], "FLOORED: every probability is 0.5 or more, zeros aside: was an activation"),
        ([0.0, 1.0], ""),  # a network sure of itself, or a mask in float
        ([0.0, 0.6, 0.9], ""),
        ([0.01, 0.5, 0.73], ""),
    ],
)
def test_the_fault_of_probabilities_is_named(values: list[float], fault: str) -> None:
    found = seen_in(np.array(values, np.float32)).fault
    assert found.startswith(fault)
    assert bool(found) is bool(fault)


def test_nothing_at_all_is_no_sound_prediction() -> None:
    assert seen_in(np.zeros(0, np.float32)).fault.startswith("EMPTY")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_sigmoid_of_a_sigmoid_is_found_in_any_precision(dtype: type) -> None:
    logits = np.random.default_rng(0).normal(-2, 6, 10_000)
    once = 1 / (1 + np.exp(-logits))
    twice = 1 / (1 + np.exp(-once))
    assert seen_in(once.astype(dtype)).fault == ""
    assert seen_in(twice.astype(dtype)).fault.startswith("FLOORED")
