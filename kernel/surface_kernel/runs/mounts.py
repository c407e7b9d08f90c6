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
    """A mounted folder without what is needed; the message names the file and what was expected of it."""


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """What a bundle brings to a run."""

    weights: tuple[Path, ...]
    """In member order."""
    settings: Settings
    digests: Mapping[str, str]
    """The sha256 of these files, by their names."""


def read_bundle(folder: Path) -> Bundle:
    """Read what a bundle's manifest names, and check that it is what the manifest lists.

    submit.py checks all files before anything of the bundle runs. Here an engine that was started by hand is kept from
    weights that were changed or swapped.

    Raises:
        MountError: for a manifest that cannot be followed, or files that are not as it lists them.
        SettingsError: for the settings, also for stages of other members than the bundle has.
    """
    manifest = _manifest(folder)
    path, files = folder / "manifest.json", manifest.get("files")
    names, chosen = manifest.get("weights"), manifest.get("settings")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise MountError(f"{path}: weights: expected a list of file names, got {shown(names)}")
    if not isinstance(chosen, str):
        raise MountError(f"{path}: settings: expected a file name, got {shown(chosen)}")
    if not isinstance(files, dict):
        raise MountError(f"{path}: files: expected a table with a sha256 for every file, got {shown(files)}")
    for name in (*names, chosen):
        if not _is_plain(name) or not _is_file(folder / name):
            raise MountError(f"{path}: expected the files that it lists beside it, got no file {shown(name)}")
    digests = {name: _checked(folder / name, files.get(name)) for name in names}
    content = _content(folder / chosen, SETTINGS_LIMIT_BYTES)
    digests[chosen] = _compared(folder / chosen, hashlib.sha256(content).hexdigest(), files.get(chosen))
    read = settings.from_json(content, str(folder / chosen))
    read.stages(len(names))
    return Bundle(weights=tuple(folder / name for name in names), settings=read, digests=digests)


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    content = _content(path, MANIFEST_LIMIT_BYTES)
    try:
        manifest = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise MountError(f"{path}: expected the manifest of a {BUNDLE_FORMAT} bundle, got {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != BUNDLE_FORMAT:
        got = shown(manifest.get("format") if isinstance(manifest, dict) else manifest)
        raise MountError(f"{path}: format: expected {BUNDLE_FORMAT}, got {got}")
    return manifest


def _content(path: Path, limit_bytes: int) -> bytes:
    """Read a small file. Raises MountError where there is none, or more than `limit_bytes`."""
    if not _is_file(path):
        raise MountError(f"{path}: no such file; expected one of a {BUNDLE_FORMAT} bundle")
    try:
        with path.open("rb") as file:
            content = file.read(limit_bytes + 1)
    except OSError as error:
        raise MountError(f"{path}: expected a file of a {BUNDLE_FORMAT} bundle, got {error}") from error
    if len(content) > limit_bytes:
        raise MountError(f"{path}: expected at most {limit_bytes} bytes, got more")
    return content


def _checked(path: Path, listed: Any) -> str:
    """Return a file's digest, which is the listed one."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise MountError(f"{path}: expected a file of a {BUNDLE_FORMAT} bundle, got {error}") from error
    return _compared(path, digest, listed)


def _compared(path: Path, digest: str, listed: Any) -> str:
    expected = listed.get("sha256") if isinstance(listed, dict) else None
    if not isinstance(expected, str) or not re.fullmatch("[0-9a-f]{64}", expected):
        manifest = path.with_name("manifest.json")
        raise MountError(f"{manifest}: files: expected a sha256 for {shown(path.name)}, got {shown(listed)}")
    if digest != expected:
        raise MountError(
            f"{path}: expected sha256 {expected} as the manifest lists, got {digest}: the file was changed"
        )
    return digest


def _is_plain(name: str) -> bool:
    """Whether this can be the name of a file right in a folder."""
    plain = name not in ("", ".", "..") and name.isprintable() and not re.search(r"[/\\]", name)
    return plain and len(name.encode()) <= NAME_LIMIT_BYTES


def _is_file(path: Path) -> bool:
    """Whether there is a file: one could wait forever for the bytes of anything else."""
    try:
        return path.is_file()
    except OSError:  # where a folder on the way may not be looked into
        return False


def read_test_images(competition: Path) -> dict[str, Path]:
    """Return the image of every id in test.csv, in its order; the images need not exist. Raises MountError."""
    path = competition / "test.csv"
    try:
        if not _is_file(path):
            raise FileNotFoundError("no such file")
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MountError(f"{path}: expected a table with the columns id, scroll_id, got {error}") from error
    # As submit.py reads them: an id that is there twice needs one mask, and an empty row none.
    ids = list(dict.fromkeys(name for row in rows if (name := (row.get("id") or "").strip())))
    if not ids:
        raise MountError(f"{path}: expected a row with an id for each test volume, got none")
    for case in ids:
        # The scorer takes a mask's id as its name up to the first dot, and finds it by that alone.
        if "." in case or not _is_plain(case):
            raise MountError(f"{path}: id: expected a plain name without dots, got {shown(case)}")
        if len(case.encode()) > ID_LIMIT_BYTES:
            raise MountError(f"{path}: id: expected at most {ID_LIMIT_BYTES} bytes, got {shown(case)}")
    return {case: competition / "test_images" / f"{case}.tif" for case in ids}
