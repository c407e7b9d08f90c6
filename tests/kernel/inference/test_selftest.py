from dataclasses import replace

import numpy as np
import pytest
import torch
from scenes import noise
from torch import nn

from surface_kernel.inference import selftest
from surface_kernel.networks.device import Device, DeviceError
from surface_kernel.volumes.intensity import Intensity

CPU = Device(name="cpu", dtype="float32", batch=2, threads=1, tile_voxels=5, kept_bytes=7)
TILE = (8, 8, 8)


class Network(nn.Module):
    """A layer that is wrong in a given way in bfloat16, and takes a time of its own in each precision."""

    def __init__(self, spoil=lambda logits: logits):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.spoil = nn.Conv3d(1, 1, 1), spoil
        self.layer.weight.data.fill_(4.0)

    def forward(self, tiles):
        logits = self.layer(tiles)
        return self.spoil(logits) if logits.dtype == torch.bfloat16 else logits


@pytest.fixture(autouse=True)
def _both_precisions(monkeypatch):
    monkeypatch.setattr(selftest, "has_bfloat16", lambda: True)


@pytest.fixture
def took(monkeypatch):
    """Decides what a tile takes, by precision, layout and batch; 1 s where nothing is said."""
    seconds = {}

    def time(self, device):
        trial = measured(self, device)
        key = device.dtype, device.layout, device.batch
        return trial if trial.fault else replace(trial, tile_s=seconds.get(key, 1.0))

    measured = selftest._Bench.time
    monkeypatch.setattr(selftest._Bench, "time", time)
    return seconds


def run(*networks, volume=None):
    volume = noise((12, 12, 12)) if volume is None else volume
    intensities = [Intensity()] * len(networks)
    return selftest.run(networks, intensities, volume=volume, tile_zyx=TILE, threshold=0.5, device=CPU)


def test_the_fastest_is_taken_with_everything_else_as_it_was(took):
    took["bfloat16", "contiguous", 1] = 0.4
    best, trials = run(Network())
    assert best.device == Device(
        name="cpu", dtype="bfloat16", batch=1, threads=1, layout="contiguous", tile_voxels=5, kept_bytes=7
    )
    assert best.tile_s == 0.4
    tried = [(trial.device.dtype, trial.device.layout, trial.device.batch) for trial in trials]
    layouts = "contiguous", "channels_last"
    assert tried == [
        *((dtype, layout, 1) for dtype in ("float32", "bfloat16") for layout in layouts),
        ("bfloat16", "contiguous", 2),
    ]


def test_a_reduced_precision_must_be_worth_it(took):
    took["bfloat16", "contiguous", 1] = 0.95
    assert run(Network())[0].device.dtype == "float32"


def test_a_larger_batch_is_taken_as_long_as_it_gains(took):
    for batch, seconds in ((1, 0.40), (2, 0.30), (4, 0.295), (8, 0.1)):
        took["float32", "contiguous", batch] = seconds
    best, trials = run(Network())
    assert best.device.batch == 2
    assert [trial.device.batch for trial in trials][-2:] == [2, 4]  # 8 is not tried any more


@pytest.mark.parametrize(
    "spoil",
    [
        lambda logits: logits + 0.1,
        lambda logits: logits * float("nan"),
        lambda logits: torch.where(logits.abs() < 0.5, -logits, logits),
    ],
    ids=["shifted", "not finite", "sure of the wrong side"],
)
def test_a_precision_that_differs_is_not_taken_however_fast(took, spoil):
    took["bfloat16", "contiguous", 1] = took["bfloat16", "channels_last", 1] = 0.001
    best, trials = run(Network(spoil))
    assert best.device.dtype == "float32"
    assert all("differs too much" in str(trial) for trial in trials if trial.device.dtype == "bfloat16")


def test_all_members_must_agree(took):
    took["bfloat16", "contiguous", 1] = took["bfloat16", "channels_last", 1] = 0.001
    assert run(Network(), Network())[0].device.dtype == "bfloat16"
    assert run(Network(), Network(lambda logits: logits + 1))[0].device.dtype == "float32"


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("no kernel image")])
def test_what_cannot_run_is_not_taken(took, error):
    def fail(logits):
        raise error

    best, trials = run(Network(fail))
    assert best.device.dtype == "float32"
    found = "memory did not suffice" if isinstance(error, torch.OutOfMemoryError) else "no kernel image"
    assert [str(trial) for trial in trials if found in str(trial)] == [
        f"bfloat16, {layout}, batch 1: {found}" for layout in ("contiguous", "channels_last")
    ]


def test_a_device_that_is_wrong_in_float32_too_is_refused(monkeypatch):
    """As a card whose convolutions are faulty: the wanted logits are computed elsewhere, and are others."""
    wanted = selftest._logits
    calls = []

    def other(network, tiles):
        calls.append(1)
        return wanted(network, tiles) + (1 if len(calls) == 1 else 0)

    monkeypatch.setattr(selftest, "_logits", other)
    with pytest.raises(
        DeviceError, match=r"expected what the CPU computes, got float32, contiguous, batch 1: .* differs"
    ):
        run(Network())


def test_the_tile_is_where_the_scan_is():
    volume = np.zeros((40, 40, 40), np.uint8)
    volume[28:36, 28:36, 28:36] = noise((8, 8, 8)) | 1
    tile = selftest._cut(volume, TILE)
    assert np.count_nonzero(tile) > 0
    assert selftest._cut(noise((3, 20, 3)) | 1, TILE)[:3, :, :3].all()  # smaller than a tile: padded with zeros


def test_precisions_that_the_cpu_lacks_are_not_tried(monkeypatch):
    monkeypatch.setattr(selftest, "has_bfloat16", lambda: False)
    assert {trial.device.dtype for trial in run(Network())[1]} == {"float32"}
