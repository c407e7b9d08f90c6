import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import gaussian_filter

from surface_kernel.inference.tiles import Grid
from surface_study import reading, reference


def tiles_of(volume: np.ndarray, grid: Grid) -> np.ndarray:
    """Cut a volume into a grid's tiles, as an identity network would return them."""
    made = np.empty((*(len(axis) for axis in grid.starts_zyx), *grid.tile_zyx), np.float32)
    for index in np.ndindex(made.shape[:3]):
        corner = (axis[place] for axis, place in zip(grid.starts_zyx, index, strict=True))
        made[index] = volume[tuple(slice(a, a + n) for a, n in zip(corner, grid.tile_zyx, strict=True))]
    return made


def smooth(side: int, seed: int = 0) -> np.ndarray:
    """Make smooth random logits: Gaussian of sigma 3, standard deviation 3, mean −2."""
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal((side,) * 3), 3)
    return (noise / noise.std() * 3 - 2).astype(np.float32)


def test_our_starts_at_a_quarter_of_overlap_are_the_references() -> None:
    assert reading.reference_grid(320, 128).starts_zyx == ((0, 96, 192),) * 3
    assert reading.reference_grid(320, 128).tiles == 27


def test_weights_by_hand() -> None:
    # half of 4 is 2; distances to the edges along an axis of 4: 0 1 1 0, of 5: 0 1 2 1 0 over 2.5
    made = reference.weight((4, 4, 5))
    assert made.shape == (4, 4, 5)
    np.testing.assert_allclose(made[1, 1], [0, 0.4, 0.5, 0.4, 0], rtol=1e-6)
    np.testing.assert_array_equal(made[0], 0)
    assert made.dtype == np.float32


@given(arrays(np.float32, (2, 3), elements=st.floats(-50, 50, width=32)))
def test_no_logit_is_below_a_half_once_two_sigmoids_have_passed(logits: np.ndarray) -> None:
    made = reference.double_sigmoid(logits)
    assert made.min() >= 0.5
    assert made.max() <= 1 / (1 + np.exp(-1)) + 1e-6


def test_two_sigmoids_by_hand() -> None:
    found = reference.double_sigmoid(np.array([-100, 0, 100], np.float32))
    np.testing.assert_allclose(found, [0.5, 0.62246, 0.731059], rtol=1e-5)


def test_a_constant_is_stitched_to_itself_but_for_the_faces_that_no_weight_reaches() -> None:
    grid = reading.reference_grid(20, 8)
    blended = reference.stitch(np.full((3, 3, 3, 8, 8, 8), 0.7, np.float32), grid.starts_zyx, grid.shape_zyx)
    np.testing.assert_allclose(blended[1:-1, 1:-1, 1:-1], 0.7, rtol=1e-5)
    assert np.count_nonzero(blended == 0) == 20**3 - 18**3


def test_two_patches_are_blended_by_their_weights() -> None:
    # along x, patches of 8 at 0 and 4: voxel 5 is 2 from the end of the first and 1 from the beginning of the second
    tiles = np.stack([np.full((8, 8, 8), 1, np.float32), np.full((8, 8, 8), 4, np.float32)])[None, None]
    blended = reference.stitch(tiles, ((0,), (0,), (0, 4)), (8, 8, 12))
    np.testing.assert_allclose(blended[4, 4, 5], (2 * 1 + 1 * 4) / 3, rtol=1e-5)


def ball(shape: tuple[int, int, int], middle: tuple[int, int, int]) -> np.ndarray:
    """Make a ball of radius 2: 33 voxels, the least that opening leaves alone."""
    return sum((axis - place) ** 2 for axis, place in zip(np.indices(shape), middle, strict=True)) <= 4


def test_a_ball_is_too_small_to_stay_and_a_cube_that_is_not_becomes_one() -> None:
    alone = ball((16, 16, 16), (8, 8, 8))
    assert alone.sum() == 33
    assert not reference.clean(alone).any()
    cube = np.zeros((16, 16, 16), bool)
    cube[6:11, 6:11, 6:11] = True  # 125 voxels; the one ball that fits into it is left
    np.testing.assert_array_equal(reference.clean(cube), alone)


def test_balls_that_touch_at_corners_are_dropped_one_by_one() -> None:
    row = np.zeros((20, 20, 20), bool)
    for place in (4, 7, 10, 13):
        row |= ball(row.shape, (place, place, place))
    assert row.sum() == 4 * 33
    assert not reference.clean(row).any()


@pytest.mark.parametrize(("tail", "fills"), [(17, True), (18, False)])
def test_a_hole_of_50_voxels_is_filled_and_one_of_51_keeps_what_a_ball_fits_into(tail: int, fills: bool) -> None:
    hole = ball((20, 20, 40), (10, 10, 10))
    hole[10, 10, 13 : 13 + tail] = True
    assert hole.sum() == 33 + tail
    cleaned = reference.clean(~hole)
    np.testing.assert_array_equal(~cleaned, np.zeros_like(hole) if fills else ball(hole.shape, (10, 10, 10)))


def test_the_faces_grow_back_because_the_outside_does_not_erode() -> None:
    mask = np.zeros((24, 24, 24), bool)
    mask[1:-1, 1:-1, 1:-1] = True
    cleaned = reference.clean(mask)
    assert cleaned[0, 12, 12]
    assert not cleaned[0, 0, 12]  # the edges do not


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(-12, 12))
def test_whatever_the_network_says_all_but_the_faces_are_foreground(seed: int, mean: float) -> None:
    grid = reading.reference_grid(20, 8)
    logits = np.random.default_rng(seed).normal(mean, 2, (20, 20, 20)).clip(-12, None).astype(np.float32)
    found = reading.read(tiles_of(logits, grid), grid)
    assert found.twice == 18**3 / 20**3
    assert found.ours == pytest.approx(float((logits > 0).mean()))


def test_one_sigmoid_keeps_what_the_network_says() -> None:
    grid = reading.reference_grid(48, 16)
    logits = smooth(48)
    found = reading.read(tiles_of(logits, grid), grid)
    inner = np.zeros(logits.shape, bool)
    inner[1:-1, 1:-1, 1:-1] = True
    assert found.ours == pytest.approx(float((logits > 0).mean()), abs=1e-6)
    assert found.once == pytest.approx(float((inner & (logits > 0)).mean()), abs=1e-6)
    assert found.twice == pytest.approx(46**3 / 48**3)
    assert found.twice_cleaned > found.twice


def test_ours_is_the_kernels_own_stitching() -> None:
    """The identity gives the volume back, whatever the windows."""
    grid = reading.reference_grid(20, 8)
    logits = np.random.default_rng(1).normal(size=(20, 20, 20)).astype(np.float32)
    np.testing.assert_allclose(reading.ours(tiles_of(logits, grid), grid), logits, atol=1e-5)


@pytest.mark.slow
def test_the_references_share_comes_out_of_smooth_random_logits() -> None:
    """No network at all: read once 24.58 % and 22.3 %, read twice 98.13 % and 99.88 %."""
    grid = reading.reference_grid(320, 128)
    logits = smooth(320)
    found = reading.read(tiles_of(logits, grid), grid)
    assert found.ours == pytest.approx(float((logits > 0).mean()), abs=1e-5)
    assert found.once == pytest.approx(0.2458, abs=1e-4)
    assert found.once_cleaned == pytest.approx(0.2232, abs=1e-3)
    assert found.twice == pytest.approx(0.9813, abs=1e-4)
    assert found.twice_cleaned == pytest.approx(0.99881, abs=1e-4)
