"""The parts of a training, made from what a person asked for and put together."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from surface_kernel.networks import weights
from surface_kernel.networks.device import Device
from surface_kernel.networks.network import build, restore
from surface_train.checks.validate import THRESHOLDS, Predicted, Validated
from surface_train.data.folds import Split
from surface_train.data.patches import Sampler
from surface_train.data.store import Store
from surface_train.distributed import Group
from surface_train.loop.budget import Timings
from surface_train.loop.state import TrainingProgress
from surface_train.loop.step import Stepper
from surface_train.loop.training import Training
from surface_train.loop.validation import Validator
from surface_train.loop.writing import RunWriter
from surface_train.losses.terms import label_maps
from surface_train.records.environment import origin
from surface_train.records.run_folder import RunFolder
from surface_train.settings import TrainingSettings


@dataclass(frozen=True, kw_only=True)
class TrainingParts:
    """Everything that a training consists of."""

    settings: TrainingSettings
    split: Split
    device: Device
    group: Group
    stepper: Stepper
    """Moves the weights."""
    sampler: Sampler
    """Cuts the patches that the weights learn from."""
    training: Training
    """The step loop."""
    validator: Validator
    writer: RunWriter
    timings: Timings

    def validate(self, network: nn.Module, name: str) -> tuple[Validated, list[Predicted]]:
        """Validate a network and draw its first case; see `Validator.validate`."""
        with self.timings.validation():
            result, predicted = self.validator.validate(network, name)
            self.writer.draw(predicted, result.threshold, name)
        return result, predicted


def assemble(
    *,
    settings: TrainingSettings,
    split: Split,
    folder: RunFolder,
    device: Device,
    group: Group,
    init: Path | None,
    planned: bool = False,
) -> TrainingParts:
    """Make the parts of a new run; nothing is written yet.

    Args:
        settings: the run's.
        split: its cases.
        folder: where it will write.
        device: where it computes.
        group: the processes that it consists of.
        init: a weights file to initialise from.
        planned: whether the settings were laid out for this run; else they are as their file has them.

    Raises:
        ValueError: when the weights of `init` are of another architecture; and what `weights.load` raises.
    """
    torch.manual_seed(settings.seed)  # for the first weights; steps and patches draw from seeds of their own
    timings = Timings(thresholds=len(THRESHOLDS), batchnorm_steps=settings.average.batchnorm_steps)
    stepper = Stepper(_initial(settings, init), settings=settings, device=device, group=group)
    store, maps = Store(split.training, settings), label_maps(settings.loss)
    sampler = Sampler(store, settings, maps=maps, rank=group.rank, ranks=group.size)
    parent = origin(init)
    progress = TrainingProgress(
        settings=settings.digest,
        split=split.digest,
        averaging_from=settings.average.start_epoch,
        planned_steps=settings.epochs * settings.steps_per_epoch if planned else 0,
        planned_every=settings.validation.every_epochs if planned else 0,
        init=parent["sha256"] if parent else "",
    )
    return TrainingParts(
        settings=settings,
        split=split,
        device=device,
        group=group,
        stepper=stepper,
        sampler=sampler,
        training=Training(
            settings=settings, stepper=stepper, sampler=sampler, group=group, timings=timings, progress=progress
        ),
        validator=Validator(settings=settings, fold=split.validation, device=device, group=group, timings=timings),
        writer=RunWriter(folder=folder, settings=settings, split=split, group=group),
        timings=timings,
    )


def _initial(settings: TrainingSettings, init: Path | None) -> nn.Module:
    if init is None:
        return build(settings.network)
    metadata, tensors = weights.load(init)
    if metadata.architecture != settings.network:
        raise ValueError(f"{init}: expected {settings.network} as in the settings, got {metadata.architecture}")
    return restore(metadata.architecture, tensors).requires_grad_(True)
