"""What a run leaves behind: its settings, where it came from, a table of its epochs, pictures and weights."""

import csv
import json
import platform
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from surface_train.folds import Split
from surface_train.validate import Predicted

_LIBRARIES = ("torch", "numpy", "numba", "segmentation-models-pytorch-3d", "safetensors", "tifffile", "pillow")


class RecordError(ValueError):
    """A run's folder that must not be written to."""


@dataclass(frozen=True)
class Record:
    """A run's folder and the names in it."""

    folder: Path

    @property
    def state(self) -> Path:
        """Where the training's state lies, for --resume."""
        return self.folder / "state.safetensors"

    @property
    def best(self) -> Path:
        """The single best weights by validation."""
        return self.folder / "best.safetensors"

    @property
    def averaged(self) -> Path:
        """The averaged weights."""
        return self.folder / "swa.safetensors"

    @property
    def weights(self) -> Path:
        """The weights to ship."""
        return self.folder / "weights.safetensors"

    @property
    def _table(self) -> Path:
        return self.folder / "log.csv"

    def begin(self, settings_file: Path, split: Split, resume: bool) -> bool:
        """Make the folder, or check that it can be continued; say whether there is a state to go on from.

        A run that was killed before its first state was saved begins anew. Raises RecordError.
        """
        own = self.folder / "settings.toml"
        if resume and not own.is_file():
            raise RecordError(f"{self.folder}: found no {own.name}, wanted a run to resume")
        if resume and self.state.is_file():
            return True
        if not resume and self.folder.exists() and any(self.folder.iterdir()):
            raise RecordError(
                f"{self.folder}: found a folder with files, wanted a new one, or --resume to go on with it"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(settings_file, own)
        sides = {"training": split.training, "validation": split.validation}
        listed = {side: [case.name for case in cases] for side, cases in sides.items()}
        self._json("split.json", listed | {"sha256": split.digest})
        self._json("environment.json", environment())
        self._table.unlink(missing_ok=True)
        return False

    def log(self, row: Mapping[str, Any]) -> None:
        """Add a line to log.csv, which begins with the columns' names; every row has the same ones."""
        first = not self._table.exists()
        with self._table.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if first:
                writer.writeheader()
            writer.writerow(row)

    def forget_after(self, epoch: int) -> None:
        """Drop the lines of log.csv that a killed run wrote after its last saved state."""
        if not self._table.exists():
            return
        with self._table.open(newline="") as file:
            reader = csv.DictReader(file)
            names, rows = list(reader.fieldnames or []), [row for row in reader if int(row["epoch"]) <= epoch]
        partial = self._table.with_name(self._table.name + ".partial")
        with partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)
        partial.replace(self._table)

    def picture(self, predicted: Predicted, threshold: float, name: str) -> None:
        """Draw CT, truth and prediction of a case in three planes."""
        from surface_train.picture import draw

        mask = (predicted.probability > threshold).astype(np.uint8)
        draw(self.folder / f"{name}.png", predicted.image, predicted.label, mask, f"case {predicted.case.name}, {name}")

    def ship(self, chosen: Path) -> None:
        """Make a copy of the chosen weights the ones to ship."""
        partial = self.weights.with_name(self.weights.name + ".partial")
        shutil.copyfile(chosen, partial)
        partial.replace(self.weights)

    def _json(self, name: str, entries: Mapping[str, Any]) -> None:
        (self.folder / name).write_text(json.dumps(entries, indent=2) + "\n")


def environment() -> dict[str, Any]:
    """Describe what the run depends on beside its settings."""
    return {
        "commit": commit(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
    }


def commit() -> str | None:
    """Give the commit of this source tree, marked when files were changed since; None outside a git checkout."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude", "*"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
