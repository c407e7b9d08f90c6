"""One file, one run: what a person decides about a training. TOML in, frozen and checked at the door."""

import dataclasses
import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from surface_kernel.architecture import Architecture, check_tile
from surface_kernel.intensity import Intensity


class SettingsError(ValueError):
    """Settings that cannot be meant; the message names the entry, what was found and what was wanted."""


def _require(sound: bool, entry: str, found: object, wanted: str) -> None:
    if not sound:
        raise SettingsError(f"{entry}: found {found}, wanted {wanted}")


@dataclass(frozen=True)
class Patches:
    """What a step sees. surface_share: of the patches, how many are centred on surface instead of background."""

    shape_zyx: tuple[int, int, int] = (128, 128, 128)
    batch: int = 2
    surface_share: float = 0.5
    cache_gb: float = 8.0
    workers: int = 4

    def __post_init__(self) -> None:
        check_tile(self.shape_zyx)
        _require(self.batch >= 1, "patches.batch", self.batch, "at least 1")
        _require(0 <= self.surface_share <= 1, "patches.surface_share", self.surface_share, "a share from 0 to 1")
        _require(self.cache_gb > 0, "patches.cache_gb", self.cache_gb, "gigabytes above 0")
        _require(self.workers >= 1, "patches.workers", self.workers, "at least 1 thread")


@dataclass(frozen=True)
class Augment:
    """How patches are varied. 0 switches a variation off.

    grey: the largest relative change of contrast, and the largest shift of the mean in standard deviations.
    noise: the largest standard deviation of added noise, in the same unit.
    """

    flips: bool = True
    turns: bool = True
    grey: float = 0.25
    noise: float = 0.1

    def __post_init__(self) -> None:
        _require(0 <= self.grey < 1, "augment.grey", self.grey, "a number from 0 to below 1")
        _require(self.noise >= 0, "augment.noise", self.noise, "0 or more")


@dataclass(frozen=True)
class LossWeights:
    """The weight of each term, and the terms' own numbers. The defaults are the rebalanced loss (see `loss`)."""

    dice_weight: float = 0.30
    focal_weight: float = 0.15
    boundary_weight: float = 0.15
    cldice_weight: float = 0.05
    connectivity_weight: float = 0.05
    variance_weight: float = 0.25
    entropy_weight: float = 0.05
    focal_background: float = 0.75
    focal_gamma: float = 2.0
    boundary_theta0: float = 3.0
    boundary_theta_voxels: float = 5.0
    cldice_iterations: int = 3
    entropy_target: float = 0.5

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            _require(value >= 0, f"loss.{name}", value, "0 or more")
        weighted = any(value > 0 for name, value in asdict(self).items() if name.endswith("_weight"))
        _require(weighted, "loss", "no weight above 0", "at least one term to learn from")
        _require(self.focal_background <= 1, "loss.focal_background", self.focal_background, "a share from 0 to 1")
        _require(self.boundary_theta_voxels > 0, "loss.boundary_theta_voxels", self.boundary_theta_voxels, "above 0")


@dataclass(frozen=True)
class Optimiser:
    """AdamW. learning_rate falls from its full value, reached after warmup_steps, along half a cosine."""

    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    warmup_steps: int = 100
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        _require(self.learning_rate > 0, "optimiser.learning_rate", self.learning_rate, "above 0")
        _require(self.weight_decay >= 0, "optimiser.weight_decay", self.weight_decay, "0 or more")
        _require(self.warmup_steps >= 0, "optimiser.warmup_steps", self.warmup_steps, "0 or more")
        _require(self.clip_norm > 0, "optimiser.clip_norm", self.clip_norm, "above 0")


@dataclass(frozen=True)
class Average:
    """Stochastic weight averaging: from epoch `start_epoch` on, one sample an epoch, at a constant learning rate."""

    start_epoch: int = 75
    learning_rate: float = 2e-4
    batchnorm_steps: int = 50

    def __post_init__(self) -> None:
        _require(self.start_epoch >= 1, "average.start_epoch", self.start_epoch, "an epoch from 1 on")
        _require(self.learning_rate > 0, "average.learning_rate", self.learning_rate, "above 0")
        _require(self.batchnorm_steps >= 1, "average.batchnorm_steps", self.batchnorm_steps, "at least 1")


