import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from surface_score.voi import VariationOfInformation, variation_of_information

LINE = (1, 1, 9)


def line(*filled):
    mask = np.zeros(LINE, bool)
    mask[0, 0, list(filled)] = True
    return mask


def bits(prediction, truth):
    found = variation_of_information(prediction, truth)
    return found.split_bits, found.merge_bits


def slow_bits(prediction, truth):
    """The definition, voxel by voxel, with another library's components."""
    whole = np.ones((3, 3, 3))
    sheets = zip(ndimage.label(truth, whole)[0].flat, ndimage.label(prediction, whole)[0].flat, strict=True)
    joint = Counter((g, p) for g, p in sheets if g or p)
    of_truth, of_prediction = Counter(), Counter()
    for (g, p), count in joint.items():
        of_truth[g] += count
        of_prediction[p] += count
    total = sum(joint.values())
    split = sum(count / total * math.log2(of_truth[g] / count) for (g, _), count in joint.items())
    merge = sum(count / total * math.log2(of_prediction[p] / count) for (_, p), count in joint.items())
    return split, merge


@pytest.mark.parametrize(
    ("prediction", "truth", "split", "merge"),
    [
        (line(), line(), 0, 0),
        (line(1, 2, 3), line(1, 2, 3), 0, 0),
        # One empty mask is one sheet: it leaves the other's sheets unknown.
        (line(1, 2, 3), line(), 0, 0),
        (line(), line(1, 5), 0, 1),
        (line(1, 5), line(), 1, 0),
        # A true sheet of 0-2 in two pieces; the voxel between is predicted background, a third kind.
        (line(0, 2), line(0, 1, 2), math.log2(3), 0),
        # Two true sheets bridged: the same with the parts changed.
        (line(0, 1, 2), line(0, 2), 0, math.log2(3)),
        # Half of a sheet found: background or sheet, even odds.
        (line(0, 1), line(0, 1, 2, 3), 1, 0),
        # Four voxels; all pairs differ, each side pairs half of them with background.
        (line(0, 1), line(2, 3), 0, 0),
    ],
)
def test_worked_out_by_hand(prediction, truth, split, merge):
    assert bits(prediction, truth) == pytest.approx((split, merge))


def test_a_diagonal_contact_joins():
    # 26 neighbours: corner to corner is one sheet, so a mask that bridges the two through the middle adds no merge.
    corners = np.zeros((3, 3, 3), bool)
    corners[0, 0, 0] = corners[1, 1, 1] = True
    assert bits(corners, corners) == (0, 0)
    assert bits(np.zeros_like(corners), corners) == (0, 0)


@pytest.mark.parametrize("shape", [(1, 1, 3), (5, 1, 1), (1, 5, 3), (3, 3, 3), (7, 5, 9)])
def test_as_many_sheets_as_fit(shape):
    # Single voxels two apart on odd axes: more components than half the voxels of a row, which cc3d has miscounted.
    voxels = np.zeros(shape, bool)
    voxels[::2, ::2, ::2] = True
    assert bits(voxels, voxels) == (0, 0)
    assert bits(np.zeros_like(voxels), voxels) == pytest.approx((0, math.log2(voxels.sum())))


def test_score_of_the_bits():
    assert VariationOfInformation(0.0, 0.0).score == 1.0
    assert VariationOfInformation(1.5, 0.5).score == pytest.approx(1 / 1.6)


def test_bits_are_not_negative():
    with pytest.raises(ValueError, match=r"expected bits >= 0, got -0.1 and 0.0"):
        VariationOfInformation(-0.1, 0.0)
    with pytest.raises(ValueError, match=r"expected bits >= 0, got nan"):
        VariationOfInformation(float("nan"), 0.0)


def test_agrees_with_scikit_image(golden_world):
    expected = (golden_world.voi_split, golden_world.voi_merge)
    assert bits(golden_world.predicted, golden_world.truth) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=80, deadline=None)
@given(
    hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=7),
    st.integers(0, 2**32),
    st.sampled_from([0.0, 0.05, 0.2, 0.5, 1.0]),
    st.sampled_from([0.05, 0.2, 0.5]),
)
def test_agrees_with_the_definition(shape, seed, density_a, density_b):
    rng = np.random.default_rng(seed)
    a, b = rng.random(shape) < density_a, rng.random(shape) < density_b
    assert bits(a, b) == pytest.approx(slow_bits(a, b), abs=1e-9)
    assert bits(a, b) == pytest.approx(bits(b, a)[::-1], abs=1e-12)
    assert bits(b, b) == (0, 0)
    assert bits(a.T, b.T) == pytest.approx(bits(a, b), abs=1e-12)


def test_a_volume_of_several_slabs_agrees_with_the_definition():
    rng = np.random.default_rng(0)
    a, b = (rng.random((67, 4, 5)) < 0.2 for _ in range(2))
    assert bits(a, b) == pytest.approx(slow_bits(a, b), abs=1e-9)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="expected masks of one shape"):
        variation_of_information(np.ones((2, 2, 2), bool), np.ones((2, 2, 3), bool))
