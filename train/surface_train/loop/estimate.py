"""Expected time and memory of a training, measured on a few of its own steps before hours are spent."""

import resource
import time
from dataclasses import dataclass

import numpy as np
import torch

from surface_kernel.inference.forward import Member
from surface_kernel.inference.predict import slabs
from surface_kernel.inference.tiles import Grid
from surface_kernel.networks.device import Device
from surface_kernel.volumes.header import read_header
from surface_train.loop.parts import TrainingParts

_STEPS = 3  # after a first one, in which libraries choose and compile
_RATE = 1e-9  # the steps are to be timed, not to learn


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Seconds and gigabytes of one process, the scoring of the validation's masks not included."""

    parameters: int
    patches_s: float
    """To prepare one step's patches; this runs beside the step."""
    step_s: float
    volume_s: float
    """To predict a validation case of mean size."""
    epochs: int
    epoch_s: float
    peak_gb: float
    peak_of: str
    """Whose memory that is: "GPU" or "process"."""

    @property
    def total_s(self) -> float:
        """The whole training's time."""
        return self.epochs * self.epoch_s

    @property
    def text(self) -> str:
        """The estimate as lines for people."""
        lines = [
            f"network: {self.parameters / 1e6:.1f} M parameters",
            f"step: {self.step_s:.2f} s; its patches: {self.patches_s:.2f} s, prepared in parallel",
            f"validation: {self.volume_s:.1f} s per volume, without scoring",
            f"epoch: {_duration(self.epoch_s)}; {self.epochs} epochs: {_duration(self.total_s)}",
            f"memory: {self.peak_gb:.1f} GB peak of the {self.peak_of} so far",
        ]
        return "\n".join(lines)


def estimate(parts: TrainingParts) -> Estimate:
    """Time a few steps and one batch of tiles of a new training. Its weights move: throw it away after."""
    settings, device = parts.settings, parts.device
    accumulate = settings.optimiser.accumulate
    started_s = time.monotonic()
    batches = list(parts.sampler.batches(0, (_STEPS + 1) * accumulate))
    patches_s = (time.monotonic() - started_s) / (_STEPS + 1)
    parts.stepper.step(batches[:accumulate], _RATE)
    started_s = _now_s(device)
    for first in range(accumulate, len(batches), accumulate):
        parts.stepper.step(batches[first : first + accumulate], _RATE)
    step_s = (_now_s(device) - started_s) / _STEPS
    cases = parts.validator.cases
    volume_s = _volume_s(parts) if cases else 0.0
    volumes_per_epoch = len(cases) / parts.group.size / settings.validation.every_epochs
    peak_gb, peak_of = _peak_gb(device)
    return Estimate(
        parameters=sum(parameter.numel() for parameter in parts.stepper.network.parameters()),
        patches_s=patches_s,
        step_s=step_s,
        volume_s=volume_s,
        epochs=settings.epochs,
        epoch_s=settings.steps_per_epoch * max(step_s, patches_s) + volumes_per_epoch * volume_s,
        peak_gb=peak_gb,
        peak_of=peak_of,
    )


def _volume_s(parts: TrainingParts) -> float:
    """Time two tiles of a made-up volume, and scale that to the mean validation case."""
    settings, tile_zyx = parts.settings, parts.settings.patches.shape_zyx
    shapes = [read_header(case.image).shape_zyx for case in parts.validator.cases]
    counts = [Grid(shape, tile_zyx, settings.overlap).tiles for shape in shapes]
    row = (tile_zyx[0], tile_zyx[1], tile_zyx[2] * 2)
    grid = Grid(row, tile_zyx, settings.overlap)
    grey = np.random.default_rng(0).integers(1, 256, row, np.uint8)  # no zeros: they would be skipped
    member = Member(parts.stepper.network.eval(), settings.intensity)
    list(slabs([member], grey, grid=grid, device=parts.device))  # compiles and warms up
    started_s = _now_s(parts.device)
    list(slabs([member], grey, grid=grid, device=parts.device))
    return (_now_s(parts.device) - started_s) / grid.tiles * float(np.mean(counts))


def _now_s(device: Device) -> float:
    """Return the time at which all that was asked of the device is done."""
    if device.is_gpu:
        torch.cuda.synchronize(device.name)
    return time.monotonic()


def _peak_gb(device: Device) -> tuple[float, str]:
    if device.is_gpu:
        return torch.cuda.max_memory_reserved(device.name) / 1e9, "GPU"
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, "process"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"
