"""A training's state on disk: everything the next step depends on, in one safetensors file. No pickle."""

import errno
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from surface_kernel import disk
from surface_train.loop.average import WeightAverage

FORMAT = "surface-training/2"


class StateError(ValueError):
    """A training state that cannot be resumed from."""


@dataclass(frozen=True, kw_only=True)
class TrainingProgress:
    """How far a run has come. The names are those in the state's metadata."""

    settings: str
    """Digest of the settings: a state of other settings is refused."""
    split: str
    """Digest of the split: a state of another fold is refused."""
    averaging_from: int
    """The epoch in which averaging begins, or began; counted from 1."""
    step: int = 0
    """Steps done in the whole run. The epoch may be half done: then the state's `totals` hold its sums so far."""
    epoch: int = 0
    """Epochs done."""
    averaged: int = 0
    """States in the average when this was saved."""
    best_score: float = -1.0
    """The best validation's score."""
    best_epoch: int = 0
    """The epoch of the best validation, 0 before the first."""
    stale: int = 0
    """Consecutive validations without a new best."""
    plateau: int = 0
    """The same, counted from the last drop of the learning rate."""
    drops: int = 0
    """Times that a plateau lowered the learning rate."""
    strikes: int = 0
    """Consecutive validations past one of the sentinel's limits."""
    skipped: int = 0
    """Steps of the epoch that is half done that were skipped: they count in no mean."""
    skipped_in_a_row: int = 0
    """Skipped steps since the last one that was made."""
    planned_steps: int = 0
    """All steps of the run where they were laid out for it, by --plan-s or --steps; 0: as many as the settings say."""
    planned_every: int = 0
    """Epochs from one validation to the next, likewise."""
    init: str = ""
    """sha256 of the weights file that the run was initialised from; empty without one."""
    trained: dict[str, Any] = field(default_factory=dict)
    """The first columns of an epoch's row that was trained and is still to be validated; empty at other times."""
    scaler: dict[str, Any] = field(default_factory=dict)
    """State of the gradient scaler; empty where the precision needs none."""


def save(
    path: Path,
    *,
    progress: TrainingProgress,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    average: WeightAverage,
    totals: Tensor,
) -> None:
    """Write a state that appears complete under `path` or not at all.

    Args:
        path: the file, replaced.
        progress: written with the average's count.
        network: the weights of the latest step.
        optimiser: its moments and counts; its settings come from the run's settings.
        average: the averaged weights so far.
        totals: sums of the epoch's values so far, float64.
    """
    tensors: dict[str, Tensor] = {f"network/{name}": tensor for name, tensor in network.state_dict().items()}
    tensors |= {f"average/{name}": tensor for name, tensor in average.mean.items()}
    for index, entries in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser/{index}/{name}": torch.as_tensor(value) for name, value in entries.items()}
    tensors["totals"] = totals
    entries = asdict(progress) | {"averaged": average.count}
    if not progress.trained:  # as states were before there was such an entry
        del entries["trained"]
    metadata = {"format": FORMAT, "progress": json.dumps(entries)}
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    size_bytes = sum(tensor.nbytes for tensor in plain.values())
    with disk.replacing(path, size_bytes) as partial:  # a large state is streamed, not first made in memory
        try:
            save_file(plain, partial, metadata)
        except safetensors.SafetensorError as error:  # the library's own kind, with the system's number in its text
            number = re.search(r"os error (\d+)", str(error))
            code = int(number[1]) if number else errno.EIO
            raise OSError(code, os.strerror(code)) from error


def load(
    path: Path, *, expected: TrainingProgress, network: nn.Module, optimiser: torch.optim.Optimizer, decay: float | None
) -> tuple[TrainingProgress, WeightAverage, Tensor]:
    """Read a state: put network and optimiser back into it, and return the rest.

    Args:
        path: the file.
        expected: the progress of a new run, whose digests the state must have.
        network: overwritten; it is left alone when the state is refused.
        optimiser: overwritten, its learning rate aside.
        decay: of the average, as in `WeightAverage`.

    Returns:
        The progress, the average, and the sums of the epoch that is half done, float64 on the CPU.

    Raises:
        StateError: when there is no state, or it belongs to other settings or another split.
    """
    metadata, tensors = _read(path)
    progress = TrainingProgress(**json.loads(metadata["progress"]))
    for name in ("settings", "split"):
        got, own = getattr(progress, name), getattr(expected, name)
        if got != own:
            raise StateError(
                f"{path}: expected the state of a run with this {name} ({own:.12}…), got {name} {got:.12}…; "
                "resume with what the run began with, or start a new run in another folder"
            )
    network.load_state_dict(_under("network/", tensors))
    entries: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _under("optimiser/", tensors).items():
        index, _, key = name.partition("/")
        entries.setdefault(int(index), {})[key] = tensor
    optimiser.load_state_dict({"state": entries, "param_groups": optimiser.state_dict()["param_groups"]})
    _lay_out(optimiser)
    place = next(network.parameters()).device
    mean = {name: tensor.to(place) for name, tensor in _under("average/", tensors).items()}
    return progress, WeightAverage(decay, mean=mean, count=progress.averaged), tensors["totals"]


def _lay_out(optimiser: torch.optim.Optimizer) -> None:
    """Lay moments out in memory as their parameters are, which a file does not keep."""
    for parameter, entries in optimiser.state.items():
        for name, value in entries.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                entries[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def planned(path: Path) -> tuple[int, int]:
    """Return `planned_steps` and `planned_every` of a state, without its tensors. Raises StateError."""
    try:
        with safetensors.safe_open(path, framework="pt") as opened:
            progress = json.loads((opened.metadata() or {})["progress"])
        return int(progress.get("planned_steps", 0)), int(progress.get("planned_every", 0))
    except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
        raise StateError(f"{path}: expected a training state ({FORMAT}), got no readable one: {error}") from error


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safetensors.safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118, it is no mapping
    except (OSError, safetensors.SafetensorError) as error:
        raise StateError(f"{path}: expected a training state ({FORMAT}), got no readable one: {error}") from error
    if metadata.get("format") != FORMAT:
        raise StateError(f"{path}: expected a training state ({FORMAT}), got format {metadata.get('format')}")
    return metadata, tensors


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
