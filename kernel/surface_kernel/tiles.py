"""Where a network looks: boxes that cover a volume, and the windows that blend their answers. Integers in and out.

    size 10, tile 4, overlap 0.5     starts are spread evenly, the last tile ends on the last voxel
    0123456789
    ====
      ====
        ====
          ====

The boxes are a product of three lists of starts, and a window is a product of three 1-D windows. So the total weight
at a voxel is a product too, and it is known before any work: dividing every 1-D window by its axis' total makes the
weights at every voxel sum to 1, with no weight volume to keep and nothing to divide by in the end.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
import numpy.typing as npt

Shape = tuple[int, int, int]
WINDOW_FLOOR = 1e-2  # no voxel of a tile counts for less: corners keep 1e-6 of a weight of 1, far above fp32's noise


def starts(size: int, tile: int, overlap: float) -> tuple[int, ...]:
    """Give the first voxel of every tile along an axis, evenly spread, neighbours sharing at least `overlap` of a tile.

    size, tile: voxels, size ≥ tile ≥ 1. overlap: share of the tile, 0 ≤ overlap < 1. Raises ValueError.
    """
    if not 1 <= tile <= size or not 0 <= overlap < 1:
        raise ValueError(f"found size {size}, tile {tile}, overlap {overlap}; wanted 1 ≤ tile ≤ size, 0 ≤ overlap < 1")
    longest_step = max(1, tile - int(np.ceil(tile * overlap)))
    steps = -(-(size - tile) // longest_step)
    return tuple(round(step * (size - tile) / steps) for step in range(steps + 1)) if steps else (0,)


def window(tile: int) -> npt.NDArray[np.float64]:
    """Give the 1-D blending window of a tile: a Gaussian of sigma tile / 8 with peak 1, floored at WINDOW_FLOOR."""
    distance = np.arange(tile) - (tile - 1) / 2
    gaussian: npt.NDArray[np.float64] = np.exp(-0.5 * (distance / (tile / 8)) ** 2)
    return gaussian.clip(min=WINDOW_FLOOR)


def axis_weights(size: int, tile: int, axis_starts: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Give every tile's window along an axis, divided by the axis' total: shape (tiles, tile), summing to 1 at a voxel.

    Raises ValueError when a voxel of the axis lies under no tile: coverage is proved here, before any work.
    """
    plain = window(tile)
    total = np.zeros(size)
    for start in axis_starts:
        total[start : start + tile] += plain
    if not total.all():
        raise ValueError(f"found voxel {int(np.argmin(total))} of {size} under no tile, wanted every voxel covered")
    return np.stack([plain / total[start : start + tile] for start in axis_starts]).astype(np.float32)


@dataclass(frozen=True)
class Grid:
    """The tiles of one volume.

    A volume smaller than a tile is taken as padded with zeros at its far ends, up to the tile: `padded_zyx`.
    """

    shape_zyx: Shape
    tile_zyx: Shape
    overlap: float

    def __post_init__(self) -> None:
        if min(self.shape_zyx) < 1:
            raise ValueError(f"found a volume of shape {self.shape_zyx}, wanted at least one voxel an axis")

    @property
    def padded_zyx(self) -> Shape:
        """Give the volume's shape, at least a tile along every axis."""
        z, y, x = (max(size, tile) for size, tile in zip(self.shape_zyx, self.tile_zyx, strict=True))
        return z, y, x

    @cached_property
    def starts_zyx(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Give the starts along every axis of the padded volume."""
        z, y, x = (starts(size, tile, self.overlap) for size, tile in zip(self.padded_zyx, self.tile_zyx, strict=True))
        return z, y, x

    @cached_property
    def weights_zyx(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Give `axis_weights` of every axis."""
        z, y, x = (
            axis_weights(size, tile, axis)
            for size, tile, axis in zip(self.padded_zyx, self.tile_zyx, self.starts_zyx, strict=True)
        )
        return z, y, x

    @property
    def tiles(self) -> int:
        """Count the tiles."""
        z, y, x = self.starts_zyx
        return len(z) * len(y) * len(x)

    @property
    def redundancy(self) -> float:
        """How many voxels are computed for each voxel of the volume."""
        return self.tiles * float(np.prod(self.tile_zyx)) / float(np.prod(self.shape_zyx))

    def layer(self) -> list[tuple[int, int]]:
        """Give the (y, x) starts of the tiles of one z-layer, in the order in which they are computed and summed."""
        _, y, x = self.starts_zyx
        return list(product(y, x))

    def layers_alive(self) -> int:
        """How many z-layers lie over one another at the deepest place: those whose tiles must be kept at a time."""
        z = self.starts_zyx[0]
        return max(sum(below <= start < below + self.tile_zyx[0] for below in z) for start in z)
