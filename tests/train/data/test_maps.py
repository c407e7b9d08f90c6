import math
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from label_blocks import Label, labels
from scipy.ndimage import distance_transform_edt
from torch.nn import functional

from surface_train.data.maps import DISTANCE, FAR_VOXELS, boundary_distance, skeleton, skeleton_map
from surface_train.losses.morphology import soft_skeleton

pytestmark = pytest.mark.usefixtures("one_thread")


def line(values: list[int]) -> Label:
    return np.array(values, np.uint8)[None, None]


# --- the distance


@settings(max_examples=60, deadline=None)
@given(labels())
def test_the_distance_is_scipys(label: Label) -> None:
    def to_kind(kind: int) -> npt.NDArray[np.float64]:
        return distance_transform_edt(label != kind) if (label == kind).any() else np.full(label.shape, FAR_VOXELS)

    found = boundary_distance(label)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.where(label == 1, to_kind(0), to_kind(1)), rtol=1e-6)


def test_distance_is_in_voxels_along_every_axis() -> None:
    label = np.zeros((5, 5, 5), np.uint8)
    label[2, 2, 2] = 1
    found = boundary_distance(label)
    assert found[2, 2, 2] == 1
    for place in product(range(5), repeat=3):
        if place != (2, 2, 2):
            assert found[place] == pytest.approx(math.dist(place, (2, 2, 2)))


def test_the_end_of_the_annotation_and_of_the_patch_are_no_boundary() -> None:
    # The surface runs on into the unlabelled voxels: its distance is to the background on the left.
    assert boundary_distance(line([0, 1, 1, 1, 2, 2]))[0, 0, :4].tolist() == [1, 1, 2, 3]
    # Background behind unlabelled voxels looks for surface, and finds it at their far side.
    assert boundary_distance(line([0, 2, 2, 1]))[0, 0, [0, 3]].tolist() == [3, 3]
    assert boundary_distance(line([1, 1, 1, 0, 0]))[0, 0].tolist() == [3, 2, 1, 1, 2]


@pytest.mark.parametrize("values", [[0, 0, 0], [1, 1, 2], [0, 2, 2]])
def test_without_the_other_kind_it_is_far_and_finite(values: list[int]) -> None:
    labelled = np.array(values) != 2
    assert (boundary_distance(line(values))[0, 0][labelled] == FAR_VOXELS).all()


# --- the skeleton


@settings(max_examples=60, deadline=None)
@given(labels(), st.integers(0, 4))
def test_the_skeleton_of_a_mask_is_its_soft_one(label: Label, iterations: int) -> None:
    surface = torch.from_numpy((label == 1).astype(np.float32))[None]
    soft = soft_skeleton(functional.max_pool3d(surface, 2, 2, ceil_mode=True), iterations)[0]
    found = skeleton(label, iterations)
    assert found.dtype == np.uint8
    assert np.array_equal(found, soft.numpy())


def test_the_skeleton_of_a_slab_is_its_middle_at_half_resolution() -> None:
    label = np.zeros((18, 18, 17), np.uint8)
    label[4:14] = 1  # ten voxels thick, five at half resolution, of which the middle one is left
    middle = np.zeros((9, 9, 9), np.uint8)
    middle[4] = 1
    assert np.array_equal(skeleton(label, 2), middle)
    assert not skeleton(label, 1).any()  # five voxels need two rounds


def test_no_skeleton_where_there_is_no_surface() -> None:
    assert not skeleton(np.full((5, 6, 7), 2, np.uint8), 3).any()


# --- their kinds


@settings(max_examples=30, deadline=None)
@given(labels(), st.integers(0, 4))
def test_a_kind_of_map_has_the_shape_that_it_states(label: Label, iterations: int) -> None:
    for kind in (DISTANCE, skeleton_map(iterations)):
        assert kind.make(label).shape == kind.shape(label.shape)


def test_skeletons_of_other_numbers_have_other_names() -> None:
    assert len({DISTANCE.name, *(skeleton_map(iterations).name for iterations in range(5))}) == 6
