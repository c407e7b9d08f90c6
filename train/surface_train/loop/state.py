"""A training's state on disk: everything the next step depends on, in one safetensors file. No pickle."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from surface_train.loop.average import Average

FORMAT = "surface-training/2"


class StateError(ValueError):
    """A training state that cannot be continued from."""


@dataclass
class Progress:
    """How far a run has come. settings, split: digests, so that no other run is continued by mistake.

    step: of the whole run; the epoch that it lies in may be half done, and then `totals` in the state holds that
    epoch's sums. averaging_from: the epoch in which averaging begins, or began. stale, plateau: validations in a row
    that were not better, for the patience and since the last drop of the learning rate. strikes: the sentinel's.
    init: sha256 of the weights file that the run began with, empty where it began with none.
    """

    settings: str
    split: str
    averaging_from: int
    step: int = 0
    epoch: int = 0
    averaged: int = 0
    best_score: float = -1.0
    best_epoch: int = 0
    stale: int = 0
    plateau: int = 0
    drops: int = 0
    strikes: int = 0
    init: str = ""
    scaler: dict[str, Any] = field(default_factory=dict)


def save(
    path: Path,
    progress: Progress,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    average: Average,
    totals: Tensor,
) -> None:
    """Write the state so that it appears complete under `path` or not at all. totals: of the epoch so far, float64."""
    progress.averaged = average.count
    tensors: dict[str, Tensor] = {f"network/{name}": tensor for name, tensor in network.state_dict().items()}
    tensors |= {f"average/{name}": tensor for name, tensor in average.mean.items()}
    for index, entries in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser/{index}/{name}": torch.as_tensor(value) for name, value in entries.items()}
    tensors["totals"] = totals
    metadata = {"format": FORMAT, "progress": json.dumps(asdict(progress))}
    partial = path.with_name(path.name + ".partial")
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, partial, metadata)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load(
    path: Path, wanted: Progress, network: nn.Module, optimiser: torch.optim.Optimizer, decay: float | None
) -> tuple[Progress, Average, Tensor]:
    """Put network and optimiser back into a saved state; give the rest of it.

    decay: of the average, see there. Raises StateError when there is no state, or when it belongs to other settings
    or another split than `wanted`.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118, it is no mapping
    except (OSError, safetensors.SafetensorError) as error:
        raise StateError(f"{path}: found no readable training state ({error}), wanted one to resume from") from error
    if metadata.get("format") != FORMAT:
        raise StateError(f"{path}: found format {metadata.get('format')}, wanted {FORMAT}")
    progress = Progress(**json.loads(metadata["progress"]))
    for name in ("settings", "split"):
        found, own = getattr(progress, name), getattr(wanted, name)
        if found != own:
            raise StateError(f"{path}: found a run of other {name} ({found:.12}…), wanted this run's ({own:.12}…)")
    network.load_state_dict(_under("network/", tensors))
    entries: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _under("optimiser/", tensors).items():
        index, _, key = name.partition("/")
        entries.setdefault(int(index), {})[key] = tensor
    optimiser.load_state_dict({"state": entries, "param_groups": optimiser.state_dict()["param_groups"]})
    place = next(network.parameters()).device
    mean = {name: tensor.to(place) for name, tensor in _under("average/", tensors).items()}
    return progress, Average(decay, mean, progress.averaged), tensors["totals"]


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
