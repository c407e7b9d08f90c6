"""From logits to a mask: the one place where logits become probabilities."""

import math
from collections.abc import Sequence
from typing import Any

import cc3d
import numba
import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from surface_kernel.volume import forget_planes

Mask = npt.NDArray[np.uint8]


def probability(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Give the probability of surface, 1 / (1 + exp(−logit)): float32, the logits' shape."""
    with np.errstate(over="ignore"):  # exp(89) is inf in float32, and 1 / inf is the 0 that is meant
        return np.reciprocal(np.exp(-logits) + np.float32(1))


def logit(threshold: float) -> float:
    """Give the logit at which the probability equals `threshold`, 0 < threshold < 1."""
    return math.log(threshold / (1 - threshold))


def above(logits: npt.NDArray[np.float32], threshold: float) -> Mask:
    """Give 1 where the probability is above `threshold`, else 0. Compared as logits: nothing is exponentiated."""
    return (logits > np.float32(logit(threshold))).view(np.uint8)


def drop_dust(mask: Mask, dust_voxels: int, slab_voxels: int = 1 << 26) -> None:
    """Set the 26-connected components of fewer than `dust_voxels` voxels to 0, in place. 0 or 1 drops nothing.

    mask: uint8 {0, 1} (z, y, x), an array or a memory map. Slabs of about `slab_voxels` voxels are labelled one at a
    time, 4 bytes a voxel, and joined where they touch, so that memory does not grow with a volume's depth. A volume
    of more than one slab is labelled twice: its labels are not kept.
    """
    if dust_voxels <= 1 or mask.size == 0:
        return
    planes = max(1, slab_voxels // max(1, mask[0].size))
    slabs = [slice(first, first + planes) for first in range(0, len(mask), planes)]
    sizes, touching, offsets, below = [np.zeros(1, np.int64)], [], [0], np.empty((0, 0), np.int64)
    labels: npt.NDArray[Any] = np.empty(0)
    for slab in slabs:
        labels, count = cc3d.connected_components(mask[slab], connectivity=26, return_N=True)
        forget_planes(mask, slab.stop)
        sizes.append(_count(labels, count)[1:])
        if below.size:
            touching.append(_touching(below, _numbered(labels[0], offsets[-1])))
        below = _numbered(labels[-1], offsets[-1])
        offsets.append(offsets[-1] + count)
    whole = _joined(np.concatenate(sizes), touching) >= dust_voxels
    whole[0] = False
    if whole[1:].all():
        return
    for slab, offset in zip(slabs, offsets, strict=False):
        if len(slabs) > 1:
            labels = cc3d.connected_components(mask[slab], connectivity=26)
        _keep(labels, np.concatenate((whole[:1], whole[offset + 1 :])), mask[slab])
        forget_planes(mask, slab.stop)


def _numbered(plane: npt.NDArray[np.unsignedinteger], offset: int) -> npt.NDArray[np.int64]:
    """Number a plane's components on from those of the slabs before; 0 stays background."""
    numbers = plane.astype(np.int64)
    return np.where(numbers > 0, numbers + offset, 0)


def _touching(below: npt.NDArray[np.int64], above: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Give the pairs of components that touch from one plane to the next, by side, edge or corner: (pairs, 2)."""
    height, width = below.shape
    padded = np.pad(above, 1)
    found = []
    for y in range(3):
        for x in range(3):
            shifted = padded[y : y + height, x : x + width]
            both = (below > 0) & (shifted > 0)
            found.append(np.unique(np.stack((below[both], shifted[both]), axis=1), axis=0))
    return np.concatenate(found)


def _joined(sizes: npt.NDArray[np.int64], touching: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    """Give every numbered component the size of all that it is joined to."""
    if not touching:
        return sizes
    pairs = np.concatenate(touching)
    graph = coo_array((np.ones(len(pairs), np.bool_), (pairs[:, 0], pairs[:, 1])), shape=(len(sizes), len(sizes)))
    _, group = connected_components(graph, directed=False)
    joined: npt.NDArray[np.int64] = np.bincount(group, weights=sizes)[group].astype(np.int64)
    return joined


@numba.njit(nogil=True, cache=True)
def _count(labels: npt.NDArray[Any], count: int) -> npt.NDArray[np.int64]:
    """Count the voxels of every label, 0 included: int64 (count + 1,)."""
    sizes = np.zeros(count + 1, np.int64)
    for label in labels.flat:
        sizes[label] += 1
    return sizes


@numba.njit(nogil=True, cache=True)
def _keep(labels: npt.NDArray[Any], wanted: npt.NDArray[np.bool_], mask: Mask) -> None:
    """Set `mask` to 1 where a voxel's label is wanted, else to 0."""
    depth, height, width = mask.shape
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                mask[z, y, x] = wanted[labels[z, y, x]]
