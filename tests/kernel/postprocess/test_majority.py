import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from surface_kernel.postprocess.box_counts import box_counts
from surface_kernel.postprocess.majority import majority

masks = arrays(np.uint8, st.tuples(*[st.integers(1, 9)] * 3), elements=st.integers(0, 1))


def after(mask, rounds):
    found = mask.copy()
    majority(found, rounds)
    return found


def looped(mask, rounds):
    """By definition: every voxel of every round, one at a time."""
    for _ in range(rounds):
        padded, voted = np.pad(mask, 1, mode="edge"), np.empty_like(mask)
        for z, y, x in np.ndindex(mask.shape):
            voted[z, y, x] = padded[z : z + 3, y : y + 3, x : x + 3].sum() >= 14
        mask = voted
    return mask


@settings(deadline=None, max_examples=100)
@given(masks, st.sampled_from([1, 2]))
def test_counts_are_a_box_filter(mask, radius):
    side = 2 * radius + 1
    expected = ndimage.convolve(mask.astype(int), np.ones((side,) * 3, int), mode="nearest")
    np.testing.assert_array_equal(np.stack([counts.copy() for counts in box_counts(mask, radius)]), expected)


@settings(deadline=None, max_examples=60)
@given(arrays(np.uint8, st.tuples(*[st.integers(1, 5)] * 3), elements=st.integers(0, 1)), st.integers(1, 3))
def test_it_is_what_a_plain_loop_finds(mask, rounds):
    np.testing.assert_array_equal(after(mask, rounds), looped(mask, rounds))


def test_by_hand():
    """A wall keeps its hole's rim and loses the hole; a lone voxel goes; two planes of a corner stay."""
    mask = np.zeros((7, 9, 9), np.uint8)
    mask[2:5] = 1
    mask[2:5, 4, 4] = 0
    mask[0, 0, 0] = 1
    expected = np.zeros_like(mask)
    expected[2:5] = 1
    np.testing.assert_array_equal(after(mask, 1), expected)
    np.testing.assert_array_equal(after(mask, 100), expected)


@settings(deadline=None, max_examples=60)
@given(masks, st.integers(1, 4), st.permutations(range(3)), st.tuples(*[st.sampled_from([1, -1])] * 3))
def test_it_has_the_48_symmetries_of_a_cube(mask, rounds, axes, signs):
    flips = tuple(slice(None, None, sign) for sign in signs)
    turned = np.ascontiguousarray(mask.transpose(axes)[flips])
    np.testing.assert_array_equal(after(turned, rounds), after(mask, rounds).transpose(axes)[flips])


@settings(deadline=None, max_examples=60)
@given(masks, st.integers(1, 3), st.integers(0, 9))
def test_a_voxel_depends_on_no_other_beyond_the_rounds(mask, rounds, seed):
    """Which is what a block of a scroll needs around it: a box with that margin agrees with the whole."""
    rng = np.random.default_rng(seed)
    whole = rng.integers(0, 2, np.array(mask.shape) + 2 * rounds + 2, np.uint8)
    inner = tuple(slice(1, length - 1) for length in whole.shape)
    kept = tuple(slice(rounds, -rounds) for _ in range(3))
    np.testing.assert_array_equal(after(whole[inner].copy(), rounds)[kept], after(whole, rounds)[inner][kept])


@settings(deadline=None, max_examples=60)
@given(masks)
def test_the_opposite_of_the_mask_gives_the_opposite(mask):
    """27 is odd: 14 of a kind are a majority of either."""
    np.testing.assert_array_equal(after(1 - mask, 2), 1 - after(mask, 2))


def test_in_a_memory_map(tmp_path):
    mask = np.random.default_rng(1).integers(0, 2, (70, 6, 5), np.uint8)
    np.save(tmp_path / "mask.npy", mask)
    mapped = np.load(tmp_path / "mask.npy", mmap_mode="r+")
    majority(mapped, 3)
    mapped.flush()
    np.testing.assert_array_equal(np.load(tmp_path / "mask.npy"), after(mask, 3))


@pytest.mark.parametrize("shape", [(0, 3, 3), (3, 0, 3), (1, 1, 1)])
def test_of_next_to_nothing(shape):
    for value, rounds in itertools.product((0, 1), (1, 2)):
        assert (after(np.full(shape, value, np.uint8), rounds) == value).all()
