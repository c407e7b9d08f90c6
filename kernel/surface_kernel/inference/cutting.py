"""Tiles out of a volume, batch after batch, in the order in which they are computed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from surface_kernel.compiled import compiled
from surface_kernel.inference.buffers import Buffers
from surface_kernel.inference.sharing import Share
from surface_kernel.inference.tiles import Grid, Index, Shape
from surface_kernel.networks.device import Device
from surface_kernel.volumes.intensity import Table
from surface_kernel.volumes.scanned import any_scanned
from surface_kernel.volumes.volume import forget_planes

Bytes = npt.NDArray[np.uint8]
_GREYS = np.arange(256, dtype=np.uint8)


@dataclass(frozen=True, kw_only=True)
class TileBatch:
    """Tiles that a network sees together."""

    tiles: list[Index]
    """The tiles, in the grid's order."""
    empty: list[Index]
    """Tiles without a scanned voxel that come before or among them, which are not run."""
    corners: list[Shape]
    """The first voxel of every tile."""
    inputs: list[Tensor]
    """One an intensity: (tile, z, y, x). A short batch is filled up."""

    def named(self, row: int) -> str:
        """Name a tile in a message."""
        return f"the tile at {self.corners[row]}" if row < len(self.corners) else "a tile that fills up a batch"


class TileCutter:
    """Cuts the tiles of one volume."""

    def __init__(
        self,
        volume: Bytes,
        *,
        grid: Grid,
        tables: Sequence[Table],
        batch: int,
        device: Device,
        buffers: Buffers,
        share: Share,
        scanned: Bytes | None = None,
    ) -> None:
        """Take what is cut and for whom.

        Args:
            volume: uint8 (z, y, x), of the grid's shape; a memory map is read from the first plane to the last.
            grid: the tiles.
            tables: what networks are fed for every grey value, one an intensity: float32 (256,).
            batch: tiles of a batch.
            device: on a GPU the grey values are sent, which are fewer bytes, and looked up there.
            buffers: where inputs come from.
            share: shares the copying out over threads.
            scanned: `volumes.scanned.scanned_bits` of the volume: tiles without any scanned voxel are empty. None:
                every tile is cut.
        """
        self._volume, self._grid, self._batch, self._scanned = volume, grid, batch, scanned
        self._buffers, self._share = buffers, share
        # A byte a voxel over the bus instead of four, and one upload serves every intensity.
        self._tables: Sequence[npt.NDArray[Any]] = [_GREYS] if device.is_gpu else tables
        self._dtype = torch.uint8 if device.is_gpu else torch.float32

    def batches(self) -> Iterator[TileBatch]:
        """Yield the tiles of the grid, batch after batch."""
        for tiles, empty in self._grouped():
            yield self.cut(tiles, empty=empty, batch=self._batch)

    def cut(self, tiles: list[Index], *, empty: list[Index], batch: int) -> TileBatch:
        """Return tiles in buffers of `batch` rows: a network's last bits depend on how many tiles it sees together."""
        corners = [self._grid.corner(index) for index in tiles]
        inputs: list[Tensor] = []
        for table in self._tables if tiles else ():
            inputs.append(self._buffers.take((batch, *self._grid.tile_zyx), self._dtype))
            self._fill(corners, table, inputs[-1].numpy())
            # Rows that fill up a short batch: whatever lay in the buffer could hold NaN, which costs time on a CPU.
            inputs[-1][len(tiles) :] = table[0].item()
        return TileBatch(tiles=tiles, empty=empty, corners=corners, inputs=inputs)

    def _fill(self, corners: Sequence[Shape], table: npt.NDArray[Any], out: npt.NDArray[Any]) -> None:
        """Look tiles up, their planes shared out over the threads."""
        depth = self._grid.tile_zyx[0]

        def work(first: int, last: int) -> None:
            while first < last:
                row, plane = divmod(first, depth)
                # Threads share planes, not tiles: a batch may hold fewer tiles than there are threads.
                end = min(depth, plane + last - first)
                z, y, x = corners[row]
                look_up(self._volume, z + plane, y, x, table, out[row, plane:end])
                first += end - plane

        self._share(work, len(corners) * depth)

    def _grouped(self) -> Iterator[tuple[list[Index], list[Index]]]:
        """Yield the tiles of every batch, and the empty ones that lie before or among them.

        A batch spans two layers at most: a third would need room that the first's planes still hold.
        """
        tiles: list[Index] = []
        empty: list[Index] = []
        for index in self._grid.indices():
            z, y, x = self._grid.corner(index)
            if tiles and (len(tiles) == self._batch or index[0] > tiles[0][0] + 1):
                yield tiles, empty
                tiles, empty = [], []
            if index[1:] == (0, 0):
                forget_planes(self._volume, z)
            (tiles if self._is_scanned((z, y, x)) else empty).append(index)
        yield tiles, empty

    def _is_scanned(self, corner: Shape) -> bool:
        z, y, x = corner
        return self._scanned is None or any_scanned(self._scanned, z, y, x, *self._grid.tile_zyx)


@compiled()
def look_up(volume: Bytes, z: int, y: int, x: int, table: npt.NDArray[Any], out: npt.NDArray[Any]) -> None:
    """Fill `out` (z, y, x) with `table[grey]` of the box that begins at (z, y, x); beyond the volume grey is 0.

    table: 256 values of out's dtype. A table of 0 … 255 copies the box.
    """
    depth, height, width = out.shape
    inside = max(0, min(width, volume.shape[2] - x))
    for dz in range(depth):
        for dy in range(height):
            target = out[dz, dy]
            if z + dz >= volume.shape[0] or y + dy >= volume.shape[1]:
                target[:] = table[0]
                continue
            source = volume[z + dz, y + dy, x : x + inside]
            for dx in range(inside):
                target[dx] = table[source[dx]]
            target[inside:] = table[0]
