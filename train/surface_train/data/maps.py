"""Maps of a patch's label that terms of the loss read: numpy, made in the loader's threads.

A term lists its maps in its row of `losses.terms.TERMS`; the loader makes those of the terms that have a weight.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from surface_train.data.distance import distance_to

FAR_VOXELS = 1e6  # a distance where there is nothing to measure to
Label = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class LabelMap:
    """A kind of map that is made of a patch's label alone."""

    name: str
    """Its key among a batch's maps. Maps made with other numbers have other names: none is taken for another."""

    make: Callable[[Label], npt.NDArray[Any]]
    """Return the map of a label: uint8 {0, 1, 2} (z, y, x) in, `shape` of it out, any dtype."""

    stride: int = 1
    """Voxels of the label for each voxel of the map, along each axis."""

    def shape(self, shape_zyx: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the map of a label of shape_zyx: its sides divided by `stride`, rounded up."""
        return tuple(-(-side // self.stride) for side in shape_zyx)


def boundary_distance(label: Label) -> npt.NDArray[np.float32]:
    """Return every voxel's distance in voxels to the nearest voxel that is labelled as the other kind.

    Label 2 is neither kind: where the annotation ends there is no boundary. A voxel of label 2 gets its distance to
    the surface.

    Args:
        label: uint8 {0, 1, 2}, (z, y, x).

    Returns:
        float32 of the same shape; FAR_VOXELS where the other kind is missing.
    """
    return np.where(label == 1, distance_to(label, 0), distance_to(label, 1))


def skeleton(label: Label, iterations: int) -> npt.NDArray[np.uint8]:
    """Return the skeleton of the surface at half resolution, empty where there is no surface.

    On a mask the soft skeleton of Shit et al. 2021 (algorithm 1) is this one: what an opening removes from the mask
    and from each of its erosions.

    Args:
        label: uint8 {0, 1, 2}, (z, y, x).
        iterations: number of erosions; what is thicker than twice as many voxels is not thinned to the end.

    Returns:
        uint8 {0, 1}, each side of the label halved and rounded up.
    """
    image = _halved(label == 1)
    thinned = np.zeros_like(image)
    for _ in range(iterations + 1):
        eroded = _eroded(image)
        # What an opening removes is thinner than the opening: a piece of the skeleton at this depth.
        thinned |= image & ~_dilated(eroded)
        image = eroded
    return thinned.view(np.uint8)


DISTANCE = LabelMap(name="distance", make=boundary_distance)


def skeleton_map(iterations: int) -> LabelMap:
    """Return the kind of map that `skeleton` makes with so many iterations."""
    return LabelMap(name=f"skeleton_{iterations}", make=partial(skeleton, iterations=iterations), stride=2)


def _halved(image: Mask) -> Mask:
    for axis in range(3):
        first, second = (np.moveaxis(image, axis, 0)[start::2] for start in (0, 1))
        half = first.copy()
        # An odd side leaves a last plane without a partner; it stands for itself.
        half[: len(second)] |= second
        image = np.moveaxis(half, 0, axis)
    return np.ascontiguousarray(image)


def _eroded(image: Mask) -> Mask:
    """Keep voxels whose six neighbours, where they exist, belong to the image too."""
    kept = image.copy()
    for axis in range(3):
        into, seen = np.moveaxis(kept, axis, 0), np.moveaxis(image, axis, 0)
        into[1:] &= seen[:-1]
        into[:-1] &= seen[1:]
    return kept


def _dilated(image: Mask) -> Mask:
    """Add all 26 neighbours."""
    for axis in range(3):
        wide = image.copy()
        into, seen = np.moveaxis(wide, axis, 0), np.moveaxis(image, axis, 0)
        into[1:] |= seen[:-1]
        into[:-1] |= seen[1:]
        image = wide
    return image
