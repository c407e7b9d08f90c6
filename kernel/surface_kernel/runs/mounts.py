"""What Kaggle mounts: the competition's folder and our bundle. Both are only read."""

import csv
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surface_kernel.inference import settings
from surface_kernel.inference.settings import Settings
from surface_kernel.message import shown

BUNDLE_FORMAT = "surface-bundle/1"
MANIFEST_LIMIT_BYTES = SETTINGS_LIMIT_BYTES = 1 << 20
NAME_LIMIT_BYTES = 200  # file systems take 255
ID_LIMIT_BYTES = 100  # every id becomes a file name, with an ending or two


class MountError(ValueError):
    """A mounted folder without what is needed; the message names the file, what was found and what was wanted."""


@dataclass(frozen=True)
class Bundle:
    """A bundle's weights, in member order, and its settings. digests: the sha256 of these files, by their names."""

    weights: tuple[Path, ...]
    settings: Settings
    digests: Mapping[str, str]


def read_bundle(folder: Path) -> Bundle:
    """Read what a bundle's manifest names, and check that it is what the manifest lists. Raises MountError.

    Raises SettingsError too, also for stages of other members than these. The other files are submit.py's affair, which
    checks all before anything of the bundle runs: here an engine that was started by hand is kept from weights that
    were changed or swapped.
    """
    manifest = _manifest(folder)
    path, files = folder / "manifest.json", manifest.get("files")
    names, chosen = manifest.get("weights"), manifest.get("settings")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise MountError(f"{path}: found weights {shown(names)}, wanted a list of file names")
    if not isinstance(chosen, str):
        raise MountError(f"{path}: found settings {shown(chosen)}, wanted a file name")
    if not isinstance(files, dict):
        raise MountError(f"{path}: found no table 'files', wanted a sha256 for every file")
    for name in (*names, chosen):
        if not _is_plain(name) or not _is_file(folder / name):
            raise MountError(f"{path}: found no file {shown(name)} in the bundle, wanted those it lists")
    digests = {name: _checked(folder / name, files.get(name)) for name in names}
    content = _content(folder / chosen, SETTINGS_LIMIT_BYTES)
    digests[chosen] = _compared(folder / chosen, hashlib.sha256(content).hexdigest(), files.get(chosen))
    read = settings.from_json(content, str(folder / chosen))
    read.stages(len(names))
    return Bundle(tuple(folder / name for name in names), read, digests)


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    content = _content(path, MANIFEST_LIMIT_BYTES)
    try:
        manifest = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise MountError(f"{path}: found no readable manifest ({error}), wanted a {BUNDLE_FORMAT} bundle") from error
    if not isinstance(manifest, dict) or manifest.get("format") != BUNDLE_FORMAT:
        raise MountError(f"{path}: found another format, wanted {BUNDLE_FORMAT}")
    return manifest


def _content(path: Path, limit_bytes: int) -> bytes:
    """Read a small file. Raises MountError where there is none, or more than `limit_bytes`."""
    if not _is_file(path):
        raise MountError(f"{path}: found no readable file, wanted one of a {BUNDLE_FORMAT} bundle")
    try:
        with path.open("rb") as file:
            content = file.read(limit_bytes + 1)
    except OSError as error:
        raise MountError(f"{path}: found it unreadable ({error}), wanted a {BUNDLE_FORMAT} bundle") from error
    if len(content) > limit_bytes:
        raise MountError(f"{path}: found more than {limit_bytes} bytes, wanted that many at most")
    return content


def _checked(path: Path, listed: Any) -> str:
    """Give a file's digest, which is the listed one."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise MountError(f"{path}: found it unreadable ({error}), wanted a {BUNDLE_FORMAT} bundle") from error
    return _compared(path, found, listed)


def _compared(path: Path, found: str, listed: Any) -> str:
    wanted = listed.get("sha256") if isinstance(listed, dict) else None
    if not isinstance(wanted, str) or not re.fullmatch("[0-9a-f]{64}", wanted):
        told = f"{shown(path.name)} listed as {shown(listed)}"
        raise MountError(f"{path.with_name('manifest.json')}: found {told}, wanted a sha256 for it")
    if found != wanted:
        raise MountError(f"{path}: found sha256 {found}, wanted {wanted} as the manifest lists: the file was changed")
    return found


def _is_plain(name: str) -> bool:
    """Say whether this can be the name of a file right in a folder."""
    plain = name not in ("", ".", "..") and name.isprintable() and not re.search(r"[/\\]", name)
    return plain and len(name.encode()) <= NAME_LIMIT_BYTES


def _is_file(path: Path) -> bool:
    """Say whether there is a file: what is none could keep us waiting for its bytes."""
    try:
        return path.is_file()
    except OSError:  # where a folder on the way may not be looked into
        return False


def read_test_images(competition: Path) -> dict[str, Path]:
    """Give the image of every id in test.csv, in its order; the images need not exist. Raises MountError."""
    path = competition / "test.csv"
    try:
        if not _is_file(path):
            raise FileNotFoundError("no such file")
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
        if "." in case or not _is_plain(case):
            raise MountError(f"{path}: found id {shown(case)}, wanted a plain name without dots")
        if len(case.encode()) > ID_LIMIT_BYTES:
            raise MountError(f"{path}: found id {shown(case)}, wanted {ID_LIMIT_BYTES} bytes at most")
    return {case: competition / "test_images" / f"{case}.tif" for case in ids}
