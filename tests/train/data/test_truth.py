import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from label_blocks import Label, labels
from torch.nn import functional

from surface_train.data.maps import DISTANCE, LabelMap, boundary_distance, skeleton, skeleton_map
from surface_train.data.truth import Truth

pytestmark = pytest.mark.usefixtures("one_thread")


@settings(max_examples=30, deadline=None)
@given(labels(batch=2))
def test_maps_given_are_the_maps_made(batch: Label) -> None:
    made = Truth(torch.from_numpy(batch))
    distances = torch.from_numpy(np.stack([boundary_distance(sample) for sample in batch]))
    skeletons = torch.from_numpy(np.stack([skeleton(sample, 2) for sample in batch]))
    given_maps = Truth(torch.from_numpy(batch), {"distance": distances, "skeleton_2": skeletons})
    for kind in (DISTANCE, skeleton_map(2)):
        assert torch.equal(made.map(kind), given_maps.map(kind))
        assert made.map(kind) is made.map(kind)
    assert set(made.made) == {"distance", "skeleton_2"}
    assert given_maps.made == {}


def test_given_maps_are_taken_at_their_word() -> None:
    label = torch.ones((1, 2, 2, 2), dtype=torch.uint8)
    maps = {"distance": torch.full((1, 2, 2, 2), 7.0), "skeleton_3": torch.zeros((1, 1, 1, 1), dtype=torch.uint8)}
    truth = Truth(label, maps)
    assert (truth.map(DISTANCE) == 7).all()
    assert not truth.map(skeleton_map(3)).any()


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
def test_the_dilated_surface_is_a_maximum_over_27_voxels(batch: Label) -> None:
    truth = Truth(torch.from_numpy(batch))
    assert torch.equal(truth.dilated_surface, functional.max_pool3d(truth.surface, 3, 1, 1))


@pytest.mark.parametrize(
    ("labels", "got"),
    [
        (torch.zeros((1, 4, 4, 4)), r"torch\.float32 \(1, 4, 4, 4\)"),
        (torch.zeros((4, 4, 4), dtype=torch.uint8), r"torch\.uint8 \(4, 4, 4\)"),
    ],
)
def test_labels_of_another_kind_are_refused(labels: torch.Tensor, got: str) -> None:
    with pytest.raises(ValueError, match=rf"labels: expected torch\.uint8 \(batch, z, y, x\), got {got}"):
        Truth(labels)


@pytest.mark.parametrize(
    ("kind", "shape", "expected"),
    [(DISTANCE, (1, 5, 4, 4), (1, 5, 4, 3)), (skeleton_map(3), (1, 2, 2, 2), (1, 3, 2, 2))],
    ids=lambda value: getattr(value, "name", None),
)
def test_maps_of_other_labels_are_refused(kind: LabelMap, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    truth = Truth(torch.zeros((1, 5, 4, 3), dtype=torch.uint8), {kind.name: torch.zeros(shape)})
    message = f"maps: expected {kind.name} of {expected} for these labels, got {shape}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        truth.map(kind)
