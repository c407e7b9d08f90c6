"""The inference of the reference system's public code: what it does, not what it should do.

Its network ends in a sigmoid and its inference applies another; its blending weights are 0 on a patch's faces; then it
post-processes the mask. Written from measurements of that code. Nothing else here runs a network this way.
"""

from collections.abc import Sequence

import cc3d
import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_dilation, binary_erosion

from surface_kernel import probability

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Starts = tuple[Sequence[int], Sequence[int], Sequence[int]]

THRESHOLD = 0.5
SMALLEST_COMPONENT, LARGEST_HOLE, RADIUS = 100, 50, 2  # voxels
_EPSILON = np.float32(1e-8)


def double_sigmoid(logits: Floats) -> Floats:
    """Return the sigmoid of the sigmoid of logits: float32, the same shape, 0.5 to 0.731 whatever the logits are."""
    return probability.probabilities(probability.probabilities(logits))


def weight(tile_zyx: tuple[int, int, int]) -> Floats:
    """Return a patch's blending weights (z, y, x): the least of the distances to its faces, each over half its length.

    They are 0 on all six faces.
    """
    z, y, x = (np.minimum(np.arange(n), np.arange(n)[::-1]) / (n / 2) for n in tile_zyx)
    nearest: Floats = np.minimum(np.minimum(z[:, None, None], y[:, None]), x).astype(np.float32)
    return nearest


def stitch(tiles: Floats, starts_zyx: Starts, shape_zyx: tuple[int, int, int]) -> Floats:
    """Return patches blended into a volume: the sum of weight · value over (the sum of weights + 1e-8).

    Args:
        tiles: float32 (z start, y start, x start, z, y, x).
        starts_zyx: Where the patches begin along each axis.
        shape_zyx: Of the volume.

    Returns:
        float32 (z, y, x); 0 where the weights are, such as on the volume's faces.
    """
    tile_zyx: tuple[int, int, int] = tiles.shape[3:]
    own = weight(tile_zyx)
    total, weights = np.zeros(shape_zyx, np.float32), np.zeros(shape_zyx, np.float32)
    for index in np.ndindex(tiles.shape[:3]):
        corner = (starts[place] for starts, place in zip(starts_zyx, index, strict=True))
        box = tuple(slice(start, start + size) for start, size in zip(corner, tile_zyx, strict=True))
        total[box] += own * tiles[index]
        weights[box] += own
    return total / (weights + _EPSILON)


def clean(mask: Mask) -> Mask:
    """Return a mask without components below 100 voxels and holes up to 50, opened and closed by a ball of radius 2.

    What lies outside the volume neither erodes nor dilates.
    """
    kept = _without_small(mask, SMALLEST_COMPONENT)
    filled = ~_without_small(~kept, LARGEST_HOLE + 1)
    ball = _ball(RADIUS)
    opened = binary_dilation(binary_erosion(filled, ball, border_value=1), ball)
    closed: Mask = binary_erosion(binary_dilation(opened, ball), ball, border_value=1)
    return closed


def _without_small(mask: Mask, smallest: int) -> Mask:
    kept: Mask = cc3d.dust(mask.view(np.uint8), threshold=smallest, connectivity=6) != 0
    return kept


def _ball(radius: int) -> Mask:
    z, y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1, -radius : radius + 1]
    inside: Mask = z**2 + y**2 + x**2 <= radius**2
    return inside
