import pytest
import torch

from surface_train.losses.morphology import soft_skeleton

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("axis", [1, 2, 3])
@pytest.mark.parametrize("iterations", [0, 3])
def test_the_skeleton_of_a_plane_one_voxel_thick_is_the_plane(axis: int, iterations: int) -> None:
    plane = torch.zeros((1, 7, 7, 7))
    plane.select(axis, 3).fill_(1)
    assert torch.equal(soft_skeleton(plane, iterations), plane)


def test_the_skeleton_of_a_slab_is_its_middle() -> None:
    slab, middle = torch.zeros((1, 9, 9, 9)), torch.zeros((1, 9, 9, 9))
    slab[:, 2:7], middle[:, 4] = 1, 1
    assert torch.equal(soft_skeleton(slab, 2), middle)
    assert not soft_skeleton(slab, 1).any()  # five voxels need two rounds


def test_no_skeleton_where_there_is_nothing() -> None:
    assert not soft_skeleton(torch.zeros((1, 5, 5, 5)), 3).any()
