"""Majority: every voxel becomes what most of its neighbourhood is, which smooths walls and fills pinholes."""

import numpy as np
import numpy.typing as npt

from surface_kernel.postprocess.box_counts import box_counts
from surface_kernel.volumes.volume import forget_planes

Mask = npt.NDArray[np.uint8]
_MOST = 14  # of the 27 voxels of a 3×3×3 box
_PLANES = 64  # between two times that memory is released


def majority(mask: Mask, rounds: int) -> None:
    """Set every voxel to 1 if 14 or more of the 27 voxels around it and itself are set, else to 0, in place.

    All voxels of a round change at once. Outside the mask its edge is repeated.

    Args:
        mask: uint8 {0, 1}, (z, y, x), an array or a memory map.
        rounds: how often at most; it ends as soon as nothing changes.
    """
    for _ in range(rounds):
        changed = False
        for z, counts in enumerate(box_counts(mask, 1)):
            plane = (counts >= _MOST).view(np.uint8)
            changed = changed or not np.array_equal(plane, mask[z])
            mask[z] = plane
            if z % _PLANES == 0:
                forget_planes(mask, z)
        if not changed:
            return
