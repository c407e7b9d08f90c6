"""What a voxel is to a comparison: one number each, from which the page draws all of its overlays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from surface_score.leaderboard import IGNORED

Kinds = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Voxel = tuple[int, int, int]

# The page's script (templates/viewer.js) knows them by these numbers.
BACKGROUND, UNLABELLED, BOTH, MISSED, ADDED, MERGED, SPLIT, HOLE, PLUG, PREDICTED, UNLABELLED_PREDICTED = range(11)

NEAR_CONTACT_VOXELS = 8
NEAR_HOLE_VOXELS = 4  # as surface_score.explain counts what could fill a hole


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Voxels of one kind near a place that are of another kind there."""

    at: Voxel
    within: int
    """Voxels along each axis."""
    of: int
    """The kind that they have without the mark: MISSED or ADDED."""
    becomes: int


def kinds_of(predicted: Mask, label: npt.NDArray[np.generic] | None) -> Kinds:
    """Return the kind of each voxel, uint8, as the score reads them, before any marks.

    Args:
        predicted: Of any shape.
        label: The same shape; None where there is no truth: then all is BACKGROUND or PREDICTED.
    """
    if label is None:
        return np.where(predicted, np.uint8(PREDICTED), np.uint8(BACKGROUND))
    true, ignored = label != 0, label == IGNORED
    kinds: Kinds = np.array([BACKGROUND, MISSED, ADDED, BOTH], np.uint8)[true + 2 * predicted.astype(np.uint8)]
    kinds[ignored] = np.where(predicted[ignored], UNLABELLED_PREDICTED, UNLABELLED)
    return kinds


def marked(
    predicted: Mask, label: npt.NDArray[np.generic], marks: Sequence[Mark]
) -> tuple[npt.NDArray[np.int64], Kinds]:
    """Return the voxels (n, 3) that marks give another kind, and that kind (n,); the last mark of a voxel counts."""
    places, values = [np.empty((0, 3), np.int64)], [np.empty(0, np.uint8)]
    for mark in marks:
        corner = np.maximum(np.array(mark.at) - mark.within, 0)
        box = tuple(slice(start, at + mark.within + 1) for start, at in zip(corner.tolist(), mark.at, strict=True))
        inside = np.argwhere(kinds_of(predicted[box], label[box]) == mark.of) + corner
        places.append(inside)
        values.append(np.full(len(inside), mark.becomes, np.uint8))
    return np.concatenate(places), np.concatenate(values)
