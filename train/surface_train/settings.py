"""One file, one run: what a person decides about a training. TOML in, frozen and checked at the door."""

import dataclasses
import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from surface_kernel.networks.architecture import Architecture, check_tile
from surface_kernel.runs.report import LEAST_VARIANCE, UNIFORM_SHARES
from surface_kernel.volumes.intensity import Intensity
from surface_train.loss_weights import LossWeights


class SettingsError(ValueError):
    """Settings that cannot be meant; the message names the entry, what was found and what was wanted."""


def _require(sound: bool, entry: str, found: object, wanted: str) -> None:
    if not sound:
        raise SettingsError(f"{entry}: found {found}, wanted {wanted}")


@dataclass(frozen=True)
class Patches:
    """What a step sees.

    surface_share: of the patches, how many are centred on surface instead of background. resident: volumes that
    patches are cut from at a time; patches_per_volume: how many, on average, before one of them makes room for the
    next. Neither may change within a run. cache_gb and workers, which may, are of one process.
    """

    shape_zyx: tuple[int, int, int] = (128, 128, 128)
    batch: int = 2
    surface_share: float = 0.5
    resident: int = 96
    patches_per_volume: int = 8
    cache_gb: float = 8.0
    workers: int = 4

    def __post_init__(self) -> None:
        check_tile(self.shape_zyx)
        _require(self.batch >= 1, "patches.batch", self.batch, "at least 1")
        _require(0 <= self.surface_share <= 1, "patches.surface_share", self.surface_share, "a share from 0 to 1")
        _require(self.resident >= 1, "patches.resident", self.resident, "at least 1 volume")
        _require(self.patches_per_volume >= 1, "patches.patches_per_volume", self.patches_per_volume, "at least 1")
        _require(self.cache_gb > 0, "patches.cache_gb", self.cache_gb, "gigabytes above 0")
        _require(self.workers >= 1, "patches.workers", self.workers, "at least 1 thread")


@dataclass(frozen=True)
class Augment:
    """How patches are varied. 0 switches a variation off.

    scale: the largest relative change of size. grey: the largest relative change of contrast, and the largest shift of
    the mean in standard deviations. gamma: the largest change of the exponent, as a logarithm. noise: the largest
    standard deviation of added noise, in standard deviations. blur, low_resolution, cut_outs: the share of patches that
    are blurred, seen at half to full resolution, and robbed of some boxes.
    """

    flips: bool = True
    turns: bool = True
    scale: float = 0.2
    grey: float = 0.25
    gamma: float = 0.3
    noise: float = 0.1
    blur: float = 0.1
    low_resolution: float = 0.1
    cut_outs: float = 0.1

    def __post_init__(self) -> None:
        for name in ("scale", "grey"):
            value = getattr(self, name)
            _require(0 <= value < 1, f"augment.{name}", value, "a number from 0 to below 1")
        for name in ("gamma", "noise"):
            value = getattr(self, name)
            _require(value >= 0, f"augment.{name}", value, "0 or more")
        for name in ("blur", "low_resolution", "cut_outs"):
            value = getattr(self, name)
            _require(0 <= value <= 1, f"augment.{name}", value, "a share from 0 to 1")


@dataclass(frozen=True)
class Optimiser:
    """How the weights move. After warmup_steps the learning rate follows the schedule down to where averaging begins.

    schedule: "cosine"; "poly", (1 − progress)^0.9 as nnU-Net; or "plateau", a tenth whenever plateau_validations in a
    row were not better. momentum: of SGD, Nesterov's; AdamW has its own. accumulate: batches that one step adds up.
    precision: "auto" takes float16 on a GPU, and bfloat16 on a CPU that has matrix units for it.
    compile: through torch.compile. sync_batchnorm: BatchNorm's statistics over all GPUs of a run instead of each one's.
    """

    kind: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 1e-3
    momentum: float = 0.99
    weight_decay: float = 1e-2
    schedule: Literal["cosine", "poly", "plateau"] = "cosine"
    plateau_validations: int = 3
    warmup_steps: int = 100
    clip_norm: float = 1.0
    accumulate: int = 1
    precision: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    compile: bool = False
    sync_batchnorm: bool = False

    def __post_init__(self) -> None:
        _require(self.learning_rate > 0, "optimiser.learning_rate", self.learning_rate, "above 0")
        _require(0 <= self.momentum < 1, "optimiser.momentum", self.momentum, "a number from 0 to below 1")
        _require(self.weight_decay >= 0, "optimiser.weight_decay", self.weight_decay, "0 or more")
        _require(self.plateau_validations >= 1, "optimiser.plateau_validations", self.plateau_validations, "at least 1")
        _require(self.warmup_steps >= 0, "optimiser.warmup_steps", self.warmup_steps, "0 or more")
        _require(self.clip_norm > 0, "optimiser.clip_norm", self.clip_norm, "above 0")
        _require(self.accumulate >= 1, "optimiser.accumulate", self.accumulate, "at least 1 batch")


