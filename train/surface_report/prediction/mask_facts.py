"""What a mask says of itself, where there is no truth to hold it against."""

from dataclasses import dataclass
from pathlib import Path

import cc3d
import numpy as np
import numpy.typing as npt

from surface_kernel.volumes import volume
from surface_kernel.volumes.scanned import scanned_bits, unpacked
from surface_score.masks import MaskFile, read
from surface_score.surface_dice import area_of_code

Mask = npt.NDArray[np.bool_]

_AT_A_TIME = 1 << 21  # voxels: bincount makes eight bytes of each


@dataclass(frozen=True, kw_only=True)
class MaskFacts:
    """The facts of one mask."""

    id: str
    shape_zyx: tuple[int, ...]
    foreground: float
    """Share of all voxels."""
    components: int
    """26-connected."""
    sizes: tuple[int, ...]
    """Of all components in voxels, the largest first."""
    thickness_voxels: float | None
    """Of sheets as wide as they like: twice the volume over the surface's area; None where there is no foreground."""
    unscanned: float | None
    """Share of the foreground that lies where nothing was scanned; None without CT."""


def mask_facts(file: MaskFile, image: Path | None) -> MaskFacts:
    """Return the facts of a mask.

    Raises:
        MaskError, VolumeError, OSError: for a file that cannot be read.
        ValueError: for a CT of another shape.
    """
    mask: Mask = read(file) != 0
    voxels = int(np.count_nonzero(mask))
    sizes = component_sizes(mask)
    area = surface_area(mask)
    return MaskFacts(
        id=file.id,
        shape_zyx=mask.shape,
        foreground=voxels / mask.size,
        components=len(sizes),
        sizes=sizes,
        thickness_voxels=2 * voxels / area if voxels else None,
        unscanned=None if image is None else _unscanned(mask, image, voxels),
    )


def component_sizes(mask: Mask) -> tuple[int, ...]:
    """Return the voxels of each 26-connected component, the largest first."""
    # As uint8: for bool, cc3d 4.1.1 reserves too few labels when single voxels fill an odd axis, and raises.
    labels, components = cc3d.connected_components(mask.view(np.uint8), connectivity=26, return_N=True)
    flat, counts = labels.reshape(-1), np.zeros(components + 1, np.int64)
    for first in range(0, flat.size, _AT_A_TIME):
        counts += np.bincount(flat[first : first + _AT_A_TIME], minlength=components + 1)
    return tuple(sorted(counts[1:].tolist(), reverse=True))


def surface_area(mask: Mask) -> float:
    """Return the area of a mask's surface in voxel faces, as marching cubes has it and surface Dice weighs it."""
    counts, below = np.zeros(256, np.int64), np.zeros((mask.shape[1] + 1, mask.shape[2] + 1), np.uint8)
    # Plane by plane, in the CPU's cache: each corner between voxels gets its eight neighbours as the bits of a code.
    for plane in (*mask.view(np.uint8), np.zeros(mask.shape[1:], np.uint8)):
        padded = np.pad(plane, 1)
        pairs = padded[:, :-1] << 1 | padded[:, 1:]
        above = pairs[:-1] << 2 | pairs[1:]
        counts += np.bincount((below << 4 | above).reshape(-1), minlength=256)
        below = above
    return float(counts @ area_of_code())


def _unscanned(mask: Mask, image: Path, voxels: int) -> float:
    grey = volume.read(image)
    if grey.shape != mask.shape:
        raise ValueError(f"expected a CT of {mask.shape} as its mask, got {grey.shape}")
    scanned = unpacked(scanned_bits(grey), mask.shape[2])
    return int(np.count_nonzero(mask & ~scanned.astype(bool))) / voxels if voxels else 0.0
