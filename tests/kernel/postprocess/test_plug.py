import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from surface_kernel.postprocess.plug import plug

masks = arrays(np.uint8, st.tuples(*[st.integers(1, 8)] * 3), elements=st.integers(0, 1))
ACROSS_FACES, ACROSS_CORNERS = (ndimage.generate_binary_structure(3, order) for order in (1, 3))


def after(mask):
    found = mask.copy()
    plug(found)
    return found


@settings(deadline=None, max_examples=150)
@given(masks)
def test_afterwards_every_block_is_joined_and_both_connectivities_agree(mask):
    found = after(mask)
    assert (found >= mask).all()
    for z, y, x in np.ndindex(*(max(0, side - 1) for side in mask.shape)):
        block = found[z : z + 2, y : y + 2, x : x + 2]
        assert ndimage.label(block, ACROSS_FACES)[1] <= 1
    if min(mask.shape) > 1:
        assert ndimage.label(found, ACROSS_FACES)[1] == ndimage.label(found, ACROSS_CORNERS)[1]
    assert ndimage.label(mask, ACROSS_CORNERS)[1] >= ndimage.label(found, ACROSS_CORNERS)[1]
    np.testing.assert_array_equal(after(found), found)


def test_every_single_block_takes_as_few_voxels_as_it_can():
    for bits in itertools.product((0, 1), repeat=8):
        block = np.array(bits, np.uint8).reshape(2, 2, 2)
        joined = [
            sum(other)
            for other in itertools.product((0, 1), repeat=8)
            if (np.array(other) >= bits).all() and ndimage.label(np.array(other).reshape(2, 2, 2), ACROSS_FACES)[1] <= 1
        ]
        assert after(block).sum() == min(joined)


def test_a_slanted_fence_becomes_a_wall():
    """A plane at 45 degrees, joined across edges only: a voxel a step in all columns but the last, which hangs on."""
    mask = np.zeros((8, 8, 5), np.uint8)
    for step in range(8):
        mask[step, step] = 1
    found = after(mask)
    assert found.sum() == 8 * 5 + 7 * 4
    assert ndimage.label(found, ACROSS_FACES)[1] == 1


def test_what_touches_across_faces_stays_as_it_is():
    mask = np.zeros((6, 6, 6), np.uint8)
    mask[1:3, 1:5, 1:5] = 1
    mask[4:, :3] = 1
    np.testing.assert_array_equal(after(mask), mask)
    assert not after(mask * 0).any()


def test_it_ends_on_noise():
    mask = (np.random.default_rng(0).random((40, 40, 40)) < 0.3).astype(np.uint8)
    assert after(mask).mean() < 1
