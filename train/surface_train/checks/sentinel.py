"""The sentinel: stops a run whose predictions look nothing like surface, validation after validation."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from surface_kernel.runs.report import uniform_fault
from surface_train.settings import Sentinel

_SIGMOID_OF_1 = 1 / (1 + math.exp(-1))  # the greatest probability that a second sigmoid leaves
_ROUNDING = 1e-3  # of half-precision files

# Likely causes, the likeliest first, each with a command that checks it. RUN and DATA are the run's and data's folders.
_CAUSES = (
    (
        "an activation applied twice",
        "python -m surface_train audit RUN/last.safetensors --data DATA "
        "prints the least, greatest and mean probability; a least of 0.5 or more means a sigmoid of a sigmoid.",
    ),
    (
        "labels counted wrong",
        "python -m surface_train audit DATA/train_labels/*.tif prints the shares of 0, 1 and 2; "
        "the truth above must be the share of 1 among the labelled, never 1 and 2 together.",
    ),
    (
        "an intensity mismatch",
        "python -m surface_train audit RUN/last.safetensors --data DATA "
        "also prints the network's input; its mean must be near 0 and its standard deviation near 1.",
    ),
    (
        "the loss",
        "python -m surface_train fit --settings OTHER.toml --data DATA --fold K, "
        'OTHER being RUN/settings.toml with preset = "rebalanced" under [loss]; '
        "RUN/curves.png shows which term fell together with the variance of p.",
    ),
)


class Collapse(RuntimeError):
    """A run whose predictions are uniform; the message names the numbers, likely causes and checks."""


def watch(limits: Sentinel, strikes: int, *, foreground: float, truth: float, variance: float) -> tuple[int, str]:
    """Count a validation after warm-up; one within the limits sets the count back to 0.

    Args:
        limits: the sentinel's settings.
        strikes: consecutive validations past a limit before this one.
        foreground: predicted share of the labelled voxels, 0 to 1.
        truth: their true share, for the message.
        variance: of their probabilities.

    Returns:
        The new count, and why the run must stop; empty while it need not.
    """
    fault = violation(limits, foreground, variance)
    strikes = strikes + 1 if fault else 0
    if strikes < limits.validations:
        return strikes, ""
    numbers = f"foreground {foreground:.2%}, truth {truth:.2%}, variance of the probabilities {variance:.2g}"
    return strikes, _message(fault, numbers, strikes)


def violation(limits: Sentinel, foreground: float, variance: float | None = None) -> str:
    """Return which limit a prediction violates, empty when none. NaN violates each.

    Args:
        limits: the sentinel's settings.
        foreground: a share from 0 to 1.
        variance: of probabilities; None for a mask, which has none of its own.
    """
    shares = (limits.least_foreground, limits.most_foreground)
    return uniform_fault(foreground, variance, shares=shares, least_variance=limits.least_variance)


@dataclass
class SeenProbabilities:
    """Statistics of probabilities, added slab by slab."""

    threshold: float
    """Above it is foreground."""
    limits: Sentinel
    """Of predictions that look like surface."""
    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    above: int = 0
    least: float = math.inf
    least_not_zero: float = math.inf
    greatest: float = -math.inf

    def add(self, probabilities: npt.NDArray[np.floating[Any]]) -> None:
        """Add probabilities; an empty array changes nothing."""
        if not probabilities.size:
            return
        self.count += probabilities.size
        self.total += float(probabilities.sum(dtype=np.float64))
        self.squares += float(np.square(probabilities, dtype=np.float64).sum())
        self.above += int(np.count_nonzero(probabilities > self.threshold))
        self.least = min(self.least, float(probabilities.min()))
        self.least_not_zero = min(
            self.least_not_zero, float(probabilities.min(initial=math.inf, where=probabilities != 0))
        )
        self.greatest = max(self.greatest, float(probabilities.max()))

    @property
    def foreground(self) -> float:
        """The share above the threshold."""
        return _share(self.above, self.count)

    @property
    def variance(self) -> float:
        """The variance of all that was added."""
        return max(0.0, _share(self.squares, self.count) - _share(self.total, self.count) ** 2)

    @property
    def text(self) -> str:
        """The statistics in one line."""
        return (
            f"min {self.least:.3f}, max {self.greatest:.3f}, mean {_share(self.total, self.count):.3f}, "
            f"std {math.sqrt(self.variance):.3f}, foreground {self.foreground:.2%}"
        )

    @property
    def fault(self) -> str:
        """What is wrong with them, empty when nothing is."""
        if not self.count:
            return "EMPTY: expected labelled voxels, got none"
        # A sigmoid of a sigmoid is between 0.5 and 0.73. The reference's public code stitches nothing at the volume's
        # faces: there are zeros.
        twice = self.least_not_zero >= 0.5 and 0.5 <= self.greatest <= _SIGMOID_OF_1 + _ROUNDING
        if self.least >= 0.5 or twice:
            aside = ", zeros aside" if self.least < 0.5 else ""
            return f"FLOORED: every probability is 0.5 or more{aside}: was an activation applied twice?"
        fault = violation(self.limits, self.foreground, self.variance)
        return f"UNIFORM: {fault}" if fault else ""


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _message(fault: str, numbers: str, strikes: int) -> str:
    times = "1 validation" if strikes == 1 else f"{strikes} consecutive validations"
    lines = [f"the prediction collapsed: {fault}; past a limit in {times}, the last one with {numbers}."]
    lines.append("Likely causes, the likeliest first, and how to check each:")
    lines += [f"{number}. {cause}: {check}" for number, (cause, check) in enumerate(_CAUSES, start=1)]
    lines.append("If the data really look like this, change the limits under [sentinel] in the settings.")
    return "\n".join(lines)
