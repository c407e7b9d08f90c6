"""Slabs: planes of a volume whose tiles have all come in, ready to be blended."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from surface_kernel.inference.cutting import look_up
from surface_kernel.inference.sharing import Share, alone
from surface_kernel.inference.stitch import Axes, Bytes, Doubles, Flags, Floats, Integers, Output, finite, gather
from surface_kernel.inference.tile_table import TileTable
from surface_kernel.inference.tiles import Grid, Index
from surface_kernel.volumes.scanned import any_scanned, clear_unscanned, fill_unscanned, scanned_bits

_NO_FLOATS, _NO_BYTES = np.empty((0, 0, 0), np.float32), np.empty((0, 0, 0), np.uint8)
_NO_DOUBLES = np.empty((0, 0))


class NotFiniteError(RuntimeError):
    """Planes over which some logit is not finite: they were left as they were."""


@dataclass(kw_only=True)
class Slab:
    """Planes z_start to z_end of a volume. The table's tiles over them stay where they are as long as it is used."""

    grid: Grid
    table: TileTable
    layers: range
    """The layers of tiles that lie over these planes."""
    z_start: int
    z_end: int
    done: Flags = field(init=False)
    """Which planes are blended."""
    _moments: Doubles = field(init=False)

    def __post_init__(self) -> None:
        # Kept over calls: what was blended before logits had to be repeated is not added a second time.
        self.done = np.zeros(self.z_end - self.z_start, np.bool_)
        self._moments = np.zeros((self.z_end - self.z_start, 3))

    @classmethod
    def whole(cls, grid: Grid, table: TileTable) -> "Slab":
        """Return all planes of a volume, whose tiles are all at hand."""
        layers = range(len(grid.starts_zyx[0]))
        return cls(grid=grid, table=table, layers=layers, z_start=0, z_end=grid.shape_zyx[0])

    @property
    def shape_zyx(self) -> tuple[int, int, int]:
        """The slab's shape."""
        return self.z_end - self.z_start, self.grid.shape_zyx[1], self.grid.shape_zyx[2]

    def blend(
        self,
        *,
        sums: Floats | None = None,
        add: bool = False,
        mask: Bytes | None = None,
        limit: float = 0.0,
        with_moments: bool = False,
        passes: int = 1,
        share: Share = alone,
    ) -> Doubles:
        """Blend the planes; return the moments of the probabilities: count, sum, sum of squares.

        Args:
            sums: float32 of the slab's shape, overwritten with the sums of logits; None: not wanted.
            add: add to `sums` instead.
            mask: uint8 of the slab's shape, 1 where the sum is above `limit`; None: not wanted.
            limit: a sum of logits.
            with_moments: whether moments are wanted.
            passes: over how many networks and views the logits are summed, those in `sums` included.
            share: shares the planes out over threads.

        Raises:
            NotFiniteError: where a logit is not finite; call it again with the same arguments when that is mended.
        """
        output = Output(
            z_start=self.z_start,
            sums=_NO_FLOATS if sums is None else sums,
            add=add,
            mask=_NO_BYTES if mask is None else mask,
            limit=np.float32(limit),
            moments=self._moments if with_moments else _NO_DOUBLES,
            passes=passes,
            done=self.done,
        )
        axes = self._axes()

        def work(first: int, last: int) -> None:
            gather(self.table.addresses, axes, output, first, last)

        share(work, len(self.done))
        if not self.done.all():
            raise NotFiniteError(f"logits that are not finite from plane {self.z_start + self.done.argmin()} on")
        whole: Doubles = output.moments.sum(axis=0)
        return whole

    def not_finite(self) -> list[Index]:
        """List the tiles over these planes with logits that are not finite."""
        _, rows, columns = (len(axis) for axis in self.grid.starts_zyx)
        indices = [(layer, y, x) for layer in self.layers for y in range(rows) for x in range(columns)]
        return [index for index in indices if (logits := self.table.logits(index)) is not None and not finite(logits)]

    def _axes(self) -> Axes:
        starts_z, starts_y, starts_x = (np.asarray(axis, np.int64) for axis in self.grid.starts_zyx)
        weights_z, weights_y, weights_x = self.grid.weights_zyx
        over = slice(self.layers.start, self.layers.stop)
        slots: Integers = np.array([self.table.slot(layer) for layer in self.layers], np.int64)
        return Axes(
            slots=slots,
            starts_z=starts_z[over],
            weights_z=weights_z[over],
            starts_y=starts_y,
            weights_y=weights_y,
            starts_x=starts_x,
            weights_x=weights_x,
        )


Finish = Callable[[Slab], object]


def compile_kernels() -> None:
    """Compile every kernel, or load it from numba's cache: some seconds, once a machine."""
    grid = Grid((2, 2, 2), (2, 2, 2), 0.0)
    volume, tiles = np.ones((2, 2, 2), np.uint8), np.ones((1, 1, 1, 2, 2, 2), np.float32)
    bits, field = scanned_bits(volume), np.ones((2, 2, 2), np.float32)
    any_scanned(bits, 0, 0, 0, 2, 2, 2)
    clear_unscanned(volume, bits)
    fill_unscanned(field, bits)
    for dtype in (np.float32, np.uint8):
        look_up(volume, 0, 0, 0, np.arange(256).astype(dtype), np.empty((2, 2, 2), dtype))
    finite(tiles[0, 0, 0])
    Slab.whole(grid, TileTable.of(grid, tiles)).blend(mask=np.empty((2, 2, 2), np.uint8))