@dataclass(frozen=True)
class Validation:
    """Whole volumes through the kernel's own prediction, every `every_epochs` and at the end."""

    every_epochs: int = 5
    cases: int = 4

    def __post_init__(self) -> None:
        _require(self.every_epochs >= 1, "validation.every_epochs", self.every_epochs, "at least 1")
        _require(self.cases >= 1, "validation.cases", self.cases, "at least 1")


@dataclass(frozen=True)
class Settings:
    """A whole run. folds: "scroll" puts no scroll on both sides, "case" deals the cases out one by one."""

    epochs: int = 100
    steps_per_epoch: int = 250
    seed: int = 0
    folds: Literal["scroll", "case"] = "scroll"
    fold_count: int = 4
    overlap: float = 0.5
    network: Architecture = field(default_factory=Architecture)
    intensity: Intensity = field(default_factory=Intensity)
    patches: Patches = field(default_factory=Patches)
    augment: Augment = field(default_factory=Augment)
    loss: LossWeights = field(default_factory=LossWeights)
    optimiser: Optimiser = field(default_factory=Optimiser)
    average: Average = field(default_factory=Average)
    validation: Validation = field(default_factory=Validation)

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, "epochs", self.epochs, "at least 1")
        _require(self.seed >= 0, "seed", self.seed, "0 or more")
        _require(self.steps_per_epoch >= 1, "steps_per_epoch", self.steps_per_epoch, "at least 1")
        _require(self.fold_count >= 2, "fold_count", self.fold_count, "at least 2")
        _require(0 <= self.overlap < 1, "overlap", self.overlap, "a share from 0 to below 1")
        _require(
            self.average.start_epoch <= self.epochs,
            "average.start_epoch",
            self.average.start_epoch,
            f"at most the {self.epochs} epochs of the run: weights are averaged from then on",
        )

    @property
    def digest(self) -> str:
        """Give a sha256 that changes when any entry does that the weights depend on; memory and threads may differ."""
        entries = asdict(self)
        for name in ("cache_gb", "workers"):
            del entries["patches"][name]
        return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()


def read(path: Path) -> Settings:
    """Read a settings file. Raises SettingsError, and what the parts raise, naming the file and the entry."""
    try:
        entries = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path}: found no readable TOML ({error}), wanted a settings file") from error
    try:
        made = _make(Settings, entries, "")
    except ValueError as error:
        raise SettingsError(f"{path}: {error}") from error
    assert isinstance(made, Settings)
    return made


def _make(kind: type, entries: Mapping[str, Any], place: str) -> Any:
    """Build a dataclass from a table, checking names and types on the way down."""
    hints = get_type_hints(kind)
    known = [field.name for field in dataclasses.fields(kind)]
    if unknown := sorted(set(entries) - set(known)):
        raise SettingsError(f"{place}{unknown[0]}: found an unknown entry, wanted one of {', '.join(known)}")
    return kind(**{name: _value(hints[name], value, place + name) for name, value in entries.items()})


def _value(wanted: Any, found: Any, place: str) -> Any:
    if dataclasses.is_dataclass(wanted) and isinstance(wanted, type):
        _require(isinstance(found, dict), place, found, "a table")
        return _make(wanted, found, place + ".")
    if get_origin(wanted) is Literal:
        _require(found in get_args(wanted), place, repr(found), " or ".join(map(repr, get_args(wanted))))
        return found
    if get_origin(wanted) is tuple:
        whole = isinstance(found, list) and all(type(item) is int for item in found)
        _require(whole and len(found) == len(get_args(wanted)), place, found, f"{len(get_args(wanted))} whole numbers")
        return tuple(found)
    if wanted is float and type(found) is int:
        return float(found)
    _require(
        type(found) is wanted, place, repr(found), {int: "a whole number", str: "a word"}.get(wanted, wanted.__name__)
    )
    return found
