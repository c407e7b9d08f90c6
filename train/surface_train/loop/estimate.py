"""What a training will take, measured on a few of its own steps before hours are spent."""

import resource
import time
from dataclasses import dataclass

import numpy as np
import torch

from surface_kernel.inference.forward import Member
from surface_kernel.inference.predict import slabs
from surface_kernel.inference.tiles import Grid
from surface_kernel.volumes import volume
from surface_train.loop.run import Run

_STEPS = 3  # after a first one, in which libraries choose and compile


@dataclass(frozen=True)
class Estimate:
    """Seconds and gigabytes of one process; the score of the volumes' masks is not in it."""

    parameters: int
    patches_s: float
    step_s: float
    volume_s: float
    epochs: int
    epoch_s: float
    peak_gb: float
    peak_of: str

    @property
    def total_s(self) -> float:
        """Give the whole training's time."""
        return self.epochs * self.epoch_s

    @property
    def text(self) -> str:
        """Say it to a person."""
        lines = [
            f"network: {self.parameters / 1e6:.1f} M parameters",
            f"step: {self.step_s:.2f} s, and {self.patches_s:.2f} s to prepare its patches, which goes on beside it",
            f"validation: {self.volume_s:.1f} s a volume, without its score",
            f"epoch: {_duration(self.epoch_s)}; {self.epochs} epochs: {_duration(self.total_s)}",
            f"memory: {self.peak_gb:.1f} GB of the {self.peak_of}, at most, so far",
        ]
        return "\n".join(lines)


def estimate(run: Run) -> Estimate:
    """Run a few steps and a tile batch of a training that was just made; its weights move, so throw it away after."""
    settings = run.settings
    accumulate = settings.optimiser.accumulate
    started_s = time.monotonic()
    batches = list(run.sampler.batches(0, (_STEPS + 1) * accumulate))
    patches_s = (time.monotonic() - started_s) / (_STEPS + 1)
    run.stepper.step(batches[:accumulate], 1e-9)
    started_s = _now_s(run)
    for first in range(accumulate, len(batches), accumulate):
        run.stepper.step(batches[first : first + accumulate], 1e-9)
    step_s = (_now_s(run) - started_s) / _STEPS
    volume_s = _volume_s(run) if run.checked else 0.0
    validations = len(run.checked) / run.group.size / settings.validation.every_epochs
    epoch_s = settings.steps_per_epoch * max(step_s, patches_s) + validations * volume_s
    peak_gb, peak_of = _peak_gb(run)
    parameters = sum(parameter.numel() for parameter in run.network.parameters())
    return Estimate(parameters, patches_s, step_s, volume_s, settings.epochs, epoch_s, peak_gb, peak_of)


def _volume_s(run: Run) -> float:
    """Time one layer of tiles of a volume, and scale it to the mean of the volumes that are checked."""
    settings, tile_zyx = run.settings, run.settings.patches.shape_zyx
    shapes = [volume.read_header(case.image).shape_zyx for case in run.checked]
    counts = [Grid(shape, tile_zyx, settings.overlap).tiles for shape in shapes]
    row = (tile_zyx[0], tile_zyx[1], tile_zyx[2] * 2)
    grid = Grid(row, tile_zyx, settings.overlap)
    grey = np.random.default_rng(0).integers(1, 256, row, np.uint8)
    member = Member(run.network.eval(), settings.intensity)
    list(slabs([member], grey, grid=grid, device=run.device))  # compiles and warms up
    started_s = _now_s(run)
    list(slabs([member], grey, grid=grid, device=run.device))
    return (_now_s(run) - started_s) / grid.tiles * float(np.mean(counts))


def _now_s(run: Run) -> float:
    """Give the time at which all that was asked of the device is done."""
    if run.device.name.startswith("cuda"):
        torch.cuda.synchronize(run.device.name)
    return time.monotonic()


def _peak_gb(run: Run) -> tuple[float, str]:
    if run.device.name.startswith("cuda"):
        return torch.cuda.max_memory_reserved(run.device.name) / 1e9, "GPU"
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, "process"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"
