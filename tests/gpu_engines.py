"""A small engine for simulated GPUs, and the loaders that worker processes import by this module's name."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from engines import METADATA
from masks import mask_settings
from torch import nn

from surface_kernel.inference.engine import Engine
from surface_kernel.inference.settings import Settings
from surface_kernel.networks.cost import Cost
from surface_kernel.networks.device import Device, DeviceRequest
from surface_kernel.networks.placing import choose
from surface_kernel.runs.messages import Done, Load, Ready, Unit
from surface_kernel.runs.pipeline import Pipeline, UnitHandler
from surface_kernel.volumes.image_files import write_lzw

SETTINGS = Settings(mask=mask_settings(threshold=0.5))
GPU = Device(name="cuda", dtype="float16", batch=2, threads=1)
COST = Cost(flop=1_000, activation_bytes=40, elements=4)  # roughly a small network's
CPU = Device(name="cpu", dtype="float32", batch=2, threads=1)


def small_network(seed: int = 0, *, pointwise: bool = False) -> nn.Module:
    """Three convolutions and a BatchNorm; about 60 % of noise is surface to it, hardly a voxel of it narrowly.

    pointwise: whether it looks at a voxel alone, so that tiles of any size give the same logits.
    """
    torch.manual_seed(seed)
    size = 1 if pointwise else 3
    network = nn.Sequential(
        nn.Conv3d(1, 4, size, padding="same"),
        nn.BatchNorm3d(4),
        nn.ReLU(),
        nn.Conv3d(4, 4, size, padding="same"),
        nn.Conv3d(4, 1, 1),
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
    return Engine(networks, [METADATA] * len(networks), settings=settings, device=device, cost=COST)


@dataclass(frozen=True)
class LoadSmall:
    """Loads a `small_engine` into a worker."""

    members: int = 1
    settings: Settings = SETTINGS
    tile_voxels: int = 0
    pointwise: bool = False

    def __call__(self, device_name: str | None, threads: int | None) -> Engine:
        device = replace(choose(device_name, threads), tile_voxels=self.tile_voxels)
        networks = [small_network(seed, pointwise=self.pointwise) for seed in range(self.members)]
        return small_engine(device, networks=networks, settings=self.settings)


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


class Tried(UnitHandler[Done]):
    """Hands out units, those that may pass once more, and remembers what it hears."""

    def __init__(self, units: list[Unit]) -> None:
        self.left, self.again = deque(units), set[str]()
        self.ready: list[Ready] = []
        self.trouble: list[str] = []
        self.workers: list[int] = []

    def next_unit(self, queued: Sequence[Unit]) -> Unit | None:
        return self.left.popleft() if self.left else None

    def on_done(self, done: Done) -> bool:
        if not done.again or done.unit.case in self.again:
            return True
        self.again.add(done.unit.case)
        self.left.append(done.unit)
        return False

    def finish(self, done: Done) -> Done:
        return done

    def may_continue(self) -> bool:
        return True

    def on_workers(self, count: int) -> None:
        self.workers.append(count)

    def on_ready(self, ready: Ready) -> None:
        self.ready.append(ready)

    def on_trouble(self, line: str) -> None:
        self.trouble.append(line)


@dataclass(frozen=True, kw_only=True)
class PipelineRun:
    """What became of some volumes, by their names."""

    done: dict[str, Done]
    handler: Tried

    @property
    def errors(self) -> dict[str, str]:
        return {name: done.error for name, done in self.done.items() if done.error}

    @property
    def incidents(self) -> list[str]:
        return [incident for done in self.done.values() for incident in done.incidents]

    @property
    def device(self) -> str:
        return self.handler.ready[-1].device.name

    @property
    def said(self) -> str:
        """What a report would tell of the device."""
        return "\n".join([*self.handler.trouble, *(line for ready in self.handler.ready for line in ready.trials)])


def through_workers(
    folder: Path,
    volumes: dict[str, np.ndarray],
    *,
    load: Load | None = None,
    request: DeviceRequest | None = None,
    stages: tuple[int, ...] | None = None,
) -> PipelineRun:
    """Predict volumes through worker processes; masks and sums of the stages lie in the folder as .raw and .sum."""
    units = []
    for name, voxels in volumes.items():
        write_lzw(folder / f"{name}.tif", voxels)
        files = {"mask": folder / f"{name}.raw", "sums": folder / f"{name}.sum"}
        unit = Unit(case=name, path=folder / f"{name}.tif", shape_zyx=voxels.shape, stages=stages, **files)
        units.append(unit)
    handler = Tried(units)
    with Pipeline(load or LoadSmall(), handler, device=request, threads=1) as pipeline:
        return PipelineRun(done={done.unit.case: done for done in pipeline.run()}, handler=handler)


def assert_right(
    folder: Path,
    volumes: dict[str, np.ndarray],
    *,
    members: int = 1,
    pointwise: bool = False,
    settings: Settings = SETTINGS,
) -> None:
    """Every volume's mask is the CPU's, within half precision."""
    networks = [small_network(seed, pointwise=pointwise) for seed in range(members)]
    with small_engine(CPU, networks=networks, settings=settings) as engine:
        for name, voxels in volumes.items():
            _, expected, _ = masks_and_sums(engine, voxels)
            mask = np.fromfile(folder / f"{name}.raw", np.uint8).reshape(voxels.shape)
            sums = np.fromfile(folder / f"{name}.sum", np.float32).reshape(voxels.shape)
            assert_same_surface(mask, sums, expected, passes=sum(map(len, engine.stages)))
