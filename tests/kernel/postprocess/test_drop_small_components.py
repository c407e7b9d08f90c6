import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from surface_kernel.postprocess.drop_small_components import drop_small_components


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
    drop_small_components(found, dust_voxels, connectivity=26)
    assert found.dtype == np.uint8
    assert found.sum() == left
    assert found.max(initial=0) <= 1
    assert (found <= pieces()).all()


@settings(deadline=None, max_examples=200)
@given(
    arrays(np.uint8, st.tuples(st.integers(1, 8), st.just(5), st.integers(1, 6)), elements=st.integers(0, 1)),
    st.integers(0, 12),
    st.sampled_from([1, 60, 1000]),
    st.sampled_from([6, 26]),
    st.booleans(),
)
def test_dust_agrees_with_scipy_however_the_volume_is_cut_into_slabs(
    mask, dust_voxels, slab_voxels, connectivity, kept
):
    parts, _ = ndimage.label(mask, ndimage.generate_binary_structure(3, 1 if connectivity == 6 else 3))
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    whole = sizes >= dust_voxels
    if kept:
        inner = np.zeros_like(parts)
        inner[1:-1, 1:-1, 1:-1] = 1
        whole[np.unique(parts[(inner == 0) & (parts > 0)])] = True
    expected = mask * whole[parts]
    drop_small_components(mask, dust_voxels, connectivity, keep_touching_faces=kept, slab_voxels=slab_voxels)
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
        drop_small_components(found, length, 26, slab_voxels=slab_voxels)
        np.testing.assert_array_equal(found, mask)
        drop_small_components(found, length + 1, 26, slab_voxels=slab_voxels)
        assert not found.any()


def test_dust_is_dropped_from_a_memory_map(tmp_path):
    np.save(tmp_path / "mask.npy", pieces())
    mapped = np.load(tmp_path / "mask.npy", mmap_mode="r+")
    drop_small_components(mapped, 4, 26, slab_voxels=1)
    mapped.flush()
    assert np.load(tmp_path / "mask.npy").sum() == 4


@pytest.mark.parametrize("shape_zyx", [(1, 5, 5), (5, 1, 5), (5, 5, 1), (1, 1, 7), (3, 3, 3)])
def test_single_voxels_in_a_thin_volume_are_dust(shape_zyx):
    """cc3d 4.1.1 raises on these where it is told that the image is binary."""
    mask = np.zeros(shape_zyx, np.uint8)
    mask[::2, ::2, ::2] = 1
    drop_small_components(mask, 2, connectivity=26)
    assert not mask.any()


@pytest.mark.parametrize("value", [0, 1])
def test_a_uniform_mask_stays_or_goes_as_one_piece(value):
    mask = np.full((3, 3, 3), value, np.uint8)
    drop_small_components(mask, 27, connectivity=26)
    assert (mask == value).all()
    drop_small_components(mask, 28, connectivity=26)
    assert not mask.any()


def test_corners_join_26_neighbours_and_not_6():
    found = pieces()
    drop_small_components(found, 3, connectivity=6)
    assert found.sum() == 3  # the line alone
    with pytest.raises(ValueError, match="connectivity: expected 6 or 26, got 18"):
        drop_small_components(found, 3, connectivity=18)
