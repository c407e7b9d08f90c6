import math
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt
from torch.nn import functional

from surface_train.data.truth import FAR_VOXELS, Truth, boundary_distance, skeleton
from surface_train.losses.loss import soft_skeleton

pytestmark = pytest.mark.usefixtures("one_thread")
Label = npt.NDArray[np.uint8]


@st.composite
def labels(draw: st.DrawFn, batch: int = 0) -> Label:
    """Blocks of random labels, some kinds rare or missing, so that there is something to thin and to measure."""
    shape = tuple(draw(st.lists(st.integers(1, 13), min_size=3, max_size=3)))
    shares = draw(st.sampled_from([(1, 1, 1), (1, 9, 0), (9, 1, 0), (1, 0, 1), (0, 1, 1), (0, 0, 1), (5, 5, 1)]))
    block = draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    coarse = rng.choice(3, (batch or 1, *(side // block + 1 for side in shape)), p=np.array(shares) / sum(shares))
    for axis in (1, 2, 3):
        coarse = coarse.repeat(block, axis)
    fine = coarse[:, : shape[0], : shape[1], : shape[2]].astype(np.uint8)
    return fine if batch else fine[0]


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


# --- the batch


@settings(max_examples=30, deadline=None)
@given(labels(batch=2))
def test_maps_given_are_the_maps_made(batch: Label) -> None:
    made = Truth(torch.from_numpy(batch), skeleton_iterations=2)
    distances = torch.from_numpy(np.stack([boundary_distance(sample) for sample in batch]))
    skeletons = torch.from_numpy(np.stack([skeleton(sample, 2) for sample in batch]))
    given_maps = Truth(torch.from_numpy(batch), distances, skeletons, 2)
    assert torch.equal(made.boundary_distance, given_maps.boundary_distance)
    assert torch.equal(made.skeleton, given_maps.skeleton)
    assert made.skeleton.dtype == torch.float32


def test_given_maps_are_taken_at_their_word() -> None:
    label = torch.ones((1, 2, 2, 2), dtype=torch.uint8)
    truth = Truth(label, torch.full((1, 2, 2, 2), 7.0), torch.zeros((1, 1, 1, 1), dtype=torch.uint8))
    assert (truth.boundary_distance == 7).all()
    assert not truth.skeleton.any()


def test_what_is_counted_by_hand() -> None:
    truth = Truth(
        torch.tensor([[0, 1, 1, 2], [2, 2, 2, 2], [1, 1, 1, 1], [0, 0, 0, 1]], dtype=torch.uint8)[:, None, None]
    )
    assert truth.labelled_count.tolist() == [3, 0, 4, 4]
    assert truth.surface_count.tolist() == [2, 0, 4, 1]
    assert truth.any_labelled.tolist() == [1, 0, 1, 1]
    assert truth.sign[0, 0, 0].tolist() == [1, -1, -1, 1]
    assert truth.variance.tolist() == pytest.approx([2 / 9, 0, 0, 3 / 16])
    values = torch.tensor([[1.0, 2, 6, 100]]).expand(4, 4)[:, None, None]
    assert truth.mean(values).tolist() == pytest.approx([3, 0, 109 / 4, 109 / 4])
    assert truth.halved_surface[:, 0, 0].tolist() == [[1, 1], [0, 0], [1, 1], [0, 1]]


@settings(max_examples=30, deadline=None)
@given(labels(batch=2))
def test_the_widened_surface_is_a_maximum_over_27_voxels(batch: Label) -> None:
    truth = Truth(torch.from_numpy(batch))
    assert torch.equal(truth.widened_surface, functional.max_pool3d(truth.surface, 3, 1, 1))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"labels": torch.zeros((1, 4, 4, 4))}, r"labels: found torch\.float32 \(1, 4, 4, 4\), wanted torch\.uint8"),
        ({"labels": torch.zeros((4, 4, 4), dtype=torch.uint8)}, r"labels: found torch\.uint8 \(4, 4, 4\), wanted"),
        ({"distances": torch.zeros((1, 5, 4, 4))}, r"distances: found \(1, 5, 4, 4\), wanted \(1, 5, 4, 3\)"),
        ({"skeletons": torch.zeros((1, 2, 2, 2))}, r"skeletons: found \(1, 2, 2, 2\), wanted \(1, 3, 2, 2\)"),
    ],
)
def test_maps_of_other_labels_are_refused(parts: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Truth(**{"labels": torch.zeros((1, 5, 4, 3), dtype=torch.uint8), **parts})
