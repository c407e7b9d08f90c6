"""Where the logits of tiles lie: the fence between arrays, which Python checks, and addresses, which it can't.

The kernels of `stitch` read tiles that lie in many separate arrays, through their addresses. An address is only as good
as the array behind it, so both are kept together here, and dtype, order and shape are checked here, once.
"""

import ctypes
import math
from collections.abc import Callable, Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

from surface_kernel.inference.tiles import Grid, Index, Shape

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


class TileTable:
    """The tiles of some layers of a grid, one slot a layer; a layer's slot serves another one later.

    addresses: int64 (slot, y tile, x tile), as `stitch.gather` reads them; 0 for a tile that was not run.
    """

    def __init__(self, grid: Grid, *, slots: int) -> None:
        _, rows, columns = (len(axis) for axis in grid.starts_zyx)
        self._tile_zyx, self._slots = grid.tile_zyx, slots
        self.addresses: Integers = np.zeros((slots, rows, columns), np.int64)
        self._held: list[list[tuple[Floats, Callable[[], object]]]] = [[] for _ in range(slots)]

    @classmethod
    def of(cls, grid: Grid, tiles: Floats) -> Self:
        """Return a table of all tiles of a grid, which lie in one array (z tile, y tile, x tile, z, y, x)."""
        table = cls(grid, slots=len(grid.starts_zyx[0]))
        for layer, logits in enumerate(tiles):
            indices = [(layer, *place) for place in np.ndindex(*logits.shape[:2])]
            table.put(indices, logits.reshape(-1, *logits.shape[2:]))
        return table

    def slot(self, layer: int) -> int:
        """Return where a layer of tiles lies."""
        return layer % self._slots

    def put(self, indices: Sequence[Index], logits: Floats, release: Callable[[], object] = lambda: None) -> None:
        """Take the logits of some tiles, and hold them until the slot of the last one is cleared.

        Args:
            indices: of the tiles, in the grid's order.
            logits: float32 (tile, z, y, x) in C order, a row for every tile; more rows are held and not used.
            release: called when nobody reads them any more.

        Raises:
            ValueError: for logits of another dtype, order or shape.
        """
        if logits.dtype != np.float32 or not logits.flags.c_contiguous:
            raise ValueError(f"logits: expected float32 in C order, got {logits.dtype} with strides {logits.strides}")
        if logits.shape[1:] != self._tile_zyx or len(logits) < len(indices):
            expected = (len(indices), *self._tile_zyx)
            raise ValueError(f"logits: expected the shape {expected}, got {logits.shape}")
        # A batch may span two layers; it lives as long as its later one.
        self._held[self.slot(indices[-1][0])].append((logits, release))
        step_bytes = logits.itemsize * math.prod(self._tile_zyx)
        for row, (layer, y, x) in enumerate(indices):
            self.addresses[self.slot(layer), y, x] = logits.ctypes.data + row * step_bytes

    def put_nothing(self, index: Index) -> None:
        """Note that a tile was not run."""
        layer, y, x = index
        self.addresses[self.slot(layer), y, x] = 0

    def clear(self, layer: int) -> None:
        """Let go of what the slot of a layer holds."""
        held = self._held[self.slot(layer)]
        for _, release in held:
            release()
        held.clear()

    def logits(self, index: Index) -> Floats | None:
        """Return the logits of a tile, float32 (z, y, x), that very memory; None where it was not run."""
        layer, y, x = index
        address = int(self.addresses[self.slot(layer), y, x])
        return _at(address, self._tile_zyx) if address else None

    @property
    def held_tiles(self) -> int:
        """Count the tiles whose logits are held."""
        return sum(len(logits) for slot in self._held for logits, _ in slot)


def _at(address: int, shape_zyx: Shape) -> Floats:
    logits: Floats = np.ctypeslib.as_array(ctypes.cast(address, ctypes.POINTER(ctypes.c_float)), shape_zyx)
    return logits
