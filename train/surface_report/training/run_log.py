"""What a run's folder says of its training, read for the page: its log, settings, machine and weights."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surface_kernel.networks import weights
from surface_kernel.networks.weights import Metadata, WeightsError
from surface_report.inputs import PageError

_WEIGHTS = ("weights", "swa", "best", "last")
_BESIDE_TERMS = ("epoch", "seconds", "learning_rate", "loss", "variance_of_p")


@dataclass(frozen=True, kw_only=True)
class RunLog:
    """A run, as far as it has come."""

    folder: Path
    rows: Sequence[Mapping[str, str]]
    """Of log.csv, an epoch each."""
    settings: str
    """The settings file; empty where there is none."""
    environment: Mapping[str, Any]
    """Commit, machine, versions; empty where there is none."""
    plan: Mapping[str, Any]
    """What the schedule was laid out by; empty without a plan."""
    files: Mapping[str, Metadata]
    """What the run's weights files say of themselves, those to ship first."""
    pictures: Sequence[Path]
    """Of validations, in the order of their epochs, the averaged weights' last."""
    faults: tuple[str, ...]
    """What could not be read, a line each."""

    @property
    def epochs(self) -> list[float]:
        """Return the epochs of the rows."""
        return self.column("epoch", default=0.0)

    @property
    def terms(self) -> list[str]:
        """Return the names of the loss's terms."""
        names = list(self.rows[0]) if self.rows else []
        return [name for name in names if name not in _BESIDE_TERMS and not name.startswith("val_")]

    def column(self, name: str, *, default: float = float("nan")) -> list[float]:
        """Return a column as numbers, `default` where an epoch has none."""
        return [_number(row.get(name), default) for row in self.rows]


def read_run(folder: Path) -> RunLog:
    """Read a run folder, finished or not. Raises PageError where it is none."""
    table = folder / "log.csv"
    if not folder.is_dir() or not (table.is_file() or (folder / "settings.toml").is_file()):
        raise PageError(f"{folder}: expected a run folder of `surface_train fit`, with settings.toml and log.csv")
    faults: list[str] = []
    text = table.read_text(encoding="utf-8") if table.is_file() else ""
    complete = text[: text.rfind("\n") + 1]  # a killed run may have left half a line
    files = {}
    for name in _WEIGHTS:
        path = folder / f"{name}.safetensors"
        if path.is_file():
            try:
                files[name] = weights.describe(path)
            except WeightsError as error:
                faults.append(str(error))
    settings = folder / "settings.toml"
    return RunLog(
        folder=folder,
        rows=list(csv.DictReader(complete.splitlines())),
        settings=settings.read_text(encoding="utf-8", errors="replace") if settings.is_file() else "",
        environment=_json(folder / "environment.json", faults),
        plan=_json(folder / "plan.json", faults),
        files=files,
        pictures=_pictures(folder),
        faults=tuple(faults),
    )


def _pictures(folder: Path) -> list[Path]:
    epochs = [path for path in folder.glob("epoch_*.png") if path.stem.removeprefix("epoch_").isdecimal()]
    epochs.sort(key=lambda path: int(path.stem.removeprefix("epoch_")))
    return [*epochs, *sorted(folder.glob("average_of_*.png"))]


def _json(path: Path, faults: list[str]) -> Mapping[str, Any]:
    """Return a JSON object, empty where there is none; a file that holds another thing is a fault."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        faults.append(f"{path}: expected JSON, got a file that is none ({error})")
        return {}
    if not isinstance(content, dict):
        faults.append(f"{path}: expected a JSON object, got a {type(content).__name__}")
        return {}
    return content


def _number(text: str | None, default: float) -> float:
    try:
        return float(text) if text else default
    except ValueError:
        return default
