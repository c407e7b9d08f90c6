"""The chains that are compared: thresholds × what follows them."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from surface_kernel.message import shown
from surface_kernel.postprocess.mask_settings import MaskSettings, MaskSettingsError
from surface_kernel.postprocess.steps import DropSmallComponents, Majority, Slit, Step, Threshold

THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
_DROP = DropSmallComponents(least_voxels=5000, connectivity=6)
FOLLOWING: tuple[tuple[Step, ...], ...] = (
    (),
    (DropSmallComponents(least_voxels=1000, connectivity=26),),
    (_DROP,),
    (Majority(rounds=3), _DROP),
    (Majority(rounds=6), _DROP),
    (_DROP, Slit()),
    (Majority(rounds=3), _DROP, Slit()),
    (Majority(rounds=6), _DROP, Slit()),
    (Majority(rounds=12), _DROP, Slit()),
)
"""What follows the threshold in the default grid: the default of a competition's bundle and its neighbours."""


class GridError(ValueError):
    """A grid that cannot be meant; the message names the file and the entry."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One chain of the grid."""

    settings: MaskSettings

    @property
    def name(self) -> str:
        """What tables call it: its steps with their numbers."""
        return ", ".join(_described(table) for table in self.settings.to_tables())

    @property
    def key(self) -> str:
        """A short name for its files that depends on what it says alone."""
        return sha256(json.dumps(self.settings.to_entries(), sort_keys=True).encode()).hexdigest()[:16]

    @property
    def size(self) -> int:
        """How many steps it has: of chains that score alike the shorter one is chosen."""
        return len(self.settings.steps)


def default_grid() -> list[Candidate]:
    """Return the chains of THRESHOLDS × FOLLOWING."""
    return _crossed(THRESHOLDS, FOLLOWING)


def read_grid(path: Path) -> list[Candidate]:
    """Read a grid: `thresholds`, a list, and `[[chain]]` tables whose `steps` are what follows the threshold.

    A chain that begins with smooth or hysteresis is taken as it stands; it needs no threshold of the list.

    Raises:
        GridError: for what cannot be meant.
    """
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise GridError(f"{path}: expected a grid in TOML, got {error}") from error
    if unknown := sorted(set(entries) - {"thresholds", "chain"}):
        raise GridError(f"{path}: unknown entry {', '.join(unknown)}; expected thresholds and chain")
    thresholds, chains = entries.get("thresholds", list(THRESHOLDS)), entries.get("chain", [])
    if not isinstance(thresholds, list) or not thresholds or not isinstance(chains, list) or not chains:
        raise GridError(f"{path}: expected a list of thresholds and [[chain]] tables, got {shown(entries)}")
    try:
        made = [each for chain in chains for each in _candidates(chain, thresholds)]
    except (MaskSettingsError, TypeError) as error:
        raise GridError(f"{path}: {error}") from error
    return list({candidate.key: candidate for candidate in made}.values())


def _candidates(chain: Any, thresholds: Sequence[Any]) -> list[Candidate]:
    steps = chain.get("steps") if isinstance(chain, dict) and set(chain) == {"steps"} else None
    if not isinstance(steps, list):
        raise MaskSettingsError(f"chain: expected the one entry steps, a list of steps, got {shown(chain)}")
    if any(isinstance(step, dict) and step.get("step") in ("threshold", "hysteresis") for step in steps):
        return [Candidate(settings=MaskSettings.from_entries({"postprocess": steps}))]
    return [
        Candidate(settings=MaskSettings.from_entries({"postprocess": [{"step": "threshold", "threshold": t}, *steps]}))
        for t in thresholds
    ]


def _crossed(thresholds: Sequence[float], following: Sequence[tuple[Step, ...]]) -> list[Candidate]:
    return [
        Candidate(settings=MaskSettings(steps=(Threshold(threshold=threshold), *steps)))
        for steps in following
        for threshold in thresholds
    ]


def _described(table: Mapping[str, Any]) -> str:
    values = [str(value) for name, value in table.items() if name != "step"]
    return " ".join((table["step"].removesuffix("_small_components"), *values))
