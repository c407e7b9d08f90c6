"""How many voxels of a mask are set in the box around each voxel, plane by plane."""

from collections import deque
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.uint8]


def box_counts(mask: Mask, radius: int) -> Iterator[Mask]:
    """Yield for every plane how many voxels are set in the box of (2 · radius + 1)³ around each of its voxels.

    Outside the mask its edge is repeated. A plane may be overwritten as soon as its counts are yielded: what later
    counts need of it is kept.

    Args:
        mask: uint8 {0, 1}, (z, y, x), an array or a memory map.
        radius: 1 or 2 voxels; a count of a larger box would not fit uint8.

    Yields:
        uint8 (y, x), one for each plane; its memory is used again.
    """
    if mask.size == 0:
        return
    depth, side = len(mask), 2 * radius + 1
    ring: deque[Mask] = deque(maxlen=side)
    total = np.zeros(mask.shape[1:], np.uint8)
    for z in range(-radius, depth + radius):
        within = 0 < z < depth  # else the same plane once more
        counts = _plane_counts(mask[z if within else 0], radius) if within or not ring else ring[-1]
        if len(ring) == side:
            total -= ring[0]
        ring.append(counts)
        total += counts
        if len(ring) == side:
            yield total


def _plane_counts(plane: Mask, radius: int) -> Mask:
    """Return how many voxels of a plane are set in the square around each of its voxels."""
    padded = np.pad(plane, radius, mode="edge")
    height, width = plane.shape
    rows = padded[:, :width].copy()
    for x in range(1, 2 * radius + 1):
        rows += padded[:, x : x + width]
    counts = rows[:height].copy()
    for y in range(1, 2 * radius + 1):
        counts += rows[y : y + height]
    return counts
