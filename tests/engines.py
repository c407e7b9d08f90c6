"""Engines that worker processes can load: small networks that do what a test wants of them.

A worker imports this module by its name, so what is here must not lie in a test's own file.
"""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from broken_disk import BrokenDisk
from torch import nn

from surface_kernel.inference.engine import Engine
from surface_kernel.inference.settings import Settings
from surface_kernel.networks.architecture import Architecture
from surface_kernel.networks.cost import Cost
from surface_kernel.networks.device import Device
from surface_kernel.networks.weights import Metadata
from surface_kernel.volumes.intensity import Intensity

TOLD = Metadata(Architecture("Linknet", "efficientnet-b0"), Intensity(), (32, 32, 32), overlap=0.25)
DUSTY = Settings(threshold=0.5, dust_voxels=0)
CPU = Device(name="cpu", dtype="float32", batch=2, threads=1, layout="contiguous")


def marked(shape_zyx, seed=0):
    """Makes a volume that `Marked` networks tell from noise: hardly any spread, and one bright voxel in the middle."""
    volume = np.random.default_rng(seed).integers(100, 102, shape_zyx, dtype=np.uint8)
    volume[tuple(size // 2 for size in shape_zyx)] = 255
    return volume


class Marked(nn.Module):
    """An identity that does something when it sees a marked volume."""

    def __init__(self, deed):
        super().__init__()
        self.deed = deed

    def forward(self, tiles):
        if float(tiles.max()) > 4.9:
            DEEDS[self.deed]()
        return tiles


def _fail():
    raise RuntimeError("the network\nfailed")


def _die():
    os.kill(os.getpid(), signal.SIGKILL)


def _run_out():
    raise torch.OutOfMemoryError("CUDA out of memory")


def _hang():
    time.sleep(1000)


DEEDS = {"fail": _fail, "die": _die, "run out": _run_out, "hang": _hang, "nothing": lambda: None}


class Slanted(nn.Module):
    """Adds a slope along every axis to what it sees: each view of a volume has another mask."""

    def forward(self, tiles):
        slopes = [torch.linspace(-step, step, size) for step, size in zip((1, 2, 3), tiles.shape[2:], strict=True)]
        return tiles + slopes[0][:, None, None] + slopes[1][:, None] + slopes[2]


@dataclass(frozen=True)
class LoadSlanted:
    """Loads an engine of a `Slanted` network."""

    files: tuple[Path, ...]
    settings: Settings

    def __call__(self, device_name, threads):
        return Engine([Slanted()], [TOLD], settings=self.settings, device=CPU, cost=Cost(1, 1, 1))


class Sleeping(nn.Module):
    """Stands for an accelerator: it takes its time, and none of the CPU's."""

    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds

    def forward(self, tiles):
        time.sleep(self.seconds * len(tiles))
        return tiles


@dataclass(frozen=True)
class LoadMarked:
    """Loads an engine whose network does `deed` on marked volumes. loads: a folder that counts the loads."""

    deed: str = "nothing"
    loads: Path | None = None
    settings: Settings = DUSTY

    def __call__(self, device_name, threads):
        if self.loads:
            (self.loads / str(os.getpid())).touch()
        if self.deed == "never load":
            raise ValueError("the weights\nare bad")
        if self.deed == "die at once":
            _die()
        return Engine([Marked(self.deed)], [TOLD], settings=self.settings, device=CPU, cost=Cost(1, 1, 1))


@dataclass(frozen=True)
class LoadFiles:
    """Loads weights files as the kernel does, and lets their network do `deed` on marked volumes too."""

    files: tuple[Path, ...]
    settings: Settings
    deed: str = "fail"

    def __call__(self, device_name, threads):
        engine = Engine.load(self.files, self.settings, device_name=device_name, threads=threads)
        networks = [nn.Sequential(Marked(self.deed), network) for network in engine.networks]
        engine.close()
        return Engine(networks, engine.metadata, settings=self.settings, device=engine.device, cost=engine.cost)


@dataclass(frozen=True)
class LoadOnBrokenDisk:
    """Loads an engine into a worker whose n-th change below a folder goes wrong; it leaves their number in `count`."""

    folder: Path
    nth: int
    kind: str
    count: Path
    settings: Settings

    def __call__(self, device_name, threads):
        broken = BrokenDisk(self.folder, self.nth, self.kind)
        broken.__enter__()  # for as long as the worker lives
        count = os.open(self.count, os.O_CREAT | os.O_WRONLY)
        change = broken.change

        def counted():
            os.pwrite(count, f"{broken.seen + 1:6}".encode(), 0)
            return change()

        broken.change = counted
        return Engine([Marked("nothing")], [TOLD], settings=self.settings, device=CPU, cost=Cost(1, 1, 1))


class Short(nn.Module):
    """Runs out of memory at the n-th call, and the `more` after it."""

    def __init__(self, network, nth, more=0, error=torch.OutOfMemoryError):
        super().__init__()
        self.network, self.calls = network, 0
        self.fail = range(nth, nth + 1 + more)
        self.error = error

    def forward(self, tiles):
        self.calls += 1
        if self.calls in self.fail:
            raise self.error("CUDA out of memory")
        return self.network(tiles)

    def __deepcopy__(self, memo):
        return self  # every place that it is put to counts the same calls


@dataclass(frozen=True)
class LoadShort:
    """Loads an identity that runs out of memory at the n-th call of a worker and the `more` after it."""

    nth: int
    more: int
    settings: Settings

    def __call__(self, device_name, threads):
        return Engine(
            [Short(nn.Identity(), self.nth, self.more)], [TOLD], settings=self.settings, device=CPU, cost=Cost(1, 1, 1)
        )
