"""What only a GPU can show: it computes the same surface as the CPU does, within half precision."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scenes import noise
from torch import Tensor, nn

from surface_kernel.inference.engine import Engine
from surface_kernel.inference.forward import Member
from surface_kernel.inference.predict import Predictor
from surface_kernel.inference.settings import Settings
from surface_kernel.inference.tiles import Grid
from surface_kernel.inference.views import View
from surface_kernel.networks.device import Device
from surface_kernel.volumes.intensity import Intensity

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def test_a_gpu_agrees_with_the_cpu(weights_file: Path) -> None:
    volume = noise((40, 33, 50))
    probabilities = []
    for device in ("cpu", "cuda"):
        engine = Engine.load([weights_file], Settings(views=("none", "x")), device_name=device)
        logits = np.concatenate([slab for _, slab in engine.logits(volume)])
        probabilities.append(1 / (1 + np.exp(-logits.astype(np.float64))))
    assert np.abs(probabilities[0] - probabilities[1]).mean() < 0.005


def test_a_gpu_is_tested_and_predicts_the_same_mask_twice(weights_file: Path) -> None:
    volume, masks = noise((70, 65, 66)), []
    with Engine.load([weights_file], Settings(dust_voxels=0), device_name="cuda") as engine:
        trials = engine.tune(volume)
        assert engine.device.name == "cuda"
        assert {trial.device.dtype for trial in trials} >= {"float32", "float16"}
        for _ in range(2):  # the second time with buffers of the first
            masks.append(np.empty(volume.shape, np.uint8))
            assert engine.predict(volume, mask=masks[-1]).incidents == ()
    assert (masks[0] != masks[1]).mean() < 0.001
    assert 0.05 < masks[0].mean() < 0.95


class Spoilt(nn.Module):
    """An identity with one logit that is not finite in each batch, and no memory for more than two tiles."""

    def forward(self, tiles: Tensor) -> Tensor:
        if len(tiles) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        spoilt = tiles.clone()
        spoilt[-1, 0, 1, 2, 3] = float("nan")
        return spoilt


def test_on_a_gpu_too_memory_and_logits_are_mended() -> None:
    volume, grid = noise((40, 33, 50)), Grid((40, 33, 50), (16, 16, 16), 0.5)
    member = Member(Spoilt(), Intensity(), nn.Identity())
    with Predictor([member], Device(name="cuda", dtype="float32", batch=4, threads=2)) as predictor:
        found = np.concatenate([slab for _, slab in predictor.slabs(volume, grid=grid, passes=[(0, View())])])
        assert "memory did not suffice: 2 tiles at a time from here on" in predictor.incidents
        assert any("repeated in float32" in incident for incident in predictor.incidents)
    np.testing.assert_allclose(found, Intensity().table(volume)[volume], atol=1e-5)
