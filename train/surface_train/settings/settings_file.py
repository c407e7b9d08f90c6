"""One file, one run: all settings of a training, read from TOML."""

import hashlib
import json
import math
import tomllib
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from surface_kernel.networks.architecture import DIVISOR, Architecture
from surface_kernel.postprocess.mask_settings import MaskSettings
from surface_kernel.volumes.intensity import Intensity
from surface_train.loss_weights import LossWeights
from surface_train.settings.entries import NO_ENTRY, TrainingSettingsError, from_table, require
from surface_train.settings.optimisation import Average, Optimiser
from surface_train.settings.sampling import Augment, Patches, check_patch
from surface_train.settings.validating import Sentinel, Validation

_MASK_ENTRIES: tuple[str, ...] = ("postprocess", "clear_unscanned")


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """All settings of a training. Raises TrainingSettingsError, by the name of the entry, for what cannot be used."""

    epochs: int = 100
    """Epochs of the run, those of averaging included."""

    steps_per_epoch: int = 250
    """Steps of each epoch."""

    seed: int = 0
    """Seed of the first weights, the order of the cases and the patches."""

    folds: Literal["scroll", "case"] = "scroll"
    """How folds are made: of whole scrolls, so that none is on both sides, or of single cases."""

    fold_count: int = 4
    """Number of folds."""

    overlap: float = 0.5
    """Smallest share of a tile that neighbouring tiles have in common, in validation and inference."""

    label_2: Literal["ignored", "surface"] = "ignored"
    """What unlabelled voxels count as in training: nothing, as in the score, or surface, as in the reference."""

    exclude: tuple[str, ...] = ()
    """Ids of cases to leave out."""

    labels_dir: str = ""
    """Folder whose {id}.tif replace the competition's labels, relative to the data folder or absolute; or empty."""

    network: Architecture = field(default_factory=Architecture)
    """Decoder, encoder and norm."""

    intensity: Intensity = field(default_factory=Intensity)
    """From grey values to the network's input."""

    patches: Patches = field(default_factory=Patches)
    """What a step sees."""

    augment: Augment = field(default_factory=Augment)
    """How patches are varied."""

    loss: LossWeights = field(default_factory=LossWeights)
    """Weights and numbers of the terms of the loss."""

    optimiser: Optimiser = field(default_factory=Optimiser)
    """How the weights move."""

    average: Average = field(default_factory=Average)
    """How the weights are averaged."""

    validation: Validation = field(default_factory=Validation)
    """When and on what the weights are validated."""

    mask: MaskSettings = field(default_factory=MaskSettings, metadata={NO_ENTRY: True})
    """How masks are made of logits, in validation as in the submission. A file writes its entries at its top:
    [[postprocess]] tables and clear_unscanned (`surface_kernel.postprocess.mask_settings`). A threshold without a
    number is 0.5 during the training and chosen at its end."""

    sentinel: Sentinel = field(default_factory=Sentinel)
    """When a run is stopped because its prediction has collapsed."""

    def __post_init__(self) -> None:
        check_patch(self.patches.shape_zyx, self.network.norm)
        self._check_batch()
        require(self.epochs >= 1, "epochs", expected="a number >= 1", got=self.epochs)
        require(self.seed >= 0, "seed", expected="a number >= 0", got=self.seed)
        require(self.steps_per_epoch >= 1, "steps_per_epoch", expected="a number >= 1", got=self.steps_per_epoch)
        require(self.fold_count >= 2, "fold_count", expected="a number >= 2", got=self.fold_count)
        require(0 <= self.overlap < 1, "overlap", expected="a share >= 0 and < 1", got=self.overlap)
        average, rate = self.average, self.optimiser.learning_rate
        expected = f"an epoch of the run, at most epochs = {self.epochs}"
        require(average.start_epoch <= self.epochs, "average.start_epoch", expected=expected, got=average.start_epoch)
        expected = f"at most optimiser.learning_rate = {rate:g}"
        require(average.learning_rate <= rate, "average.learning_rate", expected=expected, got=average.learning_rate)
        count, expected = average.samples_per_epoch, f"at most steps_per_epoch = {self.steps_per_epoch}"
        require(count <= self.steps_per_epoch, "average.samples_per_epoch", expected=expected, got=count)

    def _check_batch(self) -> None:
        """Refuse a batch of whose deepest features BatchNorm sees one value a channel, which has no variance."""
        patches, network = self.patches, self.network
        left = math.prod(voxels // DIVISOR for voxels in patches.shape_zyx)
        normed = network.norm == "batch" and network.encoder not in ("vgg11", "vgg13", "vgg16", "vgg19")
        normed = normed and not self.optimiser.sync_batchnorm  # which sees the patches of all processes
        expected = f"at least 2 of {patches.shape_zyx} voxels for BatchNorm, or larger patches"
        require(not normed or patches.batch * left > 1, "patches.batch", expected=expected, got=patches.batch)

    @property
    def average_epochs(self) -> int:
        """Return the number of epochs that weights are averaged over."""
        return self.epochs - self.average.start_epoch + 1

    @property
    def digest(self) -> str:
        """Return a sha256 of all entries that the weights depend on: memory, for one, may change within a run."""
        entries = asdict(self)
        for name in ("cache_gb", "workers"):
            del entries["patches"][name]
        del entries["optimiser"]["most_skipped_steps"], entries["mask"]
        if self.mask != MaskSettings():  # at its default it is left out: so it was before there was such an entry
            entries["mask"] = self.mask.to_entries()
        return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()


def read(path: Path) -> TrainingSettings:
    """Read a settings file. Raises TrainingSettingsError, naming the file and the entry."""
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise TrainingSettingsError(
            f"{path}: no such file; expected a settings file, as those in train/settings"
        ) from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise TrainingSettingsError(f"{path}: expected a settings file in TOML, got {error}") from error
    try:
        of_mask = {name: entries.pop(name) for name in _MASK_ENTRIES if name in entries}
        return replace(
            from_table(TrainingSettings, entries, others=_MASK_ENTRIES), mask=MaskSettings.from_entries(of_mask)
        )
    except ValueError as error:
        raise TrainingSettingsError(f"{path}: {error}") from error
