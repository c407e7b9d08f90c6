"""The layers of tiles that are in flight: which logits have come in, which planes are ready, which room is free."""

import math
from collections.abc import Callable, Sequence
from threading import Lock

import numpy as np

from surface_kernel.inference.slab import Slab
from surface_kernel.inference.stitch import Floats
from surface_kernel.inference.tile_table import TileTable
from surface_kernel.inference.tiles import Grid, Index


class LayerStore:
    """Holds the logits of tiles until no further tile touches their planes.

    A slab reaches from a layer's first plane to the next one's: once its layer is in, no later tile lies over it. The
    logits of a layer stay until all of its planes are blended; then its slot serves another one. So memory does not
    grow with a volume's depth.

        layers of tiles      0: ======        slab 0: planes of layer 0 alone
                             1:    ======     slab 1: planes of 0 and 1; then layer 0 may go
                             2:       ======

    Args:
        grid: the tiles of the volume.
        on_slab: called with each slab that is ready, one after the other, under a lock.
        on_tiles: called with how many tiles have just come in.
    """

    def __init__(
        self, grid: Grid, *, on_slab: Callable[[Slab], object], on_tiles: Callable[[int], object] = lambda count: None
    ) -> None:
        layers, *across = (len(axis) for axis in grid.starts_zyx)
        self.table = TileTable(grid, slots=grid.slots)
        self._grid, self._on_slab, self._on_tiles = grid, on_slab, on_tiles
        self._missing = np.full(layers, math.prod(across))  # tiles of each layer that are not in yet
        self._lock = Lock()
        self._ready, self._blended = 0, 0  # slabs handed out, and those that came back blended

    def has_room(self, index: Index) -> bool:
        """Whether the slot of a tile's layer is free: whether all planes of the layer that had it are blended."""
        layer, slots = index[0], self._grid.slots
        return layer < slots or self._blended >= layer - slots + self._grid.layers_alive

    def begin(self, index: Index) -> None:
        """Clear the slot of a layer, with its first tile."""
        if index[1:] == (0, 0):
            self.table.clear(index[0])

    def put(self, tiles: Sequence[Index], logits: Floats, release: Callable[[], object]) -> None:
        """Take the memory in which the logits of some tiles are or will be; see `TileTable.put`."""
        self.table.put(tiles, logits, release)

    def arrived(self, tiles: Sequence[Index]) -> None:
        """Count tiles whose logits are in, and hand out the slabs that waited for no other. Any thread may call it."""
        with self._lock:
            if tiles:
                self._on_tiles(len(tiles))
            for index in tiles:
                self._missing[index[0]] -= 1
            while self._ready < len(self._missing) and self._missing[self._ready] == 0:
                self._on_slab(self._slab(self._ready))
                self._ready += 1

    def skipped(self, index: Index) -> None:
        """Count a tile that is not run."""
        self.table.put_nothing(index)
        self.arrived([index])

    def blended(self) -> None:
        """Note that one more slab is blended."""
        self._blended += 1

    def clear(self) -> None:
        """Let go of all logits; nobody may write into them any more."""
        for layer in range(self._grid.slots):
            self.table.clear(layer)

    def _slab(self, layer: int) -> Slab:
        starts_z = self._grid.starts_zyx[0]
        z_end = starts_z[layer + 1] if layer + 1 < len(starts_z) else self._grid.shape_zyx[0]
        bottom = max(0, layer + 1 - self._grid.layers_alive)
        return Slab(
            grid=self._grid,
            table=self.table,
            layers=range(bottom, layer + 1),
            z_start=starts_z[layer],
            z_end=z_end,
        )
