from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surface_kernel.inference.sharing import shared_by
from surface_kernel.inference.slab import Slab
from surface_kernel.inference.stitch import finite
from surface_kernel.inference.tile_table import TileTable
from surface_kernel.inference.tiles import Grid, window
from surface_kernel.volumes.scanned import UNSCANNED_LOGIT


def blend(grid, tiles, z_start=0, z_end=None, live=None):
    """Describes a slab with every layer at hand."""
    table = TileTable.of(grid, tiles)
    for index in np.argwhere(~live) if live is not None else ():
        table.put_nothing(tuple(index))
    z_end = grid.shape_zyx[0] if z_end is None else z_end
    return Slab(grid=grid, table=table, layers=range(len(tiles)), z_start=z_start, z_end=z_end)


def stitched(grid, tiles, z_start=0, z_end=None, live=None, **named):
    """Blends a slab into a fresh array of NaN."""
    described = blend(grid, tiles, z_start, z_end, live)
    out = np.full(described.shape_zyx, np.nan, np.float32)
    described.blend(sums=out, **named)
    return out


def slowly_stitched(grid, tiles, live=None):
    """Adds every tile into a volume in float64, adds its window into another, and divides the one by the other."""
    values, weights = np.zeros(grid.padded_zyx), np.zeros(grid.padded_zyx)
    kernel = np.einsum("z,y,x->zyx", *map(window, grid.tile_zyx))
    for i, z in enumerate(grid.starts_zyx[0]):
        for j, y in enumerate(grid.starts_zyx[1]):
            for k, x in enumerate(grid.starts_zyx[2]):
                if live is not None and not live[i, j, k]:
                    continue
                box = tuple(slice(start, start + tile) for start, tile in zip((z, y, x), grid.tile_zyx, strict=True))
                values[box] += tiles[i, j, k].astype(np.float64) * kernel
                weights[box] += kernel
    whole = np.where(weights > 0, values / np.maximum(weights, 1e-300), UNSCANNED_LOGIT)
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
    table, out = TileTable(grid, slots=3), np.empty((3, 3, 3), np.float32)
    table.put([(1, 0, 0)], tiles[1, 0])
    slab = Slab(grid=grid, table=table, layers=range(1, 2), z_start=3, z_end=6)
    for layer in (1, 4):  # which have the same slot
        assert table.slot(layer) == 1
    slab.blend(sums=out)
    np.testing.assert_array_equal(out, stitched(grid, tiles)[3:])


def test_the_bytes_do_not_depend_on_who_shares_the_work():
    grid = Grid((17, 9, 13), (6, 5, 7), 0.75)
    tiles, found = random_tiles(grid), set()
    with ThreadPoolExecutor(3) as pool:
        for threads in (1, 2, 3):
            found.add(stitched(grid, tiles, share=shared_by(pool, threads)).tobytes())
    assert found == {stitched(grid, tiles).tobytes()}


@settings(deadline=None, max_examples=60)
@given(
    st.tuples(*[st.integers(1, 14)] * 3),
    st.tuples(*[st.integers(1, 6)] * 3),
    st.sampled_from([0, 0.5, 0.8]),
    st.integers(0, 9),
    st.sampled_from([0.0, 0.3, 0.9]),
)
def test_tiles_that_were_not_run_weigh_nothing(shape_zyx, tile_zyx, overlap, seed, share):
    grid = Grid(shape_zyx, tile_zyx, overlap)
    tiles = random_tiles(grid, seed)
    live = np.random.default_rng(seed).random(tiles.shape[:3]) < share
    tiles[~live] = np.nan  # whatever lies there is not looked at
    found = stitched(grid, tiles, live=live)
    np.testing.assert_allclose(found, slowly_stitched(grid, tiles, live), rtol=0, atol=1e-4)


def test_a_mask_and_sums_of_stages_by_hand():
    # one tile of the volume's size: what is blended is the tile itself
    first = np.array([-1, 2, 0.5, 1], np.float32).reshape(1, 1, 1, 1, 1, 4)
    second = np.array([4, 1, -3, 0.5], np.float32).reshape(1, 1, 1, 1, 1, 4)
    grid, sums, mask = Grid((1, 1, 4), (1, 1, 4), 0), np.empty((1, 1, 4), np.float32), np.empty((1, 1, 4), np.uint8)
    blend(grid, first).blend(sums=sums, mask=mask, limit=1)
    assert mask.tolist() == [[[0, 1, 0, 0]]]  # 1 is not above 1
    blend(grid, second).blend(sums=sums, add=True, mask=mask, limit=1.5)
    assert sums.tolist() == [[[3, 3, -2.5, 1.5]]]
    assert mask.tolist() == [[[1, 1, 0, 0]]]


def test_a_voxel_that_nobody_saw_is_no_surface_in_any_stage():
    grid, tiles = Grid((1, 1, 4), (1, 1, 2), 0), np.full((1, 1, 2, 1, 1, 2), 3, np.float32)
    live, mask = np.array([[[True, False]]]), np.empty((1, 1, 4), np.uint8)
    blend(grid, tiles, live=live).blend(mask=mask, limit=8 * np.log(1e-8), passes=8)
    assert mask.tolist() == [[[1, 1, 0, 0]]]


def test_a_voxel_that_nobody_saw_keeps_its_logit_and_counts_for_no_moment():
    grid, tiles = Grid((1, 1, 4), (1, 1, 2), 0), np.full((1, 1, 2, 1, 1, 2), 3, np.float32)
    live, sums = np.array([[[True, False]]]), np.empty((1, 1, 4), np.float32)
    blend(grid, tiles, live=live).blend(sums=sums)
    moments = blend(grid, tiles, live=live).blend(sums=sums, add=True, with_moments=True, passes=2)
    assert sums.tolist() == [[[6, 6, 2 * UNSCANNED_LOGIT, 2 * UNSCANNED_LOGIT]]]
    probability = 1 / (1 + np.exp(-3.0))
    np.testing.assert_allclose(moments, [2, 2 * probability, 2 * probability**2], rtol=1e-7)


@pytest.mark.parametrize("shape_zyx", [(2, 3, 4), (9, 500, 500)])  # all rows count, and every eighth
def test_moments_are_those_of_the_mean_logit(shape_zyx):
    grid = Grid(shape_zyx, shape_zyx, 0)
    tiles = random_tiles(grid)
    count, total, squares = blend(grid, tiles).blend(sums=np.empty(shape_zyx, np.float32), with_moments=True, passes=2)
    rows = tiles.reshape(-1, shape_zyx[2])[:: 1 if shape_zyx == (2, 3, 4) else 8]
    probability = 1 / (1 + np.exp(-rows.astype(np.float64) / 2))
    assert count == rows.size
    np.testing.assert_allclose([total, squares], [probability.sum(), (probability**2).sum()], rtol=1e-6)


@pytest.mark.parametrize("where", [(0, 0, 0), (1, 2, 1), (1, 2, 3)])
@pytest.mark.parametrize(
    ("value", "fine"),
    [(0.0, True), (-3.4e38, True), (1e-45, True), (np.nan, False), (-np.nan, False), (np.inf, False), (-np.inf, False)],
)
def test_what_is_not_finite_is_told(where, value, fine):
    logits = np.full((2, 3, 4), 3e38, np.float32)
    logits[where] = value
    assert finite(logits) is fine
