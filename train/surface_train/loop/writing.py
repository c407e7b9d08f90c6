"""What a run writes while it trains: rows of its log, pictures, and weights that explain themselves."""

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from torch import nn

from surface_kernel import disk
from surface_kernel.networks import weights
from surface_kernel.networks.weights import Metadata
from surface_train.checks.validate import TRAINING_THRESHOLD, Predicted, Validated
from surface_train.data.folds import Split
from surface_train.distributed import Group
from surface_train.loop.state import TrainingProgress
from surface_train.loop.training import Training
from surface_train.records.by_products import by_product
from surface_train.records.environment import commit
from surface_train.records.run_folder import RunFolder
from surface_train.settings import TrainingSettings


class RunWriter:
    """Writes into a run's folder. Only the first process of a run does; in the others every call does nothing."""

    def __init__(self, *, folder: RunFolder, settings: TrainingSettings, split: Split, group: Group) -> None:
        self.folder = folder
        self._settings, self._split, self._writes = settings, split, group.primary

    def write_row(self, row: Mapping[str, object], picture: Path | None) -> None:
        """Append an epoch to log.csv, and show it in curves and events, with a picture where there is one."""
        if self._writes:
            self.folder.log(row)
            self.folder.show(row, self._settings.loss, picture)

    def check_room(self, training: Training) -> None:
        """Raise OSError unless the disk has room for what an epoch and the end of a run write."""
        folder = self.folder
        weights_bytes = sum(tensor.nbytes for tensor in training.network.state_dict().values())
        missing = sum(not path.is_file() for path in (folder.last, folder.best, folder.averaged, folder.weights))
        # Each file is written beside the one that it replaces, one file at a time.
        wanted, free = missing * weights_bytes + training.state_bytes, disk.free_bytes(folder.folder)
        if self._writes and free < wanted:
            why = f"{os.strerror(errno.ENOSPC)}: expected {wanted:,} bytes free for an epoch's files, got {free:,}"
            raise OSError(errno.ENOSPC, f"{why}; make room, then continue with --resume", str(folder.folder))

    def draw(self, predicted: Sequence[Predicted], threshold: float, name: str) -> None:
        """Draw the first case of a validation. name: of the weights; the PNG has it in small letters."""
        if self._writes:
            with by_product(f"the picture of {name}"):
                self.folder.picture(predicted[0], threshold, name.lower().replace(" ", "_"))

    def write_weights(
        self,
        path: Path,
        network: nn.Module,
        *,
        progress: TrainingProgress,
        result: Validated | None,
        more: Mapping[str, object] | None = None,
    ) -> None:
        """Write a weights file with everything that its user needs to know.

        Args:
            path: the file, replaced.
            network: whose state is written.
            progress: of the run, when these weights were current.
            result: their validation; without one the file says "ungated".
            more: entries of the provenance beside the usual ones, or in their place.
        """
        if not self._writes:
            return
        settings = self._settings
        metadata = Metadata(
            architecture=settings.network,
            intensity=settings.intensity,
            tile_zyx=settings.patches.shape_zyx,
            overlap=settings.overlap,
            threshold=result.threshold if result else settings.mask.threshold or TRAINING_THRESHOLD,
            provenance=self._provenance(progress, result) | dict(more or {}),
        )
        weights.save(path, network.state_dict(), metadata)

    def _provenance(self, progress: TrainingProgress, result: Validated | None) -> dict[str, object]:
        settings = self._settings
        return {
            "settings_sha256": settings.digest,
            "split_sha256": self._split.digest,
            "commit": commit(),
            "fold": self._split.fold,
            "label_2": settings.label_2,
            "loss": settings.loss.preset,
            "limits": asdict(settings.sentinel),  # of a validation that is not uniform: `audit` and `build` read it
            "mask": settings.mask.to_entries(),  # what the threshold was chosen with: `build` compares it
            "init_sha256": progress.init,
            "epoch": progress.epoch,
            "epochs": settings.epochs,
            "steps": settings.epochs * settings.steps_per_epoch,
            "n_averaged": 0,  # of single weights; `more` has the number for averaged ones
            "validation": "ungated" if result is None else result.rounded(),
        }
