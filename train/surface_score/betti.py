"""TopoScore: topological features matched between prediction and truth, octant by octant.

The volume is cut once along each axis. In each octant the features of the two masks (components, tunnels, cavities:
dimensions 0, 1 and 2) are matched; `surface_score.matching` does that. The counts are summed over the octants, and each
dimension gets an F1.
"""

import itertools
from collections.abc import Iterable
from concurrent.futures import Executor
from dataclasses import dataclass

from surface_score.features import Mask
from surface_score.matching import match

DIMENSION_WEIGHTS = (0.34, 0.33, 0.33)
_NO_TRUE_FEATURES = 0.5

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Matching:
    """How many features of one dimension match, how many are predicted, how many are true."""

    matched: int
    predicted: int
    true: int

    def __post_init__(self) -> None:
        if not 0 <= self.matched <= min(self.predicted, self.true):
            raise ValueError(f"expected 0 <= matched <= predicted and true, got {self}")

    def __add__(self, other: "Matching") -> "Matching":
        return Matching(self.matched + other.matched, self.predicted + other.predicted, self.true + other.true)

    @property
    def corrected(self) -> "Matching":
        """Return the counts of a prediction that has the true features and no others."""
        return Matching(self.true, self.true, self.true)

    @property
    def f1(self) -> float | None:
        """Return 2 · matched / (predicted + true); None where there is nothing to match.

        Where nothing is true it is 0.5 / (predicted + 0.5), so that one false feature costs less than a hundred.
        """
        if self.predicted + self.true == 0:
            return None
        if self.true == 0:
            return _NO_TRUE_FEATURES / (self.predicted + _NO_TRUE_FEATURES)
        return 2 * self.matched / (self.predicted + self.true)


Matchings = tuple[Matching, Matching, Matching]


@dataclass(frozen=True)
class Octant:
    """The counts in one box of the volume, for components, tunnels and cavities."""

    box: Box
    matchings: Matchings


def match_octants(prediction: Mask, truth: Mask, pool: Executor) -> list[Octant]:
    """Return the matched features of two masks, octant by octant.

    Args:
        prediction: bool (z, y, x).
        truth: bool, the same shape.
        pool: Where the octants run, one task each.
    """
    boxes = octants(truth.shape)
    counted = pool.map(lambda box: match(prediction[box], truth[box]), boxes)
    return [
        Octant(box, (Matching(*counts[0]), Matching(*counts[1]), Matching(*counts[2])))
        for box, counts in zip(boxes, counted, strict=True)
    ]


def octants(shape_zyx: tuple[int, ...]) -> list[Box]:
    """Return the boxes that a volume is cut into, in scan order: two halves per axis, the first the larger by one.

    An axis of one voxel is not cut, so that there are 1, 2, 4 or 8 boxes and none is empty.
    """
    halves = [[slice(0, length - length // 2), slice(length - length // 2, length)] for length in shape_zyx]
    return [
        (z, y, x)
        for z, y, x in itertools.product(*halves)
        if z.start < z.stop and y.start < y.stop and x.start < x.stop
    ]


def total(octants: Iterable[Octant]) -> Matchings:
    """Return the sum over octants in each dimension, zeros where there are no octants."""
    sums = [Matching(0, 0, 0)] * 3
    for octant in octants:
        sums = [sum_ + matching for sum_, matching in zip(sums, octant.matchings, strict=True)]
    return sums[0], sums[1], sums[2]


def topo_score(matchings: Matchings) -> float:
    """Return the mean of the F1 over the dimensions that have one, weighted (0.34, 0.33, 0.33); 1.0 if none has."""
    weighed = [(weight, matching.f1) for weight, matching in zip(DIMENSION_WEIGHTS, matchings, strict=True)]
    present = [(weight, f1) for weight, f1 in weighed if f1 is not None]
    if not present:
        return 1.0
    return sum(weight * f1 for weight, f1 in present) / sum(weight for weight, _ in present)
