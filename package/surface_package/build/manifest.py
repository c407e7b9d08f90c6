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
from surface_package.build import protocol

NAME = "manifest.json"
ROOT = Path(__file__).resolve().parents[3]
_OWN = "contents_sha256"


class ManifestError(ValueError):
    """A bundle whose manifest cannot be read, or no submit.py to check it with."""


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a manifest says besides the files."""

    version: str
    """Of surface_kernel."""
    commit: str | None
    """That holds the bundle's code; None where none does."""
    weights: Sequence[str]
    """The members' files, in order."""
    settings: str
    """The file with the kernel's settings."""
    requirements: Sequence[str]
    """What is installed, name==version as pip takes it."""
    python: Sequence[str]
    """The Pythons that the wheels are for, as "3.12"."""
    members: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By file, what its weights say of themselves, scores among it."""
    licences: Mapping[str, str] = field(default_factory=dict)
    """By file, its licence as an SPDX identifier."""
    half: Mapping[str, Any] | None = None
    """What half precision changed; None for weights that are as they were trained."""


def write(folder: Path, contents: Contents) -> Path:
    """Write manifest.json over all files of a flat folder; the same files give the same bytes."""
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
        "files": listed(folder),
    }
    path = folder / NAME
    path.write_text(sealed(manifest), encoding="utf-8")
    return path


def sealed(entries: Mapping[str, Any]) -> str:
    """Return a manifest's text, which `submit.py` takes only to the byte.

    Its own entry contents_sha256 is that of its other entries, as JSON with sorted keys and without spaces.
    """
    return json.dumps(dict(entries) | {_OWN: _own_digest(entries)}, indent=2, sort_keys=True) + "\n"


def listed(folder: Path) -> dict[str, dict[str, Any]]:
    """Return sha256 and size of every file of a flat folder but its manifest, by name."""
    files = (path for path in folder.iterdir() if path.name != NAME)
    return {path.name: {"sha256": sha256(path), "bytes": path.stat().st_size} for path in files}


def read(bundle: Path) -> dict[str, Any]:
    """Read a bundle's manifest; `verify` checks the files.

    Raises:
        ManifestError: there is none of our format, or it was changed.
    """
    path = _path(bundle)
    expected = f"{path}: expected JSON of format {BUNDLE_FORMAT!r}"
    try:
        manifest = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{expected}, got an unreadable file ({error}); build the bundle again") from error
    got = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
    if got != BUNDLE_FORMAT:
        raise ManifestError(f"{expected}, got {got!r}; build the bundle again")
    if _OWN in manifest and manifest[_OWN] != (own := _own_digest(manifest)):
        got = f"{own}: it was changed; build the bundle again"
        raise ManifestError(f"{path}: {_OWN}: expected {manifest[_OWN]}, got {got}")
    return dict(manifest)


def digest(bundle: Path) -> str:
    """Return the sha256 of a bundle's manifest.json, which stands for the whole bundle: it lists every other file."""
    return sha256(_path(bundle))


def _path(bundle: Path) -> Path:
    path = bundle / NAME
    if not path.is_file():
        raise ManifestError(f"{path}: no such file; expected a bundle, make one with `surface_package build`")
    return path


def verify(bundle: Path) -> list[str]:
    """Return what is wrong with a bundle, as `submit.py --verify` says it; empty for one that Kaggle's run will take.

    Raises:
        ManifestError: there is no submit.py, or it does not say.
    """
    script = submit_script()
    # -I: nothing of this environment may stand in for what Kaggle lacks.
    command = [sys.executable, "-I", str(script), "--verify", str(bundle)]
    process = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8", errors="replace")
    try:
        result = protocol.read_result(process.stdout, protocol.VERIFY)
    except protocol.ProtocolError as error:
        raise ManifestError(f"{script} --verify: {error}; take it from git again") from error
    if result.verdict == protocol.VERIFIED and process.returncode == 0:
        # What was verified is what lies here now, or the answer is about another bundle.
        if result.manifest_sha256 == (own := digest(bundle)):
            return []
        return [f"{bundle / NAME}: expected sha256 {result.manifest_sha256} as verified, got {own}"]
    return list(result.findings) or [result.why]


def submit_script() -> Path:
    """Return the path of kernel/submit.py, which is in the clone. Raises ManifestError outside of one."""
    path = ROOT / "kernel" / "submit.py"
    if not path.is_file():
        raise ManifestError(f"{path}: no such file; expected a clone of the project, installed with `pip install -e .`")
    return path


def sha256(path: Path) -> str:
    """Return a file's sha256 in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _own_digest(manifest: Mapping[str, Any]) -> str:
    others = {key: value for key, value in manifest.items() if key != _OWN}
    return hashlib.sha256(json.dumps(others, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
