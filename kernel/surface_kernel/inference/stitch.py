"""Cutting tiles out of a volume and blending what a network made of them, in numba.

Gather form: every voxel of the result is written once, summed from the tiles over it in one fixed order, so the bytes
do not depend on how many threads share the work. Each tile value is read once and each result is written once, which
is the least traffic there can be; a row of the result stays in the first-level cache while it is summed, and what
follows it (adding earlier stages, thresholding, the moments of the probabilities) is done to it there.

The kernels release Python's lock and start no threads: whoever calls them shares the planes out (`Blend.run`). numba's
own threads would reset torch's (numba issue 9387), and its default layer must not be entered by two threads at once.
"""

import ctypes
import math
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from numba import carray, types  # type: ignore[attr-defined]
from numba.extending import intrinsic

from surface_kernel.inference.tiles import Grid

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]
Values = npt.NDArray[Any]
Work = Callable[[int, int], None]
Share = Callable[[Work, int], None]

UNSEEN = np.float32(-100)  # the logit of a voxel under no tile that was run: probability 4e-44, so mask 0
MOMENTS_OF_ALL = 1 << 21  # voxels up to which every row counts for the moments; of larger slabs one row in eight does


@numba.njit(nogil=True, cache=True)
def scanned(volume: Bytes, z: int, y: int, x: int, tile_z: int, tile_y: int, tile_x: int) -> bool:
    """Say whether the box of a tile holds anything but zeros. It may reach beyond the volume's far ends."""
    for dz in range(z, min(z + tile_z, volume.shape[0])):
        for dy in range(y, min(y + tile_y, volume.shape[1])):
            row = volume[dz, dy]
            for dx in range(x, min(x + tile_x, volume.shape[2])):
                if row[dx]:
                    return True
    return False


@numba.njit(nogil=True, cache=True)
def look_up(volume: Bytes, z: int, y: int, x: int, table: Values, out: Values) -> None:
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


@numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def _odd(values: Floats) -> np.float32:
    odd = np.float32(0)
    for place in range(values.size):  # in any order, so that it is done in vectors
        odd += values[place] * np.float32(0)  # 0, or NaN for infinities and NaN
    return np.float32(odd)


def finite(logits: Floats) -> bool:
    """Say whether all of a tile's logits are finite."""
    return bool(_odd(logits.reshape(-1)) == 0)


def logits_at(address: int, tile_zyx: tuple[int, int, int]) -> Floats:
    """Give the logits of the tile at an address: float32 (z, y, x), that very memory."""
    logits: Floats = np.ctypeslib.as_array(ctypes.cast(int(address), ctypes.POINTER(ctypes.c_float)), tile_zyx)
    return logits


