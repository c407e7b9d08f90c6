import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from score import oracle
from score.noise import mask_pair, sheet_pair

from surface_score.matching import match

NONE = (0, 0, 0)


def empty(shape=(9, 9, 9)):
    return np.zeros(shape, bool)


def ring(z=4, y=4, x=4, shape=(9, 9, 9)):
    """Eight voxels around one that is missing, in the plane z."""
    mask = empty(shape)
    mask[z, y - 1 : y + 2, x - 1 : x + 2] = True
    mask[z, y, x] = False
    return mask


def hollow_ball(z=4, y=4, x=4, shape=(9, 9, 9)):
    mask = empty(shape)
    mask[z - 1 : z + 2, y - 1 : y + 2, x - 1 : x + 2] = True
    mask[z, y, x] = False
    return mask


def sheets(*planes, shape=(9, 9, 9)):
    mask = empty(shape)
    mask[list(planes)] = True
    return mask


def changed(mask, value, *voxels):
    mask = mask.copy()
    for voxel in voxels:
        mask[voxel] = value
    return mask


BRIDGED = changed(sheets(2, 6), True, (slice(2, 7), 4, 4))
PIERCED = changed(sheets(4), False, (4, 4, 4))

# A mask's first component is not counted: it outlives all others.
WORLDS = {
    "nothing": (empty(), empty(), NONE, NONE, NONE),
    "one piece each": (sheets(2), sheets(6), NONE, NONE, NONE),
    "two sheets": (sheets(2, 6), sheets(2, 6), (1, 1, 1), NONE, NONE),
    "two sheets, bridged": (BRIDGED, sheets(2, 6), (0, 0, 1), NONE, NONE),
    "two sheets, one missed": (sheets(2), sheets(2, 6), (0, 0, 1), NONE, NONE),
    "two sheets, a false one": (sheets(2, 4, 6), sheets(2, 6), (1, 2, 1), NONE, NONE),
    "two sheets, both missed by a voxel": (sheets(3, 7), sheets(2, 6), (1, 1, 1), NONE, NONE),
    "two sheets, both missed by two": (sheets(4, 8), sheets(2, 6), (0, 1, 1), NONE, NONE),
    "prediction empty": (empty(), sheets(2, 4, 6), (0, 0, 2), NONE, NONE),
    "corners touch": (changed(empty(), True, (4, 4, 4), (5, 5, 5)), sheets(2), (0, 1, 0), NONE, NONE),
    "ring": (ring(), ring(), NONE, (1, 1, 1), NONE),
    "ring, plugged": (changed(ring(), True, (4, 4, 4)), ring(), NONE, (0, 0, 1), NONE),
    "ring, broken": (changed(ring(), False, (4, 3, 4)), ring(), NONE, (0, 0, 1), NONE),
    "ring, beside itself": (ring(x=2), ring(x=6), NONE, (0, 1, 1), NONE),
    "hole, wider": (changed(sheets(4), False, (4, slice(3, 6), slice(3, 6))), PIERCED, NONE, (1, 1, 1), NONE),
    "hole, moved": (changed(sheets(4), False, (4, 4, 6)), PIERCED, NONE, (0, 1, 1), NONE),
    "hole and a false one": (changed(PIERCED, False, (4, 2, 2)), PIERCED, NONE, (1, 2, 1), NONE),
    "ball": (hollow_ball(), hollow_ball(), NONE, NONE, (1, 1, 1)),
    "ball, filled": (changed(hollow_ball(), True, (4, 4, 4)), hollow_ball(), NONE, NONE, (0, 0, 1)),
    "ball, leaking at a corner": (changed(hollow_ball(), False, (3, 3, 3)), hollow_ball(), NONE, NONE, (0, 0, 1)),
    "ball, elsewhere": (hollow_ball(x=2), hollow_ball(x=6), NONE, NONE, (0, 1, 1)),
    "hollow to the face": (changed(np.ones((3, 3, 3), bool), False, (0, 1, 1)), np.ones((3, 3, 3), bool), *[NONE] * 3),
}


@pytest.mark.parametrize("name", WORLDS)
def test_worked_out_by_hand(name):
    prediction, truth, *expected = WORLDS[name]
    assert match(prediction, truth) == tuple(expected)


def test_a_cavity_in_two_pieces_ends_with_the_later():
    # The truth's cavity is three voxels long; the prediction walls off its middle, so two cavities lie in it. Only the
    # one that is filled last, in scan order, ends where the truth's does.
    truth = empty((5, 5, 7))
    truth[1:4, 1:4, 1:6] = True
    truth[2, 2, 2:5] = False
    walled = changed(truth, True, (2, 2, 3))
    assert match(walled, truth)[2] == (1, 2, 1)
    last = changed(truth, True, (2, 2, 2), (2, 2, 3))
    first = changed(truth, True, (2, 2, 4), (2, 2, 3))
    assert match(last, truth)[2] == match(first, truth)[2] == (1, 1, 1)  # each is all that is left of it in the union
    assert match(last, first)[2] == (0, 1, 1)


def test_agrees_with_the_official_module(golden_pairs):
    found = [[count for counts in match(*mask_pair(index)) for count in counts] for index in range(len(golden_pairs))]
    assert found == golden_pairs
    assert np.all(np.sum(golden_pairs, axis=0) > 30)  # no count is all zeros


@st.composite
def two_masks(draw):
    shape = draw(hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    first = rng.random(shape) < draw(st.sampled_from([0.1, 0.3, 0.5, 0.8]))
    return first, first ^ (rng.random(shape) < draw(st.sampled_from([0.05, 0.2, 0.5])))


@settings(max_examples=80, deadline=None)
@given(two_masks())
def test_symmetric_and_whole_on_itself(masks):
    first, second = masks
    counts = match(first, second)
    assert match(second, first) == tuple((m, g, p) for m, p, g in counts)
    assert all(0 <= m <= min(p, g) for m, p, g in counts)
    assert all(m == p == g for m, p, g in match(first, first))


@settings(max_examples=40, deadline=None)
@given(two_masks())
def test_memory_layout_does_not_matter(masks):
    mirrored = [np.asfortranarray(np.repeat(mask, 2, axis=2))[:, :, ::2] for mask in masks]
    assert match(*mirrored) == match(*masks)


official = pytest.mark.skipif(oracle.missing() is not None, reason=f"{oracle.missing()} is not installed")


@pytest.mark.slow
@official
@pytest.mark.parametrize("start", range(1000, 3000, 200))
def test_agrees_on_random_masks_with_the_official_module_itself(start):
    for index in range(start, start + 200):
        prediction, truth = mask_pair(index)
        assert [list(counts) for counts in match(prediction, truth)] == oracle.match(prediction, truth), index


@pytest.mark.slow
@official
@pytest.mark.parametrize("seed", range(20))
def test_agrees_on_sheets_with_the_official_module_itself(seed):
    prediction, truth = sheet_pair(seed)
    found, expected = match(prediction, truth), oracle.match(prediction, truth)
    assert [list(counts) for counts in found] == expected
    assert sum(map(sum, expected)) > 0
