from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from surface_train import settings
from surface_train.loop import counted
from surface_train.loop.counted import HalfConvolutions
from surface_train.settings import Optimiser, TrainingSettings

SETTINGS = Path(__file__).parents[3] / "train/settings"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "side", "batch", "gb"),
    [
        ("unet_resnet18", 128, 2, 2.6),
        ("resenc", 128, 2, 6.6),
        ("resenc", 192, 1, 10.4),
        ("resenc", 192, 2, 19.7),
    ],
)
def test_what_the_networks_take_that_people_train(name, side, batch, gb):
    chosen = settings.read(SETTINGS / f"{name}.toml")
    chosen = replace(chosen, patches=replace(chosen.patches, shape_zyx=(side,) * 3, batch=batch))
    assert counted.count(chosen).peak_gb == pytest.approx(gb, rel=0.05)


def test_the_peak_by_hand(monkeypatch):
    """Of two convolutions, 1 to 8 channels and back: bytes a voxel that are held for the way back, in the loss.

    float32          image 4, channels 32, logits 4
    half precision   image 2, channels 16, logits 2, and 4 of them converted for the loss
    """
    monkeypatch.setattr(counted, "build", lambda architecture: nn.Sequential(nn.Conv3d(1, 8, 1), nn.Conv3d(8, 1, 1)))
    half, float32 = TrainingSettings(), replace(TrainingSettings(), optimiser=Optimiser(precision="float32"))
    one, two = (counted.count(half, batch).peak_gb for batch in (1, 2))
    assert two == pytest.approx(2 * one, rel=1e-4)
    saved = (4 + 32 + 4) - (2 + 16 + 2 + 4)
    assert counted.count(float32, 1).peak_gb - one == pytest.approx(saved * 128**3 / 1e9, rel=1e-3)


def test_convolutions_alone_see_half_precision():
    images = torch.empty((1, 2, 8, 8, 8), device="meta")
    layers = nn.Sequential(nn.Conv3d(2, 3, 3, padding=1), nn.BatchNorm3d(3), nn.ConvTranspose3d(3, 1, 2, 2)).to("meta")
    with HalfConvolutions(enabled=True):
        seen = layers[0](images)
        normed = layers[1](seen)
        assert (seen.dtype, normed.dtype, layers[2](normed).dtype) == (torch.float16,) * 3
        assert (images + images).dtype == torch.float32
    with HalfConvolutions(enabled=False):
        assert layers[0](images).dtype == torch.float32


def test_the_lines_name_the_patch_and_every_batch(monkeypatch):
    monkeypatch.setattr(counted, "build", lambda architecture: nn.Conv3d(1, 1, 1))
    lines = counted.described(TrainingSettings()).splitlines()
    assert "counted, not measured: half precision" in lines[0]
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["128×128×128 × 1", "128×128×128 × 2"]
