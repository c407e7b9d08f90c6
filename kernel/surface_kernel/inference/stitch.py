"""Blending what a network made of tiles, in numba.

Gather form: every voxel of the result is written once, summed from the tiles over it in one fixed order, so the bytes
do not depend on how many threads share the work. Each tile value is read once and each result is written once, which
is the least traffic there can be; a row of the result stays in the first-level cache while it is summed, and what
follows it (adding earlier stages, thresholding, the moments of the probabilities) is done to it there.

The kernels release Python's lock and start no threads: whoever calls them shares the planes out (`sharing`).
"""

import math
from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt
from numba import carray, types  # type: ignore[attr-defined]
from numba.extending import intrinsic

from surface_kernel.compiled import compiled
from surface_kernel.volumes.scanned import UNSCANNED_LOGIT

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]

MOMENTS_OF_ALL = 1 << 21  # voxels up to which every row counts for the moments; of larger slabs one row in eight does


class Axes(NamedTuple):
    """Where the tiles over a slab lie, and their windows."""

    slots: Integers
    """int64 (layers,): the slot of each layer of tiles in the table."""
    starts_z: Integers
    """int64 (layers,): the first voxel of each layer."""
    weights_z: Floats
    """float32 (layers, voxels of a tile along z), from `tiles.axis_weights`."""
    starts_y: Integers
    weights_y: Floats
    starts_x: Integers
    weights_x: Floats


class Output(NamedTuple):
    """What is made of a slab. Arrays of size 0 are not wanted."""

    z_start: int
    """The slab's first voxel along z."""
    sums: Floats
    """float32 (planes, y, x): overwritten, or added to with `add`."""
    add: bool
    mask: Bytes
    """uint8 (planes, y, x): 1 where the sum is above `limit`."""
    limit: np.float32
    moments: Doubles
    """float64 (planes, 3): count, sum and sum of squares of 1 / (1 + exp(−sum / passes)) over the rows that count;
    voxels under no tile that was run are left out."""
    passes: int
    """Over how many networks and views the logits are summed."""
    done: Flags
    """bool (planes,): planes that are done are left alone."""


@compiled(fastmath={"reassoc", "contract"})
def _odd(values: Floats) -> np.float32:
    odd = np.float32(0)
    for place in range(values.size):  # in any order, so that it is done in vectors
        odd += values[place] * np.float32(0)  # 0, or NaN for infinities and NaN
    return np.float32(odd)


def finite(logits: Floats) -> bool:
    """Whether all of a tile's logits are finite."""
    return bool(_odd(logits.reshape(-1)) == 0)


@intrinsic
def _pointer(typing_context: Any, address: Any) -> Any:
    """Make an int64 an address of float32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.float32)(types.int64), generate  # type: ignore[no-untyped-call]


@numba.njit(nogil=True)
def _row(address: int, length: int) -> Floats:
    """Return a row of float32 that begins at an address."""
    return carray(_pointer(address), (length,))  # type: ignore


@numba.njit(nogil=True, fastmath={"contract"})
def _sum_row(
    tiles: Integers, shifts: Integers, weights: Floats, starts_x: Integers, weights_x: Floats, row: Floats
) -> None:
    """Sum the rows of tiles that lie over a row of the volume; all of them were run.

    tiles: int64 (rows of tiles, x tile), addresses. shifts: int64 (rows of tiles,), bytes to where this row is in them.
    The usual numbers of rows are written out: each value is then loaded once, and multiplied and added in a register.
    """
    row[:] = np.float32(0)
    tile_x = weights_x.shape[1]
    for k in range(starts_x.size):
        target, weight_x = row[starts_x[k] : starts_x[k] + tile_x], weights_x[k]
        a, w = _row(tiles[0, k] + shifts[0], tile_x), weights
        if shifts.size == 1:
            for x in range(tile_x):
                target[x] += a[x] * w[0] * weight_x[x]
        elif shifts.size == 2:
            b = _row(tiles[1, k] + shifts[1], tile_x)
            for x in range(tile_x):
                target[x] += (a[x] * w[0] + b[x] * w[1]) * weight_x[x]
        elif shifts.size == 4:
            b, c = _row(tiles[1, k] + shifts[1], tile_x), _row(tiles[2, k] + shifts[2], tile_x)
            d = _row(tiles[3, k] + shifts[3], tile_x)
            for x in range(tile_x):
                target[x] += (a[x] * w[0] + b[x] * w[1] + c[x] * w[2] + d[x] * w[3]) * weight_x[x]
        else:
            for i in range(shifts.size):
                a = _row(tiles[i, k] + shifts[i], tile_x)
                for x in range(tile_x):
                    target[x] += a[x] * w[i] * weight_x[x]


@numba.njit(nogil=True, fastmath={"contract"})
def _sum_row_with_gaps(
    tiles: Integers,
    shifts: Integers,
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
        for i in range(shifts.size):
            if tiles[i, k]:
                a = _row(tiles[i, k] + shifts[i], tile_x)
                for x in range(tile_x):
                    target[x] += a[x] * weights[i] * weight_x[x]
                    above[x] += weights[i] * weight_x[x]
    for x in range(row.size):
        row[x] = row[x] / total[x] if total[x] > 0 else unseen


@numba.njit(nogil=True)
def _add_row(earlier: Floats, row: Floats, gaps: bool, unseen: np.float32) -> None:
    """Add what earlier stages made to a row. Voxels that no stage saw stay as they are: they have no sum."""
    if gaps:
        for x in range(row.size):
            if row[x] != unseen:
                row[x] += earlier[x]
    else:
        for x in range(row.size):
            row[x] += earlier[x]


@numba.njit(nogil=True)
def _add_moments(row: Floats, passes: int, unseen: np.float32, moments: Doubles) -> None:
    """Add a row's count, sum and sum of squares of the probabilities to (3,) moments."""
    for x in range(row.size):
        if row[x] != unseen:
            probability = 1 / (1 + math.exp(-row[x] / passes))
            moments[0] += 1
            moments[1] += probability
            moments[2] += probability * probability


