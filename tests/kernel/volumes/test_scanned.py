import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from surface_kernel.volumes import scanned
from surface_kernel.volumes.scanned import (
    REACH_VOXELS,
    UNSCANNED_LOGIT,
    any_scanned,
    bits_shape,
    clear_unscanned,
    fill_unscanned,
    scanned_bits,
    unpacked,
)


def by_definition(volume):
    """Zeros, and all that is outside, opened by the box; what is left is scanned."""
    zeros = np.pad(volume == 0, 8, constant_values=True)
    opened = ndimage.binary_opening(zeros, np.ones((5, 5, 5), np.bool_))
    # binary_opening takes what is beyond the padding for ones of no kind; 8 voxels are more than it looks.
    return ~opened[8:-8, 8:-8, 8:-8]


def flags(volume):
    return unpacked(scanned_bits(volume), volume.shape[2])


shapes = st.tuples(*[st.integers(1, 14)] * 3)


@st.composite
def volumes(draw):
    """Volumes with boxes of zeros in all sizes, and a few single zeros and voxels."""
    shape = draw(shapes)
    volume = np.full(shape, draw(st.sampled_from([0, 9])), np.uint8)
    for value in draw(st.lists(st.sampled_from([0, 0, 7]), max_size=8)):
        first = [draw(st.integers(-3, size)) for size in shape]
        sizes = [draw(st.integers(1, 9)) for _ in shape]
        volume[tuple(slice(max(0, a), max(0, a + n)) for a, n in zip(first, sizes, strict=True))] = value
    return volume


@settings(deadline=None, max_examples=200)
@given(volumes())
def test_unscanned_is_what_lies_in_a_box_of_zeros(volume):
    np.testing.assert_array_equal(flags(volume), by_definition(volume))


@settings(deadline=None, max_examples=50)
@given(arrays(np.uint8, shapes, elements=st.sampled_from([0, 0, 0, 0, 0, 0, 0, 0, 0, 1])))
def test_so_it_is_in_noise(volume):
    np.testing.assert_array_equal(flags(volume), by_definition(volume))


def test_a_margin_of_three_is_unscanned_since_outside_counts_as_zero():
    volume = np.full((20, 20, 20), 50, np.uint8)
    volume[:, :3] = 0
    assert not flags(volume)[:, :3].any()
    assert flags(volume)[:, 3:].all()


def test_a_plane_of_zeros_at_the_border_is_unscanned_and_within_it_is_data():
    volume = np.full((20, 20, 20), 50, np.uint8)
    volume[0] = 0
    volume[10] = 0  # a scan's own darkness, however wide: thinner than the box
    volume[5:9, 5:9, 5:9] = 0
    assert not flags(volume)[0].any()
    assert flags(volume)[1:].all()


def test_a_box_of_five_is_unscanned_and_one_with_a_voxel_in_it_is_not():
    volume = np.full((20, 20, 20), 50, np.uint8)
    volume[5:10, 6:11, 7:12] = 0
    assert (~flags(volume)).sum() == 125
    volume[7, 8, 9] = 1
    assert flags(volume).all()


@settings(deadline=None, max_examples=60)
@given(volumes(), st.data())
def test_a_block_with_the_reach_around_it_agrees_with_the_whole(volume, data):
    whole = flags(volume)
    box, halo = [], []
    for size in volume.shape:
        first = data.draw(st.integers(0, size - 1))
        last = data.draw(st.integers(first + 1, size))
        box.append(slice(first, last))
        halo.append(slice(max(0, first - REACH_VOXELS), min(size, last + REACH_VOXELS)))
    inner = tuple(slice(b.start - h.start, b.stop - h.start) for b, h in zip(box, halo, strict=True))
    np.testing.assert_array_equal(flags(volume[tuple(halo)])[inner], whole[tuple(box)])


@pytest.mark.parametrize("planes", [1, 2, 5, 7])
def test_however_many_planes_are_read_at_a_time_and_from_a_map_it_is_the_same(tmp_path, monkeypatch, planes):
    rng = np.random.default_rng(0)
    volume = rng.integers(1, 9, (23, 17, 21), np.uint8)
    volume[4:12, 3:9, 2:20] = 0
    expected = scanned_bits(volume)
    monkeypatch.setattr(scanned, "_PLANES", planes)
    np.testing.assert_array_equal(scanned_bits(volume), expected)
    np.save(tmp_path / "volume.npy", volume)
    mapped = np.load(tmp_path / "volume.npy", mmap_mode="c")
    out = np.memmap(tmp_path / "bits", np.uint8, "w+", shape=bits_shape(volume.shape))
    assert scanned_bits(mapped, out) is out
    np.testing.assert_array_equal(out, expected)


@settings(deadline=None, max_examples=60)
@given(volumes(), st.data())
def test_a_tile_is_scanned_where_any_of_its_voxels_is(volume, data):
    found = flags(volume)
    corner = [data.draw(st.integers(0, size - 1)) for size in volume.shape]
    tile = [data.draw(st.integers(1, 20)) for _ in range(3)]
    box = tuple(slice(a, a + n) for a, n in zip(corner, tile, strict=True))
    assert any_scanned(scanned_bits(volume), *corner, *tile) == found[box].any()


@settings(deadline=None, max_examples=40)
@given(volumes(), st.integers(0, 9))
def test_a_mask_is_cleared_and_counted_and_a_field_filled(volume, seed):
    rng, seen = np.random.default_rng(seed), flags(volume)
    mask = rng.integers(0, 2, volume.shape, np.uint8)
    field = rng.normal(size=volume.shape).astype(np.float32)
    cleared, filled = mask.copy(), field.copy()
    assert clear_unscanned(cleared, scanned_bits(volume)) == (mask.sum(), mask[~seen].sum())
    np.testing.assert_array_equal(cleared, mask * seen)
    fill_unscanned(filled, scanned_bits(volume))
    np.testing.assert_array_equal(filled, np.where(seen, field, UNSCANNED_LOGIT))
