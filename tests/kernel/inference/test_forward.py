import numpy as np
import pytest
import torch
from torch import nn

from surface_kernel.inference.cutting import TileBatch
from surface_kernel.inference.forward import Ensemble, Forward, Member
from surface_kernel.inference.views import View
from surface_kernel.networks.device import Device
from surface_kernel.volumes.intensity import Intensity

CPU = Device(name="cpu", dtype="float32", batch=4, threads=1)
TABLE = np.arange(256, dtype=np.float32)


class Network(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.forward = function


def batch_of(rows, tiles):
    """A batch whose last rows fill it up."""
    indices = [(0, 0, number) for number in range(tiles)]
    corners = [(0, 0, 4 * number) for number in range(tiles)]
    inputs = [torch.arange(rows * 8, dtype=torch.float32).reshape(rows, 2, 2, 2)]
    return TileBatch(tiles=indices, empty=[], corners=corners, inputs=inputs)


def forward(members, passes, batch=4, device=CPU):
    reported = []
    ensemble = Ensemble(members, device)
    made = Forward(ensemble, passes=passes, tables=[TABLE], batch=batch, report=reported.append)
    return made, reported


def test_logits_are_summed_over_members_and_views():
    members = [Member(nn.Identity(), Intensity()), Member(Network(lambda tiles: 10 * tiles.roll(1, -1)), Intensity())]
    batch = batch_of(rows=4, tiles=3)
    made, reported = forward(members, [(0, View()), (1, View.parse("x"))])
    seen = batch.inputs[0]
    # Seen in a mirror along x, a voxel gets what its right neighbour is; of two voxels both ways are one.
    np.testing.assert_array_equal(torch.cat(made.logits(batch)), seen + 10 * seen.roll(1, -1))
    assert reported == []


def test_without_a_pass_there_is_nothing_to_sum():
    with pytest.raises(ValueError, match="expected at least one member and view"):
        forward([Member(nn.Identity(), Intensity())], [])


def test_a_batch_that_is_too_large_is_halved_for_good_and_one_tile_runs_on_the_cpu():
    sizes = []

    def narrow(tiles):
        sizes.append(len(tiles))
        if len(tiles) > 1 or bool((tiles == 8).any()):  # the second tile holds an 8
            raise torch.OutOfMemoryError("CUDA out of memory")
        return tiles

    made, reported = forward([Member(Network(narrow), Intensity(), exact=Network(lambda tiles: tiles))], [(0, View())])
    batch = batch_of(rows=4, tiles=3)
    np.testing.assert_array_equal(torch.cat(made.logits(batch)), batch.inputs[0])
    assert sizes == [4, 2, 1, 1, 1, 1]
    assert reported == [
        "memory did not suffice: 2 tiles at a time from here on",
        "memory did not suffice: 1 tiles at a time from here on",
        "memory did not suffice for the tile at (0, 0, 4): run on the CPU in float32",
    ]
    sizes.clear()
    made.logits(batch_of(rows=2, tiles=2))
    assert sizes == [1, 1]


def test_another_error_is_not_taken_for_want_of_memory():
    def fail(tiles):
        raise RuntimeError("an illegal memory access was encountered")

    made, _ = forward([Member(Network(fail), Intensity())], [(0, View())])
    with pytest.raises(RuntimeError, match="illegal memory access"):
        made.logits(batch_of(rows=1, tiles=1))


def test_exact_logits_are_float32_and_memory_of_their_own():
    reduced = Device(name="cpu", dtype="bfloat16", batch=1, threads=1)
    plain = nn.Conv3d(1, 1, 1, bias=False)
    nn.init.constant_(plain.weight, 1 / 3)
    made, _ = forward([Member(nn.Conv3d(1, 1, 1), Intensity(), exact=plain)], [(0, View())], device=reduced)
    batch = batch_of(rows=1, tiles=1)
    np.testing.assert_allclose(made.exact_logits(batch), batch.inputs[0] / 3, rtol=1e-6)
    made, _ = forward([Member(nn.Identity(), Intensity())], [(0, View())])
    logits = made.exact_logits(batch)
    batch.inputs[0].zero_()
    assert logits.max() == 7
