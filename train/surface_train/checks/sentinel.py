"""A collapse must not go unseen: validation after validation against the limits of a living prediction."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from surface_train.settings import Sentinel

_SIGMOID_OF_1 = 1 / (1 + math.exp(-1))  # the greatest probability that a second sigmoid leaves
_ROUNDING = 1e-3  # of half-precision files

# Likely causes, the likeliest first, each with the check that tells. RUN and DATA are the run's and the data's folders.
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
        "also prints what the network was fed; its mean must be near 0 and its spread near 1.",
    ),
    (
        "the loss",
        "python -m surface_train fit --settings OTHER.toml --data DATA --fold K, "
        'OTHER being RUN/settings.toml with preset = "rebalanced" under [loss]; '
        "RUN/curves.png shows which term fell while the variance of p did.",
    ),
)


class Collapse(RuntimeError):
    """A run whose validations say the same everywhere; the message names number, causes and checks."""


class Watch:
    """Counts validations in a row that passed a limit. strikes: 0, or what a resumed run had counted."""

    def __init__(self, limits: Sentinel, strikes: int = 0) -> None:
        self.limits, self.strikes = limits, strikes

    def see(self, foreground: float, truth: float, variance: float) -> None:
        """Look at one validation after warm-up; a sound one sets the count back to 0.

        foreground, truth: shares from 0 to 1 of the labelled voxels, predicted and true. variance: of the
        probabilities there. Raises Collapse when `limits.validations` in a row passed a limit.
        """
        odd = passed(self.limits, foreground, variance)
        self.strikes = self.strikes + 1 if odd else 0
        if self.strikes >= self.limits.validations:
            seen = f"foreground {foreground:.2%}, truth {truth:.2%}, variance of the probabilities {variance:.2g}"
            raise Collapse(_message(odd, seen, self.strikes))


def passed(limits: Sentinel, foreground: float, variance: float | None = None) -> str:
    """Say which limit a prediction passes; empty when none. A number that is none (NaN) passes.

    foreground: a share from 0 to 1. variance: of probabilities; None for a mask, which has none of its own.
    """
    if not foreground <= limits.most_foreground:
        return f"{foreground:.2%} foreground, wanted at most {_percent(limits.most_foreground)}"
    if not foreground >= limits.least_foreground:
        return f"{foreground:.2%} foreground, wanted at least {_percent(limits.least_foreground)}"
    if variance is not None and not variance >= limits.least_variance:
        return f"variance {variance:.2g}, wanted at least {limits.least_variance:g}"
    return ""


@dataclass
class Spread:
    """What probabilities are like, gathered slab by slab. threshold: above it lies the foreground."""

    threshold: float
    limits: Sentinel
    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    above: int = 0
    least: float = math.inf
    least_not_zero: float = math.inf
    greatest: float = -math.inf

    def add(self, probabilities: npt.NDArray[np.floating[Any]]) -> None:
        """Take some more into account; none at all changes nothing."""
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
        """Of all that was added."""
        return max(0.0, _share(self.squares, self.count) - _share(self.total, self.count) ** 2)

    @property
    def text(self) -> str:
        """The numbers in a line."""
        return (
            f"min {self.least:.3f}, max {self.greatest:.3f}, mean {_share(self.total, self.count):.3f}, "
            f"std {math.sqrt(self.variance):.3f}, foreground {self.foreground:.2%}"
        )

    @property
    def fault(self) -> str:
        """What no living prediction shows; empty when there is nothing."""
        if not self.count:
            return "EMPTY: found no labelled voxel, wanted some"
        # A sigmoid of a sigmoid lies between 0.5 and 0.73. Where the reference stitched nothing, at the faces, it has
        # left zeros beside.
        twice = self.least_not_zero >= 0.5 and 0.5 <= self.greatest <= _SIGMOID_OF_1 + _ROUNDING
        if self.least >= 0.5 or twice:
            beside = ", but for zeros" if self.least < 0.5 else ""
            return f"FLOORED: every probability is 0.5 or more{beside}: an activation was applied twice?"
        odd = passed(self.limits, self.foreground, self.variance)
        return f"UNIFORM: found {odd}" if odd else ""


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _percent(share: float) -> str:
    return f"{100 * share:g}%"


def _message(odd: str, seen: str, strikes: int) -> str:
    in_a_row = "1 validation" if strikes == 1 else f"{strikes} validations in a row"
    lines = [f"the prediction collapsed: found {odd}, after {in_a_row} past a limit; the last one: {seen}."]
    lines.append("Likely causes, the likeliest first, and how to check each:")
    lines += [f"{number}. {cause}: {check}" for number, (cause, check) in enumerate(_CAUSES, start=1)]
    lines.append("If the data really look like this, change the limits under [sentinel] in the settings.")
    return "\n".join(lines)
