"""A small engine for simulated GPUs, and the loaders that worker processes import by this module's name."""

from dataclasses import dataclass

import numpy as np
import torch
from engines import METADATA
from masks import mask_settings
from torch import nn

from surface_kernel.inference.engine import Engine
from surface_kernel.inference.settings import Settings
from surface_kernel.networks import cost
from surface_kernel.networks.device import Device
from surface_kernel.networks.placing import choose

SETTINGS = Settings(mask=mask_settings(threshold=0.5))
GPU = Device(name="cuda", dtype="float16", batch=2, threads=1)
CPU = Device(name="cpu", dtype="float32", batch=2, threads=1)


def small_network(seed: int = 0) -> nn.Module:
    """Three convolutions and a BatchNorm; about 60 % of noise is surface to it, hardly a voxel of it narrowly."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv3d(1, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(), nn.Conv3d(4, 4, 3, padding=1), nn.Conv3d(4, 1, 1)
    ).eval()
    x = torch.randn(2, 1, 16, 16, 16)
    with torch.no_grad():
        logits = network(x)
        network[-1].weight *= 4 / logits.std()
        network[-1].bias -= network(x).quantile(0.4)
    return network.requires_grad_(False)


def small_engine(
    device: Device, *, members: int = 1, settings: Settings = SETTINGS, networks: list[nn.Module] | None = None
) -> Engine:
    """An engine of small networks and tiles of 32³."""
    networks = networks or [small_network(seed) for seed in range(members)]
    costs = cost.of(networks[0], METADATA.tile_zyx)
    return Engine(networks, [METADATA] * len(networks), settings=settings, device=device, cost=costs)


@dataclass(frozen=True)
class LoadSmall:
    """Loads a `small_engine` into a worker."""

    members: int = 1
    settings: Settings = SETTINGS

    def __call__(self, device_name: str | None, threads: int | None) -> Engine:
        return small_engine(choose(device_name, threads), members=self.members, settings=self.settings)


def masks_and_sums(engine: Engine, volume: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Predict a volume: its mask, the sums of its logits, and what happened."""
    mask, sums = np.full(volume.shape, 7, np.uint8), np.full(volume.shape, np.nan, np.float32)
    told = engine.predict(volume, mask=mask, sums=sums)
    return mask, sums, told.incidents


HALF_PRECISION = 0.03  # |Δ logit| of a small network in float16; its logits' deviation is 4


def assert_same_surface(mask: np.ndarray, sums: np.ndarray, expected_sums: np.ndarray, passes: int = 1) -> None:
    """Half precision may turn only voxels whose logit lies within its error of the threshold's, 0."""
    error = HALF_PRECISION * passes
    assert np.abs(sums - expected_sums).max() < error
    differ = mask != (expected_sums > 0)
    assert np.abs(expected_sums[differ]).max(initial=0) < error
