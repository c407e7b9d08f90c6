"""Betti matching of two binary masks: how many features of the one are the other's, in each dimension.

Both masks lie in their union. A feature of either is also one of the union, and it ends there at a definite place when
the background is swept in scan order (z slowest, then y, then x). Two features match if they end at the same place.
docs/betti.md derives the rules below from the definition in Stucki et al., "Efficient Betti matching enables
topology-aware 3D segmentation via persistent homology", 2024, whose code they agree with count for count.
"""

import numpy as np
import numpy.typing as npt

from surface_score.compiled import compiled
from surface_score.features import Cavities, Labels, Mask, component_labels, find_cavities, find_features
from surface_score.tunnels import matched_tunnels

Counts = tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]


def match(prediction: Mask, truth: Mask) -> Counts:
    """Return (matched, predicted, true) for components, tunnels and cavities of two masks.

    A mask's first component is not counted, so an empty mask and one of a single piece both have none.

    Args:
        prediction: bool (z, y, x) with at least one voxel, any memory layout.
        truth: bool, the same shape.
    """
    prediction, truth = np.ascontiguousarray(prediction), np.ascontiguousarray(truth)
    predicted, true = find_features(prediction), find_features(truth)
    p, g = predicted.counts, true.counts
    # No more can match than the poorer side has; truths often have no tunnels and seldom a cavity.
    components = _matched_components(prediction, truth) if p[0] and g[0] else 0
    tunnels = matched_tunnels(prediction, truth) if p[1] and g[1] else 0
    cavities = _matched_cavities(predicted.cavities, true.cavities, prediction | truth) if p[2] and g[2] else 0
    return (components, p[0], g[0]), (tunnels, p[1], g[1]), (cavities, p[2], g[2])


def _matched_components(prediction: Mask, truth: Mask) -> int:
    """Count the components of the union that hold voxels of both masks and are swept up after another such one.

    The swept region is one piece from the start, and a component of the union joins it when it is first reached. Then
    the two can no longer be distinguished: if both hold predicted voxels, a predicted component ends here, and if both
    hold true ones, a true component does.
    """
    labels, number = component_labels(prediction | truth)
    reached, has_predicted, has_true = _sweep(labels, prediction, truth, number)
    order = np.argsort(reached[1:]) + 1
    predicted_before = np.cumsum(has_predicted[order]) > has_predicted[order]
    true_before = np.cumsum(has_true[order]) > has_true[order]
    return int(np.count_nonzero(has_predicted[order] & has_true[order] & predicted_before & true_before))


@compiled
def _sweep(
    labels: Labels, prediction: Mask, truth: Mask, number: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return for each label when the sweep first reaches it and which of the masks it holds voxels of.

    The sweep goes through the voxels in scan order, and from each to its next along z, then y, then x. So a voxel is
    reached from the one below it along z; in the first plane along y, in its first row along x.
    """
    depth, height, width = labels.shape
    reached = np.full(number + 1, 3 * labels.size, np.int64)
    has_predicted = np.zeros(number + 1, np.bool_)
    has_true = np.zeros(number + 1, np.bool_)
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                label = labels[z, y, x]
                if label == 0:
                    continue
                if z > 0:
                    step = 3 * (((z - 1) * height + y) * width + x)
                elif y > 0:
                    step = 3 * ((y - 1) * width + x) + 1
                else:
                    step = 3 * (x - 1) + 2  # the first voxel of all is there from the start
                reached[label] = min(reached[label], step)
                has_predicted[label] |= prediction[z, y, x]
                has_true[label] |= truth[z, y, x]
    return reached, has_predicted, has_true


def _matched_cavities(predicted: Cavities, true: Cavities, union: Mask) -> int:
    """Count the cavities of the union in whose last voxel a predicted and a true cavity are filled.

    A cavity falls apart into cavities of the union, or vanishes in it. It is filled when the last voxel of the last of
    them is, in scan order.
    """
    pieces = find_cavities(union)
    last = np.zeros(pieces.enclosed.size, np.int64)
    voxels = np.flatnonzero(pieces.enclosed[pieces.label])
    last[pieces.label.reshape(-1)[voxels]] = voxels  # of several writes to a place, numpy keeps the last
    ends = last[pieces.enclosed]
    return len(_filled_at(predicted, ends) & _filled_at(true, ends))


def _filled_at(cavities: Cavities, ends: npt.NDArray[np.int64]) -> set[int]:
    around = cavities.label.reshape(-1)[ends]
    last = np.full(cavities.enclosed.size, -1, np.int64)
    np.maximum.at(last, around, ends)
    return set(last[cavities.enclosed & (last >= 0)].tolist())
