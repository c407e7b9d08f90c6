from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from surface_kernel.inference.tiles import WINDOW_FLOOR, Grid, axis_weights, plan, shared_voxels, starts, window

overlaps = st.sampled_from([0.0, 0.1, 0.25, 1 / 3, 0.5, 0.75, 0.9]) | st.floats(0, 0.9)


@st.composite
def axes(draw):
    tile = draw(st.integers(1, 40))
    return draw(st.integers(tile, 4 * tile + 10)), tile, draw(overlaps)


@pytest.mark.parametrize(
    ("size", "tile", "overlap", "expected"),
    [
        (10, 4, 0.5, (0, 2, 4, 6)),  # the drawing in the module
        (1, 1, 0.0, (0,)),
        (5, 5, 0.5, (0,)),
        (6, 5, 0.5, (0, 1)),
        (10, 4, 0.0, (0, 3, 6)),  # three tiles of 4 are 2 voxels more than 10: one shared at each seam
        (10, 3, 0.0, (0, 2, 5, 7)),
        (7, 4, 0.3, (0, 2, 3)),  # 0.3 of 4 is 1.2 voxels, so 2 are shared: steps of 2 at most, 3 voxels to go
        (4, 1, 0.9, (0, 1, 2, 3)),  # a tile of one voxel cannot share any
        (320, 128, 0.5, (0, 64, 128, 192)),
        (320, 160, 0.5, (0, 80, 160)),
        (320, 192, 0.25, (0, 128)),
        (256, 128, 0.5, (0, 64, 128)),
        (384, 128, 0.5, (0, 64, 128, 192, 256)),
    ],
)
def test_starts_by_hand(size, tile, overlap, expected):
    assert starts(size, tile, shared_voxels(tile, overlap)) == expected


@settings(deadline=None)
@given(axes())
def test_tiles_cover_an_axis_evenly_and_share_what_was_asked(axis):
    size, tile, overlap = axis
    found = starts(size, tile, shared_voxels(tile, overlap))
    assert found[0] == 0
    assert found[-1] + tile == size
    steps = np.diff(found)
    if len(found) > 1:
        assert steps.min() >= 1
        assert steps.max() - steps.min() <= 1
        assert tile - steps.max() >= min(tile * overlap, tile - 1)


@settings(deadline=None)
@given(axes())
def test_there_are_no_more_tiles_than_the_overlap_needs(axis):
    size, tile, overlap = axis
    found = starts(size, tile, shared_voxels(tile, overlap))
    assume(len(found) > 1)
    fewer = (size - tile) / (len(found) - 2) if len(found) > 2 else np.inf
    assert fewer > tile - np.ceil(tile * overlap)  # with one tile less, some neighbours would share too little


@pytest.mark.parametrize(("size", "tile", "shared"), [(3, 4, 2), (4, 0, 0), (4, -1, 0), (4, 2, -1)])
def test_what_has_no_starts_is_refused(size, tile, shared):
    with pytest.raises(ValueError, match=f"expected 1 <= tile <= size and shared >= 0, got tile {tile}"):
        starts(size, tile, shared)


@pytest.mark.parametrize("overlap", [1.0, -0.1, np.nan])
def test_what_is_no_share_of_a_tile_is_refused(overlap):
    with pytest.raises(ValueError, match=f"overlap: expected a share from 0 to below 1, got {overlap}"):
        shared_voxels(4, overlap)


def test_window_by_hand():
    # tile 8: sigma 1, distances 0.5, 1.5, 2.5, 3.5; exp(-3.5² / 2) = 0.0022 is under the floor
    half = [np.exp(-0.125), np.exp(-1.125), np.exp(-3.125), 0.01]
    np.testing.assert_allclose(window(8), [*half[::-1], *half])
    np.testing.assert_allclose(window(1), [1.0])
    np.testing.assert_allclose(window(2), [np.exp(-2), np.exp(-2)])


