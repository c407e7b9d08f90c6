import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from surface_kernel.surface import above, drop_dust, logit, probability


def test_probability_at_known_points():
    logits = np.array([-1000, -np.log(3), 0, np.log(3), np.log(4), 1000], np.float32)
    found = probability(logits)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [0, 0.25, 0.5, 0.75, 0.8, 1], rtol=1e-6)
    assert probability(np.empty((0, 3, 3), np.float32)).shape == (0, 3, 3)


@settings(deadline=None)
@given(arrays(np.float32, 20, elements=st.floats(-200, 200, width=32)))
def test_probability_is_read_once(logits):
    found = probability(logits)
    assert ((found >= 0) & (found <= 1)).all()
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-logits.astype(np.float64))), atol=1e-6)
    np.testing.assert_allclose(found + probability(-logits), 1, atol=1e-6)


@pytest.mark.parametrize(("threshold", "expected"), [(0.5, 0), (0.75, np.log(3)), (0.2, -np.log(4))])
def test_logit_by_hand(threshold, expected):
    assert logit(threshold) == pytest.approx(expected)


@settings(deadline=None)
@given(arrays(np.float32, 20, elements=st.floats(-9, 9, width=32)), st.floats(0.01, 0.99))
def test_above_is_the_probability_above_the_threshold(logits, threshold):
    found = above(logits, threshold)
    assert found.dtype == np.uint8
    exact = 1 / (1 + np.exp(-logits.astype(np.float64)))
    clear = abs(exact - threshold) > 1e-6  # nearer than that float32 cannot tell
    np.testing.assert_array_equal(found[clear], exact[clear] > threshold)


def test_the_threshold_itself_is_not_above():
    logits = np.array([[[-1e-6, 0, 1e-6]]], np.float32)
    np.testing.assert_array_equal(above(logits, 0.5), [[[0, 0, 1]]])


def pieces():
    """Makes three pieces: 4 voxels that touch at corners only, a line of 3, and a single voxel."""
    mask = np.zeros((6, 8, 10), np.uint8)
    for step in range(4):
        mask[step, step, step] = 1
    mask[0, 7, 4:7] = 1
    mask[5, 0, 9] = 1
    return mask


@pytest.mark.parametrize(("dust_voxels", "left"), [(0, 8), (1, 8), (2, 7), (3, 7), (4, 4), (5, 0), (1000, 0)])
def test_pieces_smaller_than_dust_are_dropped(dust_voxels, left):
    found = pieces()
    drop_dust(found, dust_voxels)
    assert found.dtype == np.uint8
    assert found.sum() == left
    assert found.max(initial=0) <= 1
    assert (found <= pieces()).all()


@settings(deadline=None, max_examples=200)
@given(
    arrays(np.uint8, st.tuples(st.integers(1, 8), st.just(5), st.integers(1, 6)), elements=st.integers(0, 1)),
    st.integers(0, 12),
    st.sampled_from([1, 60, 1000]),
)
def test_dust_agrees_with_scipy_however_the_volume_is_cut_into_slabs(mask, dust_voxels, slab_voxels):
    parts, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    expected = mask * (sizes >= dust_voxels)[parts]
    drop_dust(mask, dust_voxels, slab_voxels)
    np.testing.assert_array_equal(mask, expected)


def test_a_piece_that_winds_through_many_slabs_is_one():
    """A snake: right through one plane, back through the next but one, joined at the ends by corners alone."""
    mask = np.zeros((9, 3, 12), np.uint8)
    mask[::2, 1, 1:-1] = 1
    mask[1::4, 1, -1] = mask[3::4, 1, 0] = 1
    mask[0, 0, 0] = 0
    length = int(mask.sum())
    for slab_voxels in (1, 36, 72, 1000):
        found = mask.copy()
        drop_dust(found, length, slab_voxels)
        np.testing.assert_array_equal(found, mask)
        drop_dust(found, length + 1, slab_voxels)
        assert not found.any()


def test_dust_is_dropped_from_a_memory_map(tmp_path):
    np.save(tmp_path / "mask.npy", pieces())
    mapped = np.load(tmp_path / "mask.npy", mmap_mode="r+")
    drop_dust(mapped, 4, 1)
    mapped.flush()
    assert np.load(tmp_path / "mask.npy").sum() == 4


@pytest.mark.parametrize("shape_zyx", [(1, 5, 5), (5, 1, 5), (5, 5, 1), (1, 1, 7), (3, 3, 3)])
def test_single_voxels_in_a_thin_volume_are_dust(shape_zyx):
    """cc3d 4.1.1 raises on these where it is told that the image is binary."""
    mask = np.zeros(shape_zyx, np.uint8)
    mask[::2, ::2, ::2] = 1
    drop_dust(mask, 2)
    assert not mask.any()


@pytest.mark.parametrize("value", [0, 1])
def test_a_uniform_mask_stays_or_goes_as_one_piece(value):
    mask = np.full((3, 3, 3), value, np.uint8)
    drop_dust(mask, 27)
    assert (mask == value).all()
    drop_dust(mask, 28)
    assert not mask.any()
