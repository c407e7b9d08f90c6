import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from surface_score.features import find_features
from surface_score.tunnels import matched_tunnels, tunnel_voxels


@st.composite
def masks(draw):
    shape = draw(hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    mask = rng.random(shape) < draw(st.sampled_from([0.2, 0.4, 0.6, 0.8]))
    for axis in range(3):
        if draw(st.booleans()):
            mask = mask.repeat(2, axis)  # thick walls: squares and cubes, not edges alone
    return mask


@settings(max_examples=120, deadline=None)
@given(masks())
def test_there_are_as_many_as_the_euler_number_leaves(mask):
    voxels = tunnel_voxels(mask)
    assert len(voxels) == find_features(mask).tunnels
    assert mask[tuple(voxels.T)].all()


@settings(max_examples=60, deadline=None)
@given(masks())
def test_all_match_themselves_and_none_match_where_the_other_is_solid(mask):
    assert matched_tunnels(mask, mask) == find_features(mask).tunnels
    assert matched_tunnels(mask, np.ones_like(mask)) == 0


@pytest.mark.parametrize(("y", "x"), [(2, 2), (2, 8), (6, 5), (9, 9)])
def test_a_tunnel_is_placed_on_its_rim(y, x):
    sheet = np.zeros((5, 12, 12), bool)
    sheet[2:4] = True
    sheet[2:4, y, x] = False
    [voxel] = tunnel_voxels(sheet)
    assert np.abs(voxel[1:] - (y, x)).max() == 1
    assert voxel[0] in (2, 3)


def test_no_voxels_no_tunnels():
    assert tunnel_voxels(np.zeros((3, 4, 5), bool)).shape == (0, 3)
    assert tunnel_voxels(np.ones((1, 1, 1), bool)).shape == (0, 3)


def test_two_tunnels_may_match_as_one():
    # The truth has one wide hole. A bar across it makes two of it in the prediction, but only one can be the truth's.
    truth = np.zeros((3, 9, 9), bool)
    truth[1] = True
    truth[1, 3:6, 2:7] = False
    prediction = truth.copy()
    prediction[1, 3:6, 4] = True
    assert find_features(prediction).tunnels == 2
    assert matched_tunnels(prediction, truth) == 1