@settings(deadline=None)
@given(st.integers(1, 300))
def test_a_window_is_symmetric_and_never_below_its_floor(tile):
    found = window(tile)
    np.testing.assert_array_equal(found, found[::-1])
    assert found.min() >= WINDOW_FLOOR == 1e-2
    assert found.max() <= 1
    assert found.argmax() in (tile // 2, (tile - 1) // 2)


def test_axis_weights_by_hand():
    # size 3, two tiles of 2: the middle voxel lies under both, with the same weight
    np.testing.assert_allclose(axis_weights(3, 2, (0, 1)), [[1, 0.5], [0.5, 1]])


@settings(deadline=None)
@given(axes())
def test_axis_weights_sum_to_one_at_every_voxel(axis):
    size, tile, overlap = axis
    found = starts(size, tile, shared_voxels(tile, overlap))
    weights = axis_weights(size, tile, found)
    assert weights.shape == (len(found), tile)
    assert weights.dtype == np.float32
    total = np.zeros(size)
    for start, row in zip(found, weights, strict=True):
        total[start : start + tile] += row
    np.testing.assert_allclose(total, 1, atol=1e-6)


@pytest.mark.parametrize(("where", "voxel"), [((0, 4), 2), ((1, 3, 4), 0), ((0, 2), 4)])
def test_a_voxel_under_no_tile_is_found_before_any_work(where, voxel):
    with pytest.raises(ValueError, match=f"got none over {voxel} of 6"):
        axis_weights(6, 2, where)


@settings(deadline=None)
@given(st.tuples(*[st.integers(1, 12)] * 3), st.tuples(*[st.integers(1, 5)] * 3), overlaps)
def test_the_total_weight_is_the_product_of_the_axes_totals(shape_zyx, tile_zyx, overlap):
    grid = Grid(shape_zyx, tile_zyx, overlap)
    plain, divided = np.zeros(grid.padded_zyx), np.zeros(grid.padded_zyx)
    totals = [np.zeros(size) for size in grid.padded_zyx]
    for total, tile, axis in zip(totals, tile_zyx, grid.starts_zyx, strict=True):
        for start in axis:
            total[start : start + tile] += window(tile)
    boxes = 0
    for i, z in enumerate(grid.starts_zyx[0]):
        for j, k in np.ndindex(*(len(axis) for axis in grid.starts_zyx[1:])):
            y, x = grid.starts_zyx[1][j], grid.starts_zyx[2][k]
            box = tuple(slice(start, start + tile) for start, tile in zip((z, y, x), tile_zyx, strict=True))
            plain[box] += np.einsum("z,y,x->zyx", *map(window, tile_zyx))
            rows = grid.weights_zyx[0][i], grid.weights_zyx[1][j], grid.weights_zyx[2][k]
            divided[box] += np.einsum("z,y,x->zyx", *rows)
            boxes += 1
    np.testing.assert_allclose(plain, np.einsum("z,y,x->zyx", *totals))
    np.testing.assert_allclose(divided, 1, atol=1e-5)
    assert boxes == grid.tiles


@pytest.mark.parametrize(
    ("size", "tile", "overlap", "tiles", "redundancy"),
    [(320, 128, 0.5, 64, 4.096), (320, 160, 0.5, 27, 3.375), (320, 192, 0.25, 8, 1.728), (128, 128, 0.5, 1, 1.0)],
)
def test_redundancy_by_hand(size, tile, overlap, tiles, redundancy):
    grid = Grid((size,) * 3, (tile,) * 3, overlap)
    assert grid.tiles == tiles
    assert grid.redundancy == pytest.approx(redundancy)


def test_a_volume_smaller_than_a_tile_is_padded_to_one():
    grid = Grid((1, 40, 16), (32, 32, 32), 0.5)
    assert grid.padded_zyx == (32, 40, 32)
    assert grid.starts_zyx == ((0,), (0, 8), (0,))
    assert [grid.corner(index) for index in grid.indices()] == [(0, 0, 0), (0, 8, 0)]
    assert grid.redundancy == pytest.approx(2 * 32**3 / (40 * 16))


def test_tiles_are_listed_layer_by_layer_and_row_by_row():
    grid = Grid((5, 6, 7), (4, 4, 4), 0.5)
    rows = [(0, 0), (0, 2), (0, 3), (2, 0), (2, 2), (2, 3)]
    assert [grid.corner(index) for index in grid.indices()] == [(z, y, x) for z in (0, 1) for y, x in rows]


@settings(deadline=None)
@given(axes())
def test_layers_alive_is_the_most_layers_over_one_voxel(axis):
    size, tile, overlap = axis
    grid = Grid((size, 1, 1), (tile, 1, 1), overlap)
    over = [sum(start <= z < start + tile for start in grid.starts_zyx[0]) for z in range(size)]
    assert grid.layers_alive == max(over)


@pytest.mark.parametrize("shape_zyx", [(0, 4, 4), (4, 0, 4), (4, 4, 0)])
def test_an_empty_volume_has_no_grid(shape_zyx):
    with pytest.raises(ValueError, match="expected a volume with at least one voxel an axis"):
        Grid(shape_zyx, (4, 4, 4), 0.5)


PLENTY = 10**12


def planned(shape_zyx, *, most_voxels, most_kept_bytes, trained_zyx=(32, 32, 32), overlap=0.5, step=32):
    limits = {"most_voxels": most_voxels, "most_kept_bytes": most_kept_bytes}
    return plan(shape_zyx, trained_zyx=trained_zyx, overlap=overlap, step=step, **limits)


@pytest.mark.parametrize(
    ("size", "most_side", "tile_zyx", "computed"),
    [  # trained on 128³ at half overlap: 64 voxels are shared, whatever the tile. `computed`: voxels along each axis
        (320, 128, (128, 128, 128), (512, 512, 512)),
        (320, 160, (128, 160, 192), (512, 480, 384)),  # less than three times 480, with a smaller tile
        (320, 192, (192, 192, 192), (384, 384, 384)),
        (320, 319, (192, 320, 320), (384, 320, 320)),
        (320, 320, (320, 320, 320), (320, 320, 320)),
        (256, 255, (160, 256, 256), (320, 256, 256)),
        (300, 400, (320, 320, 320), (320, 320, 320)),  # one tile, padded
        (100, 400, (128, 128, 128), (128, 128, 128)),
    ],
)
def test_the_plan_of_least_work_by_hand(size, most_side, tile_zyx, computed):
    grid = planned((size,) * 3, trained_zyx=(128,) * 3, most_voxels=most_side**3, most_kept_bytes=PLENTY)
    assert grid.tile_zyx == tile_zyx
    assert tuple(len(axis) * tile for axis, tile in zip(grid.starts_zyx, tile_zyx, strict=True)) == computed


@settings(deadline=None, max_examples=50)
@given(
    st.tuples(*[st.integers(1, 40)] * 3),
    st.tuples(*[st.integers(1, 3)] * 3),
    st.sampled_from([0.0, 0.25, 0.5]),
    st.integers(1, 4000),
    st.integers(1, 100_000),
)
def test_no_allowed_plan_does_less_work(shape_zyx, steps, overlap, most_voxels, most_bytes):
    """Against a slow search over all tiles up to the volume's size, with the limits asked of each."""
    trained = tuple(4 * count for count in steps)
    found = plan(
        shape_zyx, trained_zyx=trained, overlap=overlap, step=4, most_voxels=most_voxels, most_kept_bytes=most_bytes
    )
    sides = [
        [least + 4 * more for more in range(12) if not more or least + 4 * (more - 1) < size]
        for least, size in zip(trained, shape_zyx, strict=True)
    ]
    every = [Grid(shape_zyx, tile, overlap, trained_zyx=trained) for tile in product(*sides)]
    allowed = [grid for grid in every if np.prod(grid.tile_zyx) <= most_voxels and grid.kept_bytes <= most_bytes]
    if not allowed:
        assert found.tile_zyx == trained
        return
    assert found.tile_zyx in [grid.tile_zyx for grid in allowed]
    assert found.redundancy == min(grid.redundancy for grid in allowed)
    for axis in range(3):
        steps_taken = np.diff(found.starts_zyx[axis])
        assert (
            found.tile_zyx[axis] - steps_taken >= min(shared_voxels(trained[axis], overlap), trained[axis] - 1)
        ).all()


def test_a_plan_keeps_within_the_memory_for_logits():
    wide = planned((64, 320, 320), most_voxels=PLENTY, most_kept_bytes=PLENTY)
    assert wide.tile_zyx == (64, 320, 320)
    assert wide.kept_bytes == 4 * 64 * 320 * 320
    narrow = planned((64, 320, 320), most_voxels=96**3, most_kept_bytes=PLENTY)
    assert planned((64, 320, 320), most_voxels=96**3, most_kept_bytes=narrow.kept_bytes).kept_bytes <= narrow.kept_bytes
    assert planned((64, 320, 320), most_voxels=PLENTY, most_kept_bytes=1).tile_zyx == (32, 32, 32)
