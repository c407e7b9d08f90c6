"""Drop small components: whole pieces of a mask that have too few voxels to be a sheet."""

from collections.abc import Sequence
from typing import Any, get_args

import cc3d
import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from surface_kernel.compiled import compiled
from surface_kernel.postprocess.steps import Connectivity
from surface_kernel.volumes.volume import forget_planes

Mask = npt.NDArray[np.uint8]


def drop_small_components(
    mask: Mask,
    least_voxels: int,
    connectivity: Connectivity,
    *,
    keep_touching_faces: bool = False,
    slab_voxels: int = 1 << 26,
) -> None:
    """Set the connected components of fewer than `least_voxels` voxels to 0, in place.

    Slabs are labelled one at a time, 4 bytes a voxel, and joined where they touch, so that memory does not grow with a
    volume's depth. A volume of more than one slab is labelled twice: its labels are not kept.

    Args:
        mask: uint8 {0, 1}, (z, y, x), an array or a memory map.
        least_voxels: 0 or 1 keeps everything.
        connectivity: 6 or 26 neighbours make a component.
        keep_touching_faces: keep components that touch a face of the volume.
        slab_voxels: about how many voxels are labelled at a time.

    Raises:
        ValueError: for another connectivity.
    """
    if connectivity not in get_args(Connectivity):
        raise ValueError(f"connectivity: expected 6 or 26, got {connectivity}")
    if least_voxels <= 1 or mask.size == 0:
        return
    planes = max(1, slab_voxels // max(1, mask[0].size))
    slabs = [slice(first, first + planes) for first in range(0, len(mask), planes)]
    sizes, touching, offsets, below = [np.zeros(1, np.int64)], [], [0], np.empty((0, 0), np.int64)
    labels: npt.NDArray[Any] = np.empty(0)
    for slab in slabs:
        labels, count = cc3d.connected_components(mask[slab], connectivity=connectivity, return_N=True)
        forget_planes(mask, slab.stop)
        sizes.append(_count(labels, count)[1:])
        if keep_touching_faces:  # they count as large enough, whatever they are joined to
            ends = [end for end, planes in ((0, slab.start), (-1, len(mask) - slab.stop)) if planes <= 0]
            sizes[-1][_on_faces(labels, ends) - 1] += least_voxels
        if below.size:
            touching.append(_touching(below, _numbered(labels[0], offsets[-1]), connectivity))
        below = _numbered(labels[-1], offsets[-1])
        offsets.append(offsets[-1] + count)
    whole = _joined(np.concatenate(sizes), touching) >= least_voxels
    whole[0] = False
    if whole[1:].all():
        return
    for slab, offset in zip(slabs, offsets, strict=False):
        if len(slabs) > 1:
            labels = cc3d.connected_components(mask[slab], connectivity=connectivity)
        _keep(labels, np.concatenate((whole[:1], whole[offset + 1 :])), mask[slab])
        forget_planes(mask, slab.stop)


def _on_faces(labels: npt.NDArray[Any], ends: Sequence[int]) -> npt.NDArray[np.int64]:
    """Return the components that touch a face of a slab: all four along z, and the `ends` of z (0, -1)."""
    faces = [labels[end] for end in ends] + [labels[:, end] for end in (0, -1)] + [labels[:, :, end] for end in (0, -1)]
    found = np.unique(np.concatenate([np.unique(face) for face in faces])).astype(np.int64)
    return found[found > 0]


def _numbered(plane: npt.NDArray[np.unsignedinteger], offset: int) -> npt.NDArray[np.int64]:
    """Number a plane's components on from those of the slabs before; 0 stays background."""
    numbers = plane.astype(np.int64)
    return np.where(numbers > 0, numbers + offset, 0)


def _touching(
    below: npt.NDArray[np.int64], above: npt.NDArray[np.int64], connectivity: Connectivity
) -> npt.NDArray[np.int64]:
    """Return the pairs of components that touch from one plane to the next: int64 (pairs, 2)."""
    height, width = below.shape
    padded = np.pad(above, 1)
    found = []
    reach = range(3) if connectivity == 26 else range(1, 2)
    for y in reach:
        for x in reach:
            shifted = padded[y : y + height, x : x + width]
            both = (below > 0) & (shifted > 0)
            found.append(np.unique(np.stack((below[both], shifted[both]), axis=1), axis=0))
    return np.concatenate(found)


def _joined(sizes: npt.NDArray[np.int64], touching: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    """Return for every numbered component the size of all that it is joined to."""
    if not touching:
        return sizes
    pairs = np.concatenate(touching)
    graph = coo_array((np.ones(len(pairs), np.bool_), (pairs[:, 0], pairs[:, 1])), shape=(len(sizes), len(sizes)))
    _, group = connected_components(graph, directed=False)
    joined: npt.NDArray[np.int64] = np.bincount(group, weights=sizes)[group].astype(np.int64)
    return joined


@compiled()
def _count(labels: npt.NDArray[Any], count: int) -> npt.NDArray[np.int64]:
    """Count the voxels of every label, 0 included: int64 (count + 1,)."""
    sizes = np.zeros(count + 1, np.int64)
    for label in labels.flat:
        sizes[label] += 1
    return sizes


@compiled()
def _keep(labels: npt.NDArray[Any], wanted: npt.NDArray[np.bool_], mask: Mask) -> None:
    """Set `mask` to 1 where a voxel's label is wanted, else to 0."""
    depth, height, width = mask.shape
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                mask[z, y, x] = wanted[labels[z, y, x]]
