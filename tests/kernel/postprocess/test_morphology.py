import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from surface_kernel.postprocess.morphology import close_gaps, open_gaps

masks = arrays(np.uint8, st.tuples(*[st.integers(1, 8)] * 3), elements=st.integers(0, 1))
radii = st.integers(0, 3)


def after(step, mask, radius_z, radius_yx):
    found = mask.copy()
    step(found, radius_z, radius_yx)
    return found


def ellipsoid(radius_z, radius_yx):
    z, y, x = np.ogrid[-radius_z : radius_z + 1, -radius_yx : radius_yx + 1, -radius_yx : radius_yx + 1]
    return (z / (radius_z + 0.5)) ** 2 + (y**2 + x**2) / (radius_yx + 0.5) ** 2 <= 1


@settings(deadline=None, max_examples=100)
@given(masks, radii, radii)
def test_they_are_scipys_with_the_edge_repeated(mask, radius_z, radius_yx):
    widths = [(2 * radius, 2 * radius) for radius in (radius_z, radius_yx, radius_yx)]
    padded, shape = np.pad(mask, widths, mode="edge"), ellipsoid(radius_z, radius_yx)
    inner = tuple(slice(before, before + side) for (before, _), side in zip(widths, mask.shape, strict=True))
    closed = ndimage.binary_erosion(ndimage.binary_dilation(padded, shape), shape, border_value=1)[inner]
    opened = ndimage.binary_dilation(ndimage.binary_erosion(padded, shape, border_value=1), shape)[inner]
    np.testing.assert_array_equal(after(close_gaps, mask, radius_z, radius_yx), closed)
    np.testing.assert_array_equal(after(open_gaps, mask, radius_z, radius_yx), opened)


@settings(deadline=None, max_examples=60)
@given(masks, radii, radii)
def test_closing_only_adds_opening_only_removes_and_radii_of_0_do_nothing(mask, radius_z, radius_yx):
    assert (after(close_gaps, mask, radius_z, radius_yx) >= mask).all()
    assert (after(open_gaps, mask, radius_z, radius_yx) <= mask).all()
    np.testing.assert_array_equal(after(close_gaps, mask, 0, 0), mask)
    np.testing.assert_array_equal(after(open_gaps, mask, 0, 0), mask)


@pytest.mark.parametrize("step", [close_gaps, open_gaps])
@settings(deadline=None, max_examples=40)
@given(masks, radii, st.tuples(*[st.sampled_from([1, -1])] * 3), st.booleans())
def test_they_have_the_symmetries_of_their_ellipsoid(step, mask, radius, signs, turned):
    """All 48 where it is a ball, and the 16 that leave z in its place where it is not: here flips and a turn."""
    flips = tuple(slice(None, None, sign) for sign in signs)
    axes = (0, 2, 1) if turned else (0, 1, 2)
    other = np.ascontiguousarray(mask.transpose(axes)[flips])
    expected = after(step, mask, radius, 2).transpose(axes)[flips]
    np.testing.assert_array_equal(after(step, other, radius, 2), expected)


def test_by_hand():
    """A wall with a slot of one voxel and one of three: a ball of 1 closes the first; opening takes a spur away."""
    mask = np.zeros((9, 9, 20), np.uint8)
    mask[3:6] = 1
    mask[3:6, :, 5] = 0
    mask[3:6, :, 10:13] = 0
    mask[6:8, 4, 17] = 1
    closed, opened = after(close_gaps, mask, 1, 1), after(open_gaps, mask, 1, 1)
    assert closed[4, :, 5].all()
    assert not closed[4, :, 11].any()
    assert not opened[7:, 4, 17].any()
    assert opened[3:6, :, 14:].all()
