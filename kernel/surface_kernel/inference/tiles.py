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

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product

import numpy as np
import numpy.typing as npt

Shape = tuple[int, int, int]
Index = tuple[int, int, int]  # a tile's place among the starts along every axis
_MOST_STEPS = 12  # tiles up to 384 voxels longer than the trained one, with steps of 32: enough to lose little by
WINDOW_FLOOR = 1e-2  # no voxel of a tile counts for less: corners keep 1e-6 of a weight of 1, far above fp32's noise


def starts(size: int, tile: int, shared: int) -> tuple[int, ...]:
    """Return the first voxel of every tile along an axis, evenly spread, neighbours sharing at least `shared` voxels.

    size, tile, shared: voxels, size ≥ tile ≥ 1, 0 ≤ shared. Tiles move on by one voxel at the least. Raises ValueError.
    """
    if not 1 <= tile <= size or shared < 0:
        raise ValueError(f"expected 1 <= tile <= size and shared >= 0, got tile {tile}, size {size}, shared {shared}")
    steps = -(-(size - tile) // max(1, tile - shared))
    return tuple(round(step * (size - tile) / steps) for step in range(steps + 1)) if steps else (0,)


def shared_voxels(tile: int, overlap: float) -> int:
    """Return the voxels of a tile that an overlap is, 0 ≤ overlap < 1, rounded up. Raises ValueError."""
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap: expected a share from 0 to below 1, got {overlap}")
    return int(np.ceil(tile * overlap))


def window(tile: int) -> npt.NDArray[np.float64]:
    """Return the 1-D blending window of a tile: a Gaussian of sigma tile / 8 with peak 1, floored at WINDOW_FLOOR."""
    distance = np.arange(tile) - (tile - 1) / 2
    gaussian: npt.NDArray[np.float64] = np.exp(-0.5 * (distance / (tile / 8)) ** 2)
    return gaussian.clip(min=WINDOW_FLOOR)


def axis_weights(size: int, tile: int, axis_starts: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Return every tile's window along an axis, divided by the axis' total: (tiles, tile), summing to 1 at a voxel.

    Raises ValueError when a voxel of the axis lies under no tile: coverage is proved here, before any work.
    """
    plain = window(tile)
    total = np.zeros(size)
    for start in axis_starts:
        total[start : start + tile] += plain
    if not total.all():
        raise ValueError(f"expected tiles over every voxel of an axis, got none over {int(np.argmin(total))} of {size}")
    return np.stack([plain / total[start : start + tile] for start in axis_starts]).astype(np.float32)


@dataclass(frozen=True)
class Grid:
    """The tiles of one volume.

    A volume smaller than a tile is taken as padded with zeros at its far ends, up to the tile: `padded_zyx`.
    overlap: the share that neighbours have in common, at least, of `trained_zyx` or else of the tile itself.
    """

    shape_zyx: Shape
    tile_zyx: Shape
    overlap: float
    trained_zyx: Shape | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if min(self.shape_zyx) < 1:
            raise ValueError(f"expected a volume with at least one voxel an axis, got the shape {self.shape_zyx}")

    @property
    def padded_zyx(self) -> Shape:
        """The volume's shape, at least a tile along every axis."""
        z, y, x = (max(size, tile) for size, tile in zip(self.shape_zyx, self.tile_zyx, strict=True))
        return z, y, x

    @cached_property
    def starts_zyx(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """The starts along every axis of the padded volume."""
        z, y, x = (
            starts(size, tile, shared_voxels(trained, self.overlap))
            for size, tile, trained in zip(
                self.padded_zyx, self.tile_zyx, self.trained_zyx or self.tile_zyx, strict=True
            )
        )
        return z, y, x

    @cached_property
    def weights_zyx(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """`axis_weights` of every axis."""
        z, y, x = (
            axis_weights(size, tile, axis)
            for size, tile, axis in zip(self.padded_zyx, self.tile_zyx, self.starts_zyx, strict=True)
        )
        return z, y, x

    @property
    def tiles(self) -> int:
        """How many tiles there are."""
        z, y, x = self.starts_zyx
        return len(z) * len(y) * len(x)

    @property
    def redundancy(self) -> float:
        """How many voxels are computed for each voxel of the volume."""
        return self.tiles * float(np.prod(self.tile_zyx)) / float(np.prod(self.shape_zyx))

    def indices(self) -> Iterator[tuple[int, int, int]]:
        """Yield the tiles' places among the starts, in the order in which they are computed and summed."""
        z, y, x = (range(len(axis)) for axis in self.starts_zyx)
        return product(z, y, x)

    def corner(self, index: tuple[int, int, int]) -> Shape:
        """Return the first voxel of the tile at a place."""
        z, y, x = (axis[place] for axis, place in zip(self.starts_zyx, index, strict=True))
        return z, y, x

    @cached_property
    def layers_alive(self) -> int:
        """How many z-layers lie over one another at the deepest place: those whose tiles must be kept at a time."""
        z = self.starts_zyx[0]
        return max(sum(below <= start < below + self.tile_zyx[0] for below in z) for start in z)

    @property
    def slots(self) -> int:
        """How many layers there are whose logits are kept: those alive, and one more that is filled meanwhile."""
        return min(self.layers_alive + 1, len(self.starts_zyx[0]))

    @property
    def kept_bytes(self) -> int:
        """What the logits of those layers take, as float32."""
        _, y, x = self.starts_zyx
        return 4 * self.slots * len(y) * len(x) * math.prod(self.tile_zyx)


def plan(
    shape_zyx: Shape, *, trained_zyx: Shape, overlap: float, step: int, most_voxels: int, most_kept_bytes: int
) -> Grid:
    """Return the tiles of least work for a volume: the fewest voxels to compute in all; of equals, the smallest tile.

    Args:
        shape_zyx: of the volume.
        trained_zyx: the tile that the network was trained on, and the least one.
        overlap: neighbours share at least the voxels that this is of the trained tile.
        step: other tiles are longer by this or a multiple, along some axes.
        most_voxels: of one tile, as the device's memory has it.
        most_kept_bytes: of `Grid.kept_bytes`. Where no tile is within both limits, the trained one is taken.

        size 320, trained tile 128, half overlap: 64 voxels shared
        128   0 64 128 192      4 × 128 = 512 voxels along the axis
        160   0 80 160          3 × 160 = 480
        192   0 128             2 × 192 = 384
        320   0                 1 × 320
    """
    z, y, x = (
        range(trained, trained + step * min(_MOST_STEPS, -(-max(0, size - trained) // step)) + 1, step)
        for size, trained in zip(shape_zyx, trained_zyx, strict=True)
    )
    candidates = [tile for tile in product(z, y, x) if math.prod(tile) <= most_voxels]
    grids = (Grid(shape_zyx, tile, overlap, trained_zyx=trained_zyx) for tile in candidates)
    fitting = [grid for grid in grids if grid.kept_bytes <= most_kept_bytes]
    least = Grid(shape_zyx, trained_zyx, overlap, trained_zyx=trained_zyx)
    return min(fitting, key=lambda grid: (grid.redundancy, math.prod(grid.tile_zyx)), default=least)
