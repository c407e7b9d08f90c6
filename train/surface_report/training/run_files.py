"""What a run folder holds, read for the page: whatever is missing is left out, and what is broken is a fault."""

import io
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from surface_kernel.networks import weights
from surface_kernel.networks.weights import WeightsError
from surface_report.inputs import PageError
from surface_train.records.run_folder import RunFolder

PICTURES = 24
_QUALITY = 72  # of WebP


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """A run, as far as its folder tells."""

    rows: Sequence[Mapping[str, str]]
    """Of log.csv."""
    settings_text: str
    settings: Mapping[str, Any]
    environment: Mapping[str, Any]
    split: Mapping[str, Any]
    plan: Mapping[str, Any]
    """What the schedule was laid out by; empty without a plan."""
    shipped: Mapping[str, Any]
    """Provenance of weights.safetensors; empty while there is none."""
    averaged: Mapping[str, Any]
    best: Mapping[str, Any]
    pictures: Sequence[Path]
    """At most PICTURES, of the epochs in order and then of the averaged weights."""
    faults: tuple[str, ...]
    """What could not be read, a line each."""


def read_run(folder: Path) -> RunFiles:
    """Return what a run folder holds.

    Raises:
        PageError: for a folder without settings.toml, which is no run's.
    """
    if not (folder / "settings.toml").is_file():
        raise PageError(f"{folder}: expected a run folder of `surface_train fit`, got none with a settings.toml")
    text = _text(folder / "settings.toml")
    faults: list[str] = []
    run = RunFolder(folder)
    try:
        settings = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        settings = {}
        faults.append(f"settings.toml: expected TOML, got a file that is none ({error})")
    return RunFiles(
        rows=_rows(run, faults),
        settings_text=text,
        settings=settings,
        environment=_json(folder / "environment.json", faults),
        split=_json(folder / "split.json", faults),
        plan=_json(folder / "plan.json", faults),
        shipped=_provenance(run.weights, faults),
        averaged=_provenance(run.averaged, faults),
        best=_provenance(run.best, faults),
        pictures=_pictures(folder),
        faults=tuple(faults),
    )


def small(picture: Path) -> bytes:
    """Return a picture as a WebP, which is a third of the PNG. Raises OSError."""
    file = io.BytesIO()
    with Image.open(picture) as image:
        image.convert("RGB").save(file, format="WEBP", quality=_QUALITY)
    return file.getvalue()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _rows(run: RunFolder, faults: list[str]) -> list[dict[str, str]]:
    try:
        return run.rows()
    except (OSError, UnicodeDecodeError) as error:
        faults.append(f"log.csv: expected a run's log, got an unreadable file ({error})")
        return []


def _json(path: Path, faults: list[str]) -> Mapping[str, Any]:
    """Return a JSON object, empty where there is none; a file that holds another thing is a fault."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        faults.append(f"{path.name}: expected JSON, got a file that is none ({error})")
        return {}
    if not isinstance(content, dict):
        faults.append(f"{path.name}: expected a JSON object, got a {type(content).__name__}")
        return {}
    return content


def _provenance(path: Path, faults: list[str]) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        return weights.describe(path).provenance
    except (WeightsError, OSError) as error:
        faults.append(str(error))
        return {}


def _pictures(folder: Path) -> list[Path]:
    """Return the pictures that a run drew: of epochs, spread evenly where there are too many, and of the averages."""
    epochs = {path: path.stem.removeprefix("epoch_") for path in folder.glob("epoch_*.png")}
    drawn = sorted((path for path, number in epochs.items() if number.isdecimal()), key=lambda path: int(epochs[path]))
    others = sorted([*folder.glob("average_of_*.png"), *folder.glob("best.png")])
    room = max(PICTURES - len(others), 1)
    if len(drawn) > room:
        drawn = [drawn[round(at * (len(drawn) - 1) / max(room - 1, 1))] for at in range(room)]
    return drawn + others
