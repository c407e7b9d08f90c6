"""Blending tiles into a volume, in numba.

Gather form: every voxel of the result is written once, summed from the tiles over it in one fixed order, so the bytes
do not depend on how many threads share the work. Each tile value is read once and each result is written once, which
is the least traffic there can be; a row of the result stays in the first-level cache while it is summed.
"""

import numba
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


@numba.njit(parallel=True, nogil=True, cache=True)
def gather(
    tiles: Floats,
    slots: Integers,
    layer_starts: Integers,
    layer_weights: Floats,
    starts_y: Integers,
    weights_y: Floats,
    starts_x: Integers,
    weights_x: Floats,
    z_start: int,
    out: Floats,
) -> None:
    """Sum the weighted tiles of some z-layers into a slab of the padded volume that begins at voxel `z_start`.

    tiles: float32 (slot, y tile, x tile, z, y, x), what the network gave, one slot a layer.
    slots, layer_starts: int64 (layers,), where each layer lies in `tiles`, and its first voxel along z.
    layer_weights, weights_y, weights_x: float32 (tiles along the axis, voxels of a tile), from `tiles.axis_weights`.
    out: float32 (z, y, x), overwritten. Voxels beyond its y and x ends (the padding) are left out.
    """
    depth, height, width = out.shape
    tile_z, tile_y, tile_x = tiles.shape[3:]
    padded_width = starts_x[-1] + tile_x
    for dz in numba.prange(depth):
        z = z_start + dz
        row = np.empty(padded_width, np.float32)
        for y in range(height):
            row[:] = np.float32(0)
            for layer in range(slots.size):
                local_z = z - layer_starts[layer]
                if local_z < 0 or local_z >= tile_z:
                    continue
                for j in range(starts_y.size):
                    local_y = y - starts_y[j]
                    if local_y < 0 or local_y >= tile_y:
                        continue
                    weight_zy = layer_weights[layer, local_z] * weights_y[j, local_y]
                    for k in range(starts_x.size):
                        source = tiles[slots[layer], j, k, local_z, local_y]
                        weight_x = weights_x[k]
                        target = row[starts_x[k] : starts_x[k] + tile_x]
                        for x in range(tile_x):
                            target[x] += source[x] * (weight_zy * weight_x[x])
            out[dz, y] = row[:width]
