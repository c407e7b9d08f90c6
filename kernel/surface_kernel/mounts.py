"""What Kaggle mounts: the competition's folder and our bundle. Both are only read."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path

from surface_kernel import settings
from surface_kernel.settings import Settings

BUNDLE_FORMAT = "surface-bundle/1"


class MountError(ValueError):
    """A mounted folder without what is needed; the message names the file, what was found and what was wanted."""


@dataclass(frozen=True)
class Bundle:
    """A bundle's weights, in member order, and its settings."""

    weights: tuple[Path, ...]
    settings: Settings


def read_bundle(folder: Path) -> Bundle:
    """Read what a bundle's manifest names. Raises MountError, SettingsError.

    The files' digests are submit.py's affair, which checks them before anything of the bundle runs; the weights'
    tensors are checked once more when they are loaded.
    """
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise MountError(f"{path}: found no readable manifest ({error}), wanted a {BUNDLE_FORMAT} bundle") from error
    if not isinstance(manifest, dict) or manifest.get("format") != BUNDLE_FORMAT:
        raise MountError(f"{path}: found another format, wanted {BUNDLE_FORMAT}")
    names = manifest.get("weights")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise MountError(f"{path}: found weights {names!r}, wanted a list of file names")
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            raise MountError(f"{path}: found no file {name!r} in the bundle, wanted the weights it lists")
    return Bundle(tuple(folder / name for name in names), settings.from_json(folder / str(manifest.get("settings"))))


def read_test_images(competition: Path) -> dict[str, Path]:
    """Give the image of every id in test.csv, in its order; the images need not exist. Raises MountError."""
    path = competition / "test.csv"
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MountError(f"{path}: found no readable table ({error}), wanted columns id, scroll_id") from error
    # As submit.py reads them: an id that stands there twice wants one mask, and an empty row none.
    ids = list(dict.fromkeys(name for row in rows if (name := (row.get("id") or "").strip())))
    if not ids:
        raise MountError(f"{path}: found no rows, wanted one for each test volume")
    for case in ids:
        # The scorer takes a mask's id as its name up to the first dot, and finds it by that alone.
        if case != Path(case).name or "." in case or "\\" in case:
            raise MountError(f"{path}: found id {case!r}, wanted a plain name without dots")
    return {case: competition / "test_images" / f"{case}.tif" for case in ids}
