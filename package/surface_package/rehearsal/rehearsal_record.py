"""What a rehearsal came to, kept beside the bundle as BUNDLE.rehearsed.json."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from surface_kernel import disk


@dataclass(frozen=True, kw_only=True)
class RehearsalOutcome:
    """What the run with the competition's data took, what was tried besides, and what is wrong with any of it."""

    wall_s: float = 0.0
    """Of the run with the data, from submit.py's start to its end."""
    peak_bytes: int = 0
    """The largest memory of its process tree."""
    volumes: int = 0
    """How many masks of the data it made."""
    scaled_s: float = 0.0
    """What the hidden test would take at its speed, in seconds."""
    device: str = ""
    """Where it predicted, as the engine names it."""
    pythons: tuple[str, ...] = ()
    """Versions of the other Pythons that installed the bundle."""
    faults: tuple[str, ...] = ()
    """The mounts that submit.py was run with, by name."""
    findings: tuple[str, ...] = ()
    """One line for each thing wrong."""


@dataclass(frozen=True, kw_only=True)
class RehearsalRecord(RehearsalOutcome):
    """A rehearsal, as `publish` reads it."""

    manifest_sha256: str
    """Of the bundle."""
    passed: bool
    """Whether there are no findings."""
    full: bool
    """Whether every supported mount layout predicted."""
    date: str
    """Of its end, UTC."""
    isolation: str
    """How it was kept from network and disk."""
    python: str
    """The version that predicted."""

    def write(self, path: Path) -> None:
        """Write the record so that it appears complete or not at all."""
        disk.put(path, (json.dumps(asdict(self), indent=2, sort_keys=True) + "\n").encode())


def record_path(bundle: Path) -> Path:
    """Return where a bundle's record is: beside it."""
    resolved = bundle.resolve()
    return resolved.with_name(resolved.name + ".rehearsed.json")
