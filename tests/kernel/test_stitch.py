import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surface_kernel.stitch import gather
from surface_kernel.tiles import Grid, window


def stitched(grid, tiles, z_start=0, z_end=None):
    """Gathers a slab with every layer at hand, layer i in slot i."""
    z, y, x = (np.asarray(axis, np.int64) for axis in grid.starts_zyx)
    depth = (grid.shape_zyx[0] if z_end is None else z_end) - z_start
    out = np.full((depth, *grid.shape_zyx[1:]), np.nan, np.float32)
    weights = grid.weights_zyx
    gather(tiles, np.arange(len(z)), z, weights[0], y, weights[1], x, weights[2], z_start, out)
    return out


def slowly_stitched(grid, tiles):
    """Adds every tile into a volume in float64, adds its window into another, and divides the one by the other."""
    values, weights = np.zeros(grid.padded_zyx), np.zeros(grid.padded_zyx)
    kernel = np.einsum("z,y,x->zyx", *map(window, grid.tile_zyx))
    for i, z in enumerate(grid.starts_zyx[0]):
        for j, y in enumerate(grid.starts_zyx[1]):
            for k, x in enumerate(grid.starts_zyx[2]):
                box = tuple(slice(start, start + tile) for start, tile in zip((z, y, x), grid.tile_zyx, strict=True))
                values[box] += tiles[i, j, k].astype(np.float64) * kernel
                weights[box] += kernel
    whole = values / weights
    return whole[tuple(slice(size) for size in grid.shape_zyx)]


def random_tiles(grid, seed=0):
    counts = tuple(len(axis) for axis in grid.starts_zyx)
    return np.random.default_rng(seed).normal(size=(*counts, *grid.tile_zyx)).astype(np.float32)


@settings(deadline=None, max_examples=60)
@given(st.tuples(*[st.integers(1, 14)] * 3), st.tuples(*[st.integers(1, 6)] * 3), st.sampled_from([0, 0.25, 0.5, 0.8]))
def test_gather_agrees_with_the_plain_sum(shape_zyx, tile_zyx, overlap):
    grid = Grid(shape_zyx, tile_zyx, overlap)
    tiles = random_tiles(grid)
    np.testing.assert_allclose(stitched(grid, tiles), slowly_stitched(grid, tiles), rtol=0, atol=1e-5)


def test_two_tiles_by_hand():
    # 3 voxels, two tiles of 2: the middle voxel is the mean of both, the outer ones are their own tile's
    tiles = np.array([[1, 2], [4, 8]], np.float32).reshape(1, 1, 2, 1, 1, 2)
    np.testing.assert_allclose(stitched(Grid((1, 1, 3), (1, 1, 2), 0), tiles), [[[1, 3, 8]]])


def test_a_slab_is_the_part_of_the_whole():
    grid = Grid((11, 6, 7), (4, 3, 5), 0.5)
    tiles = random_tiles(grid)
    whole = stitched(grid, tiles)
    np.testing.assert_array_equal(stitched(grid, tiles, 3, 9), whole[3:9], strict=True)


def test_a_layer_is_found_through_its_slot():
    grid = Grid((6, 3, 3), (3, 3, 3), 0)
    tiles = random_tiles(grid)
    z, y, x = (np.asarray(axis, np.int64) for axis in grid.starts_zyx)
    weights, out = grid.weights_zyx, np.empty((6, 3, 3), np.float32)
    gather(tiles[::-1].copy(), np.array([1, 0]), z, weights[0], y, weights[1], x, weights[2], 0, out)
    np.testing.assert_array_equal(out, stitched(grid, tiles))


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="one core")
def test_the_bytes_do_not_depend_on_the_number_of_threads():
    grid = Grid((17, 9, 13), (6, 5, 7), 0.75)
    tiles, found = random_tiles(grid), set()
    for threads in (1, 2, 2):
        numba.set_num_threads(threads)
        found.add(stitched(grid, tiles).tobytes())
    assert len(found) == 1