@dataclass(frozen=True)
class Average:
    """Averaged weights: from epoch `start_epoch` to the last one, at a constant learning rate.

    When `validation.patience` ends the run's first part sooner, averaging still lasts as many epochs.
    kind: "swa", the plain mean of samples_per_epoch states an epoch; or "ema", an exponential mean of every step's
    state, of which `decay` stays at each step. gate_margin: how much worse than the best single weights the averaged
    ones may validate and still be shipped.
    """

    kind: Literal["swa", "ema"] = "swa"
    start_epoch: int = 75
    samples_per_epoch: int = 1
    learning_rate: float = 2e-4
    decay: float = 0.999
    batchnorm_steps: int = 50
    gate_margin: float = 0.0

    def __post_init__(self) -> None:
        _require(self.start_epoch >= 1, "average.start_epoch", self.start_epoch, "an epoch from 1 on")
        _require(self.samples_per_epoch >= 1, "average.samples_per_epoch", self.samples_per_epoch, "at least 1")
        _require(self.learning_rate > 0, "average.learning_rate", self.learning_rate, "above 0")
        _require(0 < self.decay < 1, "average.decay", self.decay, "a number between 0 and 1")
        _require(self.batchnorm_steps >= 1, "average.batchnorm_steps", self.batchnorm_steps, "at least 1")
        _require(0 <= self.gate_margin < 1, "average.gate_margin", self.gate_margin, "a score from 0 to below 1")


@dataclass(frozen=True)
class Validation:
    """Whole volumes through the kernel's own prediction, every `every_epochs` and at the end.

    cases: how many of the fold, spread over its scrolls; `whole_fold` adds all of it once, at the very end. patience:
    after so many validations in a row that were not better, averaging begins at once, and the run ends with it.
    """

    every_epochs: int = 5
    cases: int = 4
    whole_fold: bool = True
    patience: int = 10

    def __post_init__(self) -> None:
        _require(self.every_epochs >= 1, "validation.every_epochs", self.every_epochs, "at least 1")
        _require(self.cases >= 1, "validation.cases", self.cases, "at least 1")
        _require(self.patience >= 1, "validation.patience", self.patience, "at least 1")


@dataclass(frozen=True)
class Sentinel:
    """What no living prediction looks like; `validations` in a row that do stop the run.

    The limits are shares of foreground, and the least variance of the probabilities.
    """

    validations: int = 5
    most_foreground: float = UNIFORM_SHARES[1]
    least_foreground: float = UNIFORM_SHARES[0]
    least_variance: float = LEAST_VARIANCE

    def __post_init__(self) -> None:
        _require(self.validations >= 1, "sentinel.validations", self.validations, "at least 1")
        _require(
            0 <= self.least_foreground < self.most_foreground <= 1,
            "sentinel",
            f"least_foreground {self.least_foreground} and most_foreground {self.most_foreground}",
            "two shares, the least below the most",
        )
        _require(0 <= self.least_variance < 0.25, "sentinel.least_variance", self.least_variance, "0 to below 0.25")


@dataclass(frozen=True)
class Settings:
    """A whole run.

    folds: "scroll" puts no scroll on both sides, "case" deals the cases out one by one. label_2: "ignored", as the
    score has it; "surface" counts unlabelled voxels as surface in training, as the reference did. exclude: cases to
    leave out. labels_dir: a folder whose {id}.tif stand in for the competition's labels; relative to the data folder.
    """

    epochs: int = 100
    steps_per_epoch: int = 250
    seed: int = 0
    folds: Literal["scroll", "case"] = "scroll"
    fold_count: int = 4
    overlap: float = 0.5
    label_2: Literal["ignored", "surface"] = "ignored"
    exclude: tuple[str, ...] = ()
    labels_dir: str = ""
    network: Architecture = field(default_factory=Architecture)
    intensity: Intensity = field(default_factory=Intensity)
    patches: Patches = field(default_factory=Patches)
    augment: Augment = field(default_factory=Augment)
    loss: LossWeights = field(default_factory=LossWeights)
    optimiser: Optimiser = field(default_factory=Optimiser)
    average: Average = field(default_factory=Average)
    validation: Validation = field(default_factory=Validation)
    sentinel: Sentinel = field(default_factory=Sentinel)

    def __post_init__(self) -> None:
        check_tile(self.patches.shape_zyx, self.network.norm)
        _require(self.epochs >= 1, "epochs", self.epochs, "at least 1")
        _require(self.seed >= 0, "seed", self.seed, "0 or more")
        _require(self.steps_per_epoch >= 1, "steps_per_epoch", self.steps_per_epoch, "at least 1")
        _require(self.fold_count >= 2, "fold_count", self.fold_count, "at least 2")
        _require(0 <= self.overlap < 1, "overlap", self.overlap, "a share from 0 to below 1")
        start, wanted = self.average.start_epoch, f"at most the {self.epochs} epochs of the run"
        _require(start <= self.epochs, "average.start_epoch", start, wanted)
        most = self.optimiser.learning_rate
        _require(
            self.average.learning_rate <= most,
            *("average.learning_rate", self.average.learning_rate, f"at most optimiser.learning_rate, {most}"),
        )
        per_epoch = self.average.samples_per_epoch
        _require(per_epoch <= self.steps_per_epoch, "average.samples_per_epoch", per_epoch, "at most steps_per_epoch")

    @property
    def average_epochs(self) -> int:
        """Give how many epochs weights are averaged over."""
        return self.epochs - self.average.start_epoch + 1

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
    made = {name: _value(hints[name], value, place + name) for name, value in entries.items()}
    if kind is LossWeights:
        return LossWeights.from_preset(made.pop("preset", "rebalanced"), made)
    return kind(**made)


def _value(wanted: Any, found: Any, place: str) -> Any:
    if dataclasses.is_dataclass(wanted) and isinstance(wanted, type):
        _require(isinstance(found, dict), place, found, "a table")
        return _make(wanted, found, place + ".")
    if get_origin(wanted) is Literal:
        _require(found in get_args(wanted), place, repr(found), " or ".join(map(repr, get_args(wanted))))
        return found
    if wanted == tuple[str, ...]:
        words = isinstance(found, list) and all(isinstance(item, str) for item in found)
        _require(words, place, found, 'a list of words, as ["1", "2"]')
        return tuple(found)
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
