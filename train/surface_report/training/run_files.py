"""What a run folder holds, read for the page: whatever is missing or broken is left out."""

import csv
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
    shipped: Mapping[str, Any]
    """Provenance of weights.safetensors; empty while there is none."""
    averaged: Mapping[str, Any]
    best: Mapping[str, Any]
    pictures: Sequence[Path]
    """At most PICTURES, of the epochs in order and then of the averaged weights."""


def read_run(folder: Path) -> RunFiles:
    """Return what a run folder holds.

    Raises:
        PageError: for a folder without settings.toml, which is no run's.
    """
    if not (folder / "settings.toml").is_file():
        raise PageError(f"{folder}: expected a run folder of `surface_train fit`, got none with a settings.toml")
    text = _text(folder / "settings.toml")
    try:
        settings = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        settings = {}
    return RunFiles(
        rows=_rows(folder / "log.csv"),
        settings_text=text,
        settings=settings,
        environment=_json(folder / "environment.json"),
        split=_json(folder / "split.json"),
        shipped=_provenance(folder / "weights.safetensors"),
        averaged=_provenance(folder / "swa.safetensors"),
        best=_provenance(folder / "best.safetensors"),
        pictures=_pictures(folder),
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


def _rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a log; a last line that a killed run left unfinished is none."""
    text = _text(path)
    lines = io.StringIO(text[: text.rfind("\n") + 1], newline="")
    return [{str(name): str(value) for name, value in row.items()} for row in csv.DictReader(lines)]


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(_text(path) or "{}")
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _provenance(path: Path) -> Mapping[str, Any]:
    try:
        return weights.describe(path).provenance if path.is_file() else {}
    except (WeightsError, OSError):
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
