import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from surface_score.features import component_labels, euler_number, find_cavities, find_features

CORNER, FACE = np.ones((3, 3, 3)), ndimage.generate_binary_structure(3, 1)


@st.composite
def masks(draw):
    shape = draw(hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return rng.random(shape) < draw(st.sampled_from([0.1, 0.3, 0.5, 0.8, 0.95]))


def box(shape, *holes):
    mask = np.ones(shape, bool)
    for hole in holes:
        mask[hole] = False
    return mask


@pytest.mark.parametrize(
    ("mask", "counts", "euler"),
    [
        (np.zeros((3, 3, 3), bool), (0, 0, 0), 0),
        (box((1, 1, 1)), (0, 0, 0), 1),
        (box((4, 5, 6)), (0, 0, 0), 1),
        (box((1, 3, 3), (0, 1, 1)), (0, 1, 0), 0),
        (box((1, 3, 5), (0, 1, 1), (0, 1, 3)), (0, 2, 0), -1),
        (box((3, 3, 3), (1, 1, 1)), (0, 0, 1), 2),
        (box((3, 3, 5), (1, 1, 1), (1, 1, 3)), (0, 0, 2), 3),
        (box((3, 3, 3), (slice(None), 1, 1)), (0, 1, 0), 0),  # a pipe
        (box((1, 1, 5), (0, 0, 1), (0, 0, 3)), (2, 0, 0), 3),
        # Two voxels that touch at an edge are two components; two holes that do are one cavity.
        (box((1, 2, 2), (0, 0, 0), (0, 1, 1)), (1, 0, 0), 2),
        (box((4, 4, 4), (1, 1, 1), (2, 2, 2)), (0, 0, 1), 2),
    ],
)
def test_worked_out_by_hand(mask, counts, euler):
    assert find_features(mask).counts == counts
    assert euler_number(mask) == euler


@settings(max_examples=80, deadline=None)
@given(masks())
def test_components_and_cavities_agree_with_scipy(mask):
    features = find_features(mask)
    assert features.components == component_labels(mask)[1] == ndimage.label(mask, FACE)[1]
    outside = np.pad(~mask, 1, constant_values=True)
    assert features.cavities.number == ndimage.label(outside, CORNER)[1] - 1


@settings(max_examples=80, deadline=None)
@given(masks(), st.permutations(range(3)), st.sets(st.integers(0, 2)))
def test_blind_to_turns_and_to_background_around(mask, axes, flipped):
    turned = np.ascontiguousarray(np.pad(np.flip(mask.transpose(axes), tuple(flipped)), 1))
    found, expected = find_features(turned), find_features(mask)
    assert found.counts == expected.counts
    assert euler_number(turned) == euler_number(mask)


def test_cavities_are_where_they_are():
    cavities = find_cavities(box((5, 5, 5), (1, 1, 1), (3, 3, slice(3, 5))))
    assert cavities.enclosed[cavities.label[1, 1, 1]]
    assert not cavities.enclosed[cavities.label[3, 3, 3]]  # open at the face
    assert cavities.label[0, 0, 0] == 0