@intrinsic
def _pointer(typing_context: Any, address: Any) -> Any:
    """Make an int64 an address of float32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.float32)(types.int64), generate  # type: ignore[no-untyped-call]


@numba.njit(nogil=True)
def _row(address: int, length: int) -> Floats:
    """Give a row of float32 that begins at an address."""
    return carray(_pointer(address), (length,))  # type: ignore


@numba.njit(nogil=True, fastmath={"contract"})
def _sum_row(
    tiles: Integers, found: Integers, weights: Floats, starts_x: Integers, weights_x: Floats, row: Floats
) -> None:
    """Sum the rows of tiles that lie over a row of the volume; all of them were run.

    tiles: int64 (rows of tiles, x tile), addresses. found: int64 (rows of tiles,), bytes to where this row is in them.
    The usual numbers of rows are written out: each value is then loaded once, and multiplied and added in a register.
    """
    row[:] = np.float32(0)
    tile_x = weights_x.shape[1]
    for k in range(starts_x.size):
        target, weight_x = row[starts_x[k] : starts_x[k] + tile_x], weights_x[k]
        a, w = _row(tiles[0, k] + found[0], tile_x), weights
        if found.size == 1:
            for x in range(tile_x):
                target[x] += a[x] * w[0] * weight_x[x]
        elif found.size == 2:
            b = _row(tiles[1, k] + found[1], tile_x)
            for x in range(tile_x):
                target[x] += (a[x] * w[0] + b[x] * w[1]) * weight_x[x]
        elif found.size == 4:
            b, c = _row(tiles[1, k] + found[1], tile_x), _row(tiles[2, k] + found[2], tile_x)
            d = _row(tiles[3, k] + found[3], tile_x)
            for x in range(tile_x):
                target[x] += (a[x] * w[0] + b[x] * w[1] + c[x] * w[2] + d[x] * w[3]) * weight_x[x]
        else:
            for i in range(found.size):
                a = _row(tiles[i, k] + found[i], tile_x)
                for x in range(tile_x):
                    target[x] += a[x] * w[i] * weight_x[x]


@numba.njit(nogil=True, fastmath={"contract"})
def _sum_row_with_gaps(
    tiles: Integers,
    found: Integers,
    weights: Floats,
    starts_x: Integers,
    weights_x: Floats,
    row: Floats,
    unseen: np.float32,
) -> None:
    """Do the same where some tiles were not run (their address is 0); `unseen` where none was."""
    row[:] = np.float32(0)
    total = np.zeros_like(row)
    tile_x = weights_x.shape[1]
    for k in range(starts_x.size):
        target, weight_x = row[starts_x[k] : starts_x[k] + tile_x], weights_x[k]
        above = total[starts_x[k] : starts_x[k] + tile_x]
        for i in range(found.size):
            if tiles[i, k]:
                a = _row(tiles[i, k] + found[i], tile_x)
                for x in range(tile_x):
                    target[x] += a[x] * weights[i] * weight_x[x]
                    above[x] += weights[i] * weight_x[x]
    for x in range(row.size):
        row[x] = row[x] / total[x] if total[x] > 0 else unseen


@numba.njit(nogil=True, cache=True, fastmath={"contract"})
def gather(
    tiles: Integers,
    tile_zyx: tuple[int, int, int],
    slots: Integers,
    layer_starts: Integers,
    weights_z: Floats,
    starts_y: Integers,
    weights_y: Floats,
    starts_x: Integers,
    weights_x: Floats,
    z_start: int,
    first: int,
    last: int,
    sums: Floats,
    add: bool,
    mask: Bytes,
    limit: np.float32,
    moments: Doubles,
    passes: int,
    done: Flags,
) -> None:
    """Blend planes `first` to `last` of a slab that begins at voxel `z_start` of the volume.

    tiles: int64 (slot, y tile, x tile), where in memory a tile's logits lie, float32 (z, y, x) in C order; one slot a
    layer of tiles. 0 for a tile that was not run: the others' weights are scaled up to 1.
    slots, layer_starts: int64 (layers,), where each layer lies in `tiles`, and its first voxel along z.
    weights_z, weights_y, weights_x: float32 (tiles along the axis, voxels of a tile), from `tiles.axis_weights`.
    sums: float32 (planes, y, x), overwritten, or added to with `add`; of size 0 where it is not wanted, and so is
    mask: uint8 (planes, y, x), 1 where the sum is above `limit`.
    moments: float64 (planes, 3), filled with count, sum and sum of squares of 1 / (1 + exp(−sum / passes)) over the
    rows that count; of size 0 where they are not wanted. Voxels of the padding are left out of everything.
    done: bool (planes,). Planes that are done are left alone, and so is all of a plane over which a logit is not
    finite: it stays undone.
    """
    height, width = (sums.shape[1], sums.shape[2]) if sums.size else (mask.shape[1], mask.shape[2])
    tile_z, tile_y, tile_x = tile_zyx
    rows = np.empty((slots.size * starts_y.size, starts_x.size), np.int64)
    shifts, weights = np.empty(len(rows), np.int64), np.empty(len(rows), np.float32)
    row, whole = np.empty(starts_x[-1] + tile_x, np.float32), np.empty((height, width), np.float32)
    planes = sums.shape[0] if sums.size else mask.shape[0]
    every = 1 if planes * height * width <= MOMENTS_OF_ALL else 8
    for plane in range(first, last):
        odd = np.float32(0)
        for y in range(0 if not done[plane] else height, height):
            found, gaps = 0, False
            for layer in range(slots.size):
                local_z = z_start + plane - layer_starts[layer]
                if local_z < 0 or local_z >= tile_z:
                    continue
                for j in range(starts_y.size):
                    local_y = y - starts_y[j]
                    if local_y < 0 or local_y >= tile_y:
                        continue
                    shifts[found] = 4 * (local_z * tile_y + local_y) * tile_x
                    weights[found] = weights_z[layer, local_z] * weights_y[j, local_y]
                    for k in range(starts_x.size):
                        rows[found, k] = tiles[slots[layer], j, k]
                        gaps = gaps or rows[found, k] == 0
                    found += 1
            if gaps:
                unseen = UNSEEN * np.float32(passes)
                _sum_row_with_gaps(rows, shifts[:found], weights, starts_x, weights_x, row, unseen)
            else:
                _sum_row(rows, shifts[:found], weights, starts_x, weights_x, row)
            whole[y] = row[:width]
            odd += _odd(row[:width])
        if done[plane] or odd != 0:
            continue
        for y in range(height):
            values = whole[y]
            if add:
                for x in range(width):
                    values[x] += sums[plane, y, x]
            if sums.size:
                sums[plane, y] = values
            if mask.size:
                bits = mask[plane, y]
                for x in range(width):
                    bits[x] = values[x] > limit
            if moments.size and (plane * height + y) % every == 0:
                for x in range(width):
                    probability = 1 / (1 + math.exp(-values[x] / passes))
                    moments[plane, 1] += probability
                    moments[plane, 2] += probability * probability
                moments[plane, 0] += width
        done[plane] = True


NO_FLOATS, NO_BYTES, _NO_DOUBLES = np.empty((0, 0, 0), np.float32), np.empty((0, 0, 0), np.uint8), np.empty((0, 0))


class NotFiniteError(RuntimeError):
    """Planes over which some logit is not finite: they were left as they were."""


@dataclass
class Blend:
    """Planes z_start to z_end of a volume, whose tiles have all come in, ready to be blended.

    tiles: as `gather` takes them; what they point at must stay where it is as long as this is used. slots: of the
    layers that lie over these planes, from layer `bottom` on. done: which planes are blended.
    """

    grid: Grid
    tiles: Integers
    bottom: int
    slots: Integers
    z_start: int
    z_end: int
    done: Flags = field(init=False)
    _moments: Doubles = field(init=False)

    def __post_init__(self) -> None:
        self.done = np.zeros(self.z_end - self.z_start, np.bool_)
        self._moments = np.zeros((self.z_end - self.z_start, 3))

    @property
    def shape_zyx(self) -> tuple[int, int, int]:
        """Give the slab's shape."""
        return self.z_end - self.z_start, self.grid.shape_zyx[1], self.grid.shape_zyx[2]

    def run(
        self,
        sums: Floats = NO_FLOATS,
        add: bool = False,
        mask: Bytes = NO_BYTES,
        limit: float = 0.0,
        with_moments: bool = False,
        passes: int = 1,
        share: Share = lambda work, planes: work(0, planes),
    ) -> Doubles:
        """Blend into `sums` and `mask` as `gather` says; give the moments: count, sum, sum of squares.

        passes: over how many the logits are summed, earlier ones included. share: runs work(first, last) so that all
        planes are covered, by several threads where there are some. Raises NotFiniteError where a logit is not finite:
        run it again with the same arguments when that is mended.
        """
        axes = [np.asarray(axis, np.int64) for axis in self.grid.starts_zyx]
        weights_z, weights_y, weights_x = self.grid.weights_zyx
        layers = slice(self.bottom, self.bottom + len(self.slots))
        moments = self._moments if with_moments else _NO_DOUBLES
        given = (self.tiles, self.grid.tile_zyx, self.slots, axes[0][layers], weights_z[layers])
        across = (axes[1], weights_y, axes[2], weights_x, self.z_start)

        def work(first: int, last: int) -> None:
            gather(*given, *across, first, last, sums, add, mask, np.float32(limit), moments, passes, self.done)

        share(work, len(self.done))
        if not self.done.all():
            raise NotFiniteError(f"found logits that are not finite from plane {self.z_start + self.done.argmin()} on")
        whole: Doubles = moments.sum(axis=0)
        return whole