@compiled(fastmath={"contract"})
def gather(tiles: Integers, axes: Axes, output: Output, first: int, last: int) -> None:
    """Blend planes `first` to `last` of a slab. Voxels of the padding are left out of everything.

    All of a plane over which a logit is not finite is left alone: it stays undone.

    Args:
        tiles: int64 (slot, y tile, x tile), `TileTable.addresses`: float32 (z, y, x) in C order lies there. 0 for a
            tile that was not run: the others' weights are scaled up to 1.
        axes: the tiles over the slab.
        output: what is made of it.
        first: plane of the slab.
        last: plane of the slab, not included.
    """
    slots, layer_starts, weights_z = axes.slots, axes.starts_z, axes.weights_z
    starts_y, weights_y, starts_x, weights_x = axes.starts_y, axes.weights_y, axes.starts_x, axes.weights_x
    tile_z, tile_y, tile_x = weights_z.shape[1], weights_y.shape[1], weights_x.shape[1]
    sums, mask, moments, done = output.sums, output.mask, output.moments, output.done
    z_start, add, limit, passes = output.z_start, output.add, output.limit, output.passes
    height, width = (sums.shape[1], sums.shape[2]) if sums.size else (mask.shape[1], mask.shape[2])
    rows = np.empty((slots.size * starts_y.size, starts_x.size), np.int64)
    shifts, weights = np.empty(len(rows), np.int64), np.empty(len(rows), np.float32)
    row, whole = np.empty(starts_x[-1] + tile_x, np.float32), np.empty((height, width), np.float32)
    gapped, unseen = np.zeros(height, np.bool_), UNSCANNED_LOGIT * np.float32(passes)
    planes = sums.shape[0] if sums.size else mask.shape[0]
    every = 1 if planes * height * width <= MOMENTS_OF_ALL else 8
    for plane in range(first, last):
        odd = np.float32(0)
        for y in range(0 if not done[plane] else height, height):
            over, gaps = 0, False
            for layer in range(slots.size):
                local_z = z_start + plane - layer_starts[layer]
                if local_z < 0 or local_z >= tile_z:
                    continue
                for j in range(starts_y.size):
                    local_y = y - starts_y[j]
                    if local_y < 0 or local_y >= tile_y:
                        continue
                    shifts[over] = 4 * (local_z * tile_y + local_y) * tile_x
                    weights[over] = weights_z[layer, local_z] * weights_y[j, local_y]
                    for k in range(starts_x.size):
                        rows[over, k] = tiles[slots[layer], j, k]
                        gaps = gaps or rows[over, k] == 0
                    over += 1
            gapped[y] = gaps
            if gaps:  # its voxels under no tile that was run were not scanned
                _sum_row_with_gaps(rows, shifts[:over], weights, starts_x, weights_x, row, unseen)
            else:
                _sum_row(rows, shifts[:over], weights, starts_x, weights_x, row)
            whole[y] = row[:width]
            odd += _odd(row[:width])
        if done[plane] or odd != 0:
            continue
        for y in range(height):
            values = whole[y]
            if add:
                _add_row(sums[plane, y], values, gapped[y], unseen)
            if sums.size:
                sums[plane, y] = values
            if mask.size:
                bits = mask[plane, y]
                for x in range(width):
                    bits[x] = values[x] > limit
            if moments.size and (plane * height + y) % every == 0:
                _add_moments(values, passes, unseen, moments[plane])
        done[plane] = True
