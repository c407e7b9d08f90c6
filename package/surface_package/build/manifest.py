"""What a bundle says about itself. It is written here; it is checked in kernel/submit.py alone, run as a process."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from surface_kernel.runs.mounts import BUNDLE_FORMAT

NAME = "manifest.json"
ROOT = Path(__file__).resolve().parents[3]
_OWN = "contents_sha256"


class ManifestError(ValueError):
    """A bundle whose manifest cannot be read, or no submit.py to check it with."""


@dataclass(frozen=True)
class Contents:
    """What a manifest says besides the files: `weights` in member order, `requirements` as pip takes them.

    members: by file, what its weights say of themselves, scores among it. licences: by file, in SPDX's words.
    half: what half precision changed, None for weights that are as they were trained.
    """

    version: str
    commit: str | None
    weights: Sequence[str]
    settings: str
    requirements: Sequence[str]
    python: Sequence[str]
    members: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    licences: Mapping[str, str] = field(default_factory=dict)
    half: Mapping[str, Any] | None = None


def write(folder: Path, contents: Contents) -> Path:
    """Write manifest.json over all files of a flat folder; the same files give the same bytes.

    Its own entry contents_sha256 is that of its other entries, as JSON with sorted keys and without spaces.
    """
    files = {
        path.name: {"sha256": sha256(path), "bytes": path.stat().st_size}
        for path in folder.iterdir()
        if path.name != NAME
    }
    manifest = {
        "format": BUNDLE_FORMAT,
        "kernel": {"version": contents.version},
        "commit": contents.commit,
        "weights": list(contents.weights),
        "settings": contents.settings,
        "requirements": list(contents.requirements),
        "python": list(contents.python),
        "members": dict(contents.members),
        "licences": dict(contents.licences),
        "half": contents.half,
        "files": files,
    }
    manifest[_OWN] = _own_digest(manifest)
    path = folder / NAME
    path.write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return path


def read(bundle: Path) -> dict[str, Any]:
    """Read a bundle's manifest. Raises ManifestError where there is none of our format, or it was changed.

    `verify` checks the files.
    """
    path = bundle / NAME
    if not path.is_file():
        raise ManifestError(f"{bundle}: found no {NAME}, wanted a bundle; make one with `surface_package build`")
    try:
        manifest = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ManifestError(
            f"{path}: found no JSON ({error}), wanted format {BUNDLE_FORMAT!r}; build it again"
        ) from error
    found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
    if found != BUNDLE_FORMAT:
        raise ManifestError(f"{path}: found format {found!r}, wanted {BUNDLE_FORMAT!r}; build the bundle again")
    if _OWN in manifest and manifest[_OWN] != (own := _own_digest(manifest)):
        raise ManifestError(f"{path}: found {_OWN} {own}, wanted {manifest[_OWN]}: it was changed; build it again")
    return dict(manifest)


def digest(bundle: Path) -> str:
    """Return the sha256 of a bundle's manifest.json, which stands for the whole bundle: it lists every other file."""
    path = bundle / NAME
    if not path.is_file():
        raise ManifestError(f"{bundle}: found no {NAME}, wanted a bundle; make one with `surface_package build`")
    return sha256(path)


def verify(bundle: Path) -> tuple[bool, list[str]]:
    """Check a bundle as Kaggle's run will: whether it is whole, and what `submit.py --verify` printed."""
    command = [sys.executable, "-I", str(submit_script()), "--verify", str(bundle)]
    process = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8", errors="replace")
    return process.returncode == 0, process.stdout.splitlines()


def submit_script() -> Path:
    """Return the path of kernel/submit.py, which lies in the clone. Raises ManifestError outside of one."""
    path = ROOT / "kernel" / "submit.py"
    if not path.is_file():
        raise ManifestError(
            f"{path}: found no such file, wanted a clone of the project; install it with `pip install -e .`"
        )
    return path


def sha256(path: Path) -> str:
    """Return a file's sha256 in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _own_digest(manifest: Mapping[str, Any]) -> str:
    others = {key: value for key, value in manifest.items() if key != _OWN}
    return hashlib.sha256(json.dumps(others, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
