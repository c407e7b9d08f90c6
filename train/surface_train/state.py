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

from surface_train.average import Average

FORMAT = "surface-training/1"


class StateError(ValueError):
    """A training state that cannot be continued from."""


@dataclass
class Progress:
    """How far a run has come. settings, split: digests, so that no other run is continued by mistake."""

    settings: str
    split: str
    epoch: int = 0
    averaged: int = 0
    best_surface_dice: float = -1.0
    best_epoch: int = 0
    scaler: dict[str, Any] = field(default_factory=dict)


def save(
    path: Path, progress: Progress, network: nn.Module, optimiser: torch.optim.Optimizer, average: Average
) -> None:
    """Write the state so that it appears complete under `path` or not at all."""
    progress.averaged = average.count
    tensors: dict[str, Tensor] = {f"network/{name}": tensor for name, tensor in network.state_dict().items()}
    tensors |= {f"average/{name}": tensor for name, tensor in average.mean.items()}
    for index, entries in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser/{index}/{name}": torch.as_tensor(value) for name, value in entries.items()}
    metadata = {"format": FORMAT, "progress": json.dumps(asdict(progress))}
    partial = path.with_name(path.name + ".partial")
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, partial, metadata)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load(
    path: Path, wanted: Progress, network: nn.Module, optimiser: torch.optim.Optimizer
) -> tuple[Progress, Average]:
    """Put network and optimiser back into a saved state.

    Raises StateError when there is none, or when it belongs to other settings or another split than `wanted`.
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
    return progress, Average(_under("average/", tensors), progress.averaged)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