def addresses_of(tiles: Floats) -> Integers:
    """Give where the tiles of a C-contiguous array (…, z, y, x) lie: int64 (…)."""
    if tiles.dtype != np.float32 or not tiles.flags.c_contiguous:
        raise ValueError(f"found {tiles.dtype} with strides {tiles.strides}, wanted float32 in C order")
    numbers = np.arange(tiles[..., 0, 0, 0].size, dtype=np.int64).reshape(tiles.shape[:-3])
    return tiles.ctypes.data + numbers * (4 * math.prod(tiles.shape[-3:]))


def shared_by(pool: Executor, threads: int) -> Share:
    """Give a `share` for `Blend.run` that cuts the planes into one part a thread of the pool."""

    def share(work: Work, planes: int) -> None:
        cuts = [planes * part // threads for part in range(threads + 1)]
        for done in [pool.submit(work, first, last) for first, last in pairwise(cuts)]:
            done.result()

    return share


def compile_kernels() -> None:
    """Compile every kernel, or load it from numba's cache: some seconds, once a machine."""
    grid = Grid((2, 2, 2), (2, 2, 2), 0.0)
    volume, tile = np.ones((2, 2, 2), np.uint8), np.ones((1, 1, 1, 2, 2, 2), np.float32)
    scanned(volume, 0, 0, 0, 2, 2, 2)
    for dtype in (np.float32, np.uint8):
        look_up(volume, 0, 0, 0, np.arange(256).astype(dtype), np.empty((2, 2, 2), dtype))
    finite(tile[0, 0, 0])
    addresses = addresses_of(tile)
    Blend(grid, addresses, 0, np.zeros(1, np.int64), 0, 2).run(mask=np.empty((2, 2, 2), np.uint8))
