import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from surface_score.surface_dice import area_of_code, far_elements, surface_dice


@st.composite
def two_masks(draw):
    shape = draw(hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=7))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    density = draw(st.sampled_from([0.0, 0.03, 0.1, 0.5, 0.9, 1.0]))
    return rng.random(shape) < density, rng.random(shape) < draw(st.sampled_from([0.03, 0.1, 0.5, 1.0]))


def plane(z, shape=(12, 9, 9)):
    mask = np.zeros(shape, bool)
    mask[z] = True
    return mask


def voxel(z, y, x, shape=(9, 9, 9)):
    mask = np.zeros(shape, bool)
    mask[z, y, x] = True
    return mask


def test_areas_are_those_of_the_reference(golden_areas):
    assert np.abs(area_of_code() - golden_areas).max() < 1e-12


def test_area_of_a_box_worked_out_by_hand():
    # A box of 1×1×1 shows its eight corners: an octahedron of area 8 · √3/8.
    areas = area_of_code()
    assert sum(areas[1 << bit] for bit in range(8)) == pytest.approx(3**0.5)
    assert areas[0b11110000] == 1.0  # the upper four voxels: one flat face
    assert areas[0b11000000] == pytest.approx(2**0.5 / 2)  # two in a row: an edge cut off
    assert areas[0] == areas[255] == 0.0


def test_agrees_with_surface_distance(golden_world):
    found = surface_dice(golden_world.predicted, golden_world.truth)
    assert found == pytest.approx(golden_world.surface_dice, abs=1e-9)


@pytest.mark.parametrize(("shift", "expected"), [(0, 1.0), (1, 1.0), (2, 1.0), (4, 0.0), (5, 0.0), (7, 0.0)])
def test_planes_apart(shift, expected):
    # Planes one voxel thick that fill the volume sideways, and the frame of corners around it: no rims but their own.
    assert surface_dice(plane(2 + shift), plane(2)) == expected


def test_a_plane_three_apart_loses_its_far_side():
    # Corners of the plane at z=2 lie at 2 and 3, those of the plane at 5 at 5 and 6: only 3 and 5 are within 2.
    assert surface_dice(plane(5), plane(2)) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ((4, 4, 4), 1.0),
        ((4, 4, 6), 1.0),  # two along an axis: each corner has its image at distance 2
        ((4, 4, 7), 0.5),  # three: only the four corners on the near side have one at distance 2
        ((4, 5, 6), 0.75),  # one along y, two along x: all but the two corners farthest away, at √5
        ((4, 4, 8), 0.0),
    ],
)
def test_two_voxels(other, expected):
    assert surface_dice(voxel(*other), voxel(4, 4, 4)) == pytest.approx(expected)


@pytest.mark.parametrize(("prediction", "truth", "expected"), [(0, 0, 1.0), (1, 0, 0.0), (0, 1, 0.0), (1, 1, 1.0)])
def test_empty_and_full(prediction, truth, expected):
    assert surface_dice(np.full((3, 4, 5), bool(prediction)), np.full((3, 4, 5), bool(truth))) == expected


def test_no_voxels_at_all():
    assert surface_dice(np.zeros((0, 0, 0), bool), np.zeros((0, 0, 0), bool)) == 1.0


@settings(max_examples=60, deadline=None)
@given(two_masks())
def test_symmetric_bounded_and_one_on_itself(masks):
    a, b = masks
    assert 0.0 <= surface_dice(a, b) <= 1.0
    assert surface_dice(a, b) == surface_dice(b, a)
    assert surface_dice(b, b) == 1.0


@settings(max_examples=60, deadline=None)
@given(two_masks(), st.permutations(range(3)), st.sets(st.integers(0, 2)), st.integers(0, 3))
def test_blind_to_turns_and_to_background_around(masks, axes, flipped, margin):
    turned = [np.pad(np.flip(mask.transpose(axes), tuple(flipped)), margin) for mask in masks]
    assert surface_dice(*turned) == pytest.approx(surface_dice(*masks), abs=1e-12)


def test_threads_change_nothing():
    rng = np.random.default_rng(0)
    a, b = (rng.random((70, 9, 11)) < density for density in (0.01, 0.02))
    assert len({surface_dice(a, b, threads) for threads in (1, 2, 5)}) == 1


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"expected masks of one shape \(z, y, x\), got \(2, 2, 2\) and \(2, 2, 3\)"):
        surface_dice(np.ones((2, 2, 2), bool), np.ones((2, 2, 3), bool))


@settings(max_examples=60, deadline=None)
@given(two_masks())
def test_far_elements_are_what_the_score_lacks(masks):
    predicted_far, true_far = far_elements(*masks)
    areas = predicted_far.area + true_far.area
    lost = predicted_far.areas.sum() + true_far.areas.sum()
    assert surface_dice(*masks) == pytest.approx(1 - lost / areas if areas else 1.0, abs=1e-12)
    for mask, far in zip(masks, (predicted_far, true_far), strict=True):
        assert mask[tuple(far.voxels.T)].all()
        assert (np.abs(2 * far.corners - 2 * far.voxels - 1) == 1).all()  # an element is at one of its voxel's corners


def test_far_elements_of_two_voxels():
    near, far = far_elements(voxel(4, 4, 4), voxel(4, 4, 7))
    assert near.voxels.tolist() == [[4, 4, 4]] * 4  # the corners on the side away from the other
    assert sorted(set(near.corners[:, 2])) == [4]
    assert sorted(set(far.corners[:, 2])) == [8]
    assert near.area == far.area == pytest.approx(3**0.5)
