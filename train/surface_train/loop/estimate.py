"""What a training takes on this machine: time and memory, measured on a few of its own steps and tiles."""

import resource
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from surface_kernel.inference.forward import Member
from surface_kernel.inference.predict import slabs
from surface_kernel.inference.tiles import Grid
from surface_kernel.networks.device import Device
from surface_kernel.volumes.header import read_header
from surface_score import score_case
from surface_train.checks import validate
from surface_train.checks.validate import THRESHOLDS, TRAINING_THRESHOLD
from surface_train.distributed import Group
from surface_train.loop.average import batchnorms
from surface_train.loop.parts import TrainingParts
from surface_train.loop.plan import Costs, Ending

_LEAST_STEPS = 3  # that are timed, after a first one, in which libraries choose and compile
_MOST_STEPS = 20
_STEPS_S = 4.0  # of steps that are timed, where the most are not reached: quick steps vary
_RATE = 1e-9  # the steps are to be timed, not to learn
_CURVES_S = 1.0  # log, curves and events of an epoch, on a slow core


@dataclass(frozen=True, kw_only=True)
class StepTimes:
    """Seconds of a step and of what is prepared beside it."""

    patches_s: float
    """To prepare one step's patches, by one thread."""
    step_s: float
    """To move the weights by them, other patches prepared meanwhile."""

    def each_s(self, workers: int) -> float:
        """Return the time from one step to the next, the patches prepared by so many threads."""
        return max(self.step_s, self.patches_s / workers)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Seconds and gigabytes of one process, the scoring of the validation's masks not included."""

    parameters: int
    patches_s: float
    """To prepare one step's patches by one thread; this runs beside the step."""
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
    times = time_steps(parts)
    cases = parts.validator.cases
    volume_s = time_volume(parts) if cases else 0.0
    volumes_per_epoch = len(cases) / parts.group.size / settings.validation.every_epochs
    peak_gb, peak_of = _peak_gb(device)
    return Estimate(
        parameters=sum(parameter.numel() for parameter in parts.stepper.network.parameters()),
        patches_s=times.patches_s,
        step_s=times.step_s,
        volume_s=volume_s,
        epochs=settings.epochs,
        epoch_s=settings.steps_per_epoch * times.each_s(settings.patches.workers) + volumes_per_epoch * volume_s,
        peak_gb=peak_gb,
        peak_of=peak_of,
    )


def time_steps(parts: TrainingParts) -> StepTimes:
    """Time a few steps of a new training as it makes them: the next patches are prepared beside them.

    Its weights move: throw it away after.
    """
    accumulate = parts.settings.optimiser.accumulate
    parts.sampler.batch(0)  # reads cases, and loads what is compiled: once a run, not once a step
    started_s = time.monotonic()
    for number in range(accumulate):
        parts.sampler.batch(number)
    patches_s = time.monotonic() - started_s
    with closing(parts.sampler.batches(0, (1 + _MOST_STEPS) * accumulate)) as batches:
        parts.stepper.step(list(islice(batches, accumulate)), _RATE)
        started_s, steps = now_s(parts.device), 0
        while steps < _LEAST_STEPS or (steps < _MOST_STEPS and time.monotonic() - started_s < _STEPS_S):
            parts.stepper.step(list(islice(batches, accumulate)), _RATE)
            steps += 1
        return StepTimes(patches_s=patches_s, step_s=(now_s(parts.device) - started_s) / steps)


def time_volume(parts: TrainingParts) -> float:
    """Return the seconds to predict a validation case of mean size: two tiles of a made-up volume, scaled to it."""
    settings, tile_zyx = parts.settings, parts.settings.patches.shape_zyx
    shapes = [read_header(case.image).shape_zyx for case in parts.validator.cases]
    counts = [Grid(shape, tile_zyx, settings.overlap).tiles for shape in shapes]
    row = (tile_zyx[0], tile_zyx[1], tile_zyx[2] * 2)
    grid = Grid(row, tile_zyx, settings.overlap)
    grey = np.random.default_rng(0).integers(1, 256, row, np.uint8)  # no zeros: they would be skipped
    member = Member(parts.stepper.network.eval(), settings.intensity)
    list(slabs([member], grey, grid=grid, device=parts.device))  # compiles and warms up
    started_s = now_s(parts.device)
    list(slabs([member], grey, grid=grid, device=parts.device))
    return (now_s(parts.device) - started_s) / grid.tiles * float(np.mean(counts))


def measure(parts: TrainingParts) -> Costs:
    """Time steps, a state, and the validation of one case, of a training that is thrown away after."""
    steps = time_steps(parts)
    volume_s = score_s = 0.0
    if parts.validator.cases:
        _compile_score()
        volume_s = time_volume(parts)
        started_s = now_s(parts.device)
        network, settings, case = parts.stepper.network, parts.settings, parts.validator.cases[:1]
        (predicted,) = validate.predict(network, case, settings=settings, device=parts.device, group=Group())
        volume_s = max(now_s(parts.device) - started_s, volume_s)
        started_s = time.monotonic()
        # Weights at their start may predict hardly anything, which is scored in no time: the truth is added to it.
        mask = predicted.mask(settings.mask.threshold or TRAINING_THRESHOLD) | (predicted.label == 1)
        score_case(mask, predicted.label)
        score_s = time.monotonic() - started_s
    return Costs(
        step_s=steps.each_s(parts.settings.patches.workers),
        volume_s=volume_s,
        score_s=score_s,
        epoch_s=_time_epoch(parts),
    )


def ending(parts: TrainingParts, *, save_logits: bool) -> Ending:
    """Return how a training is validated and how it ends, as one of its processes sees it."""
    settings, ranks = parts.settings, parts.group.size
    average = settings.average.batchnorm_steps if batchnorms(parts.stepper.network) else 0
    return Ending(
        cases=-(-len(parts.validator.cases) // ranks),
        fold=(fold := -(-len(parts.validator.fold) // ranks)),
        saved=fold if save_logits else 0,
        thresholds=len(THRESHOLDS) if settings.mask.threshold is None else 0,
        batchnorm_steps=average,
    )


def now_s(device: Device) -> float:
    """Return the time at which all that was asked of the device is done."""
    if device.is_gpu:
        torch.cuda.synchronize(device.name)
    return time.monotonic()


def _time_epoch(parts: TrainingParts) -> float:
    """Return the seconds of what ends an epoch: a state, and weights, which take about as long."""
    with tempfile.TemporaryDirectory() as folder:
        started_s = time.monotonic()
        parts.training.save(Path(folder) / "state.safetensors")
        return 2 * (time.monotonic() - started_s) + _CURVES_S


def _compile_score() -> None:
    """Compile the score, or load it from numba's cache: some seconds, once a machine."""
    label = np.zeros((8, 8, 8), np.uint8)
    label[2:5, 2:5, 2:5] = 1
    score_case(np.roll(label, 1, axis=0), label)


def _peak_gb(device: Device) -> tuple[float, str]:
    if device.is_gpu:
        return torch.cuda.max_memory_reserved(device.name) / 1e9, "GPU"
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, "process"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"
