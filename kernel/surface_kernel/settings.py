"""What a bundle's owner decides about prediction, beside what the weights decide for themselves.

People write it as TOML, the bundle carries it as JSON. The weights' metadata rules intensity, tile and architecture;
this rules views, threshold and dust.
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

AXES = "zyx"
UNFLIPPED = "none"


class SettingsError(ValueError):
    """Settings that cannot be meant; the message names the entry, what was found and what was wanted."""


@dataclass(frozen=True)
class Settings:
    """How masks are made from the members' logits.

    views: the flips whose logits are averaged, each "none" or the flipped axes, such as "x" or "zy". The first one
        must be "none": the plain prediction is part of every mask.
    threshold: voxels whose probability is above it are surface. None takes the first member's own threshold.
    dust_voxels: 26-connected components of fewer voxels are dropped. 0 keeps everything.
    """

    views: tuple[str, ...] = (UNFLIPPED,)
    threshold: float | None = None
    dust_voxels: int = 1000

    def __post_init__(self) -> None:
        if not self.views or self.views[0] != UNFLIPPED:
            raise SettingsError(f'views: found {list(self.views)}, wanted a list that begins with "{UNFLIPPED}"')
        for view in self.views:
            if view != UNFLIPPED and (not view or set(view) - set(AXES) or len(set(view)) != len(view)):
                raise SettingsError(f'views: found "{view}", wanted "{UNFLIPPED}" or some of the letters z, y, x')
        if len({frozenset(view) for view in self.views}) != len(self.views):
            raise SettingsError(f"views: found {list(self.views)}, wanted each flip once")
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise SettingsError(f"threshold: found {self.threshold}, wanted a probability between 0 and 1")
        if self.dust_voxels < 0:
            raise SettingsError(f"dust_voxels: found {self.dust_voxels}, wanted 0 or more")

    @classmethod
    def from_mapping(cls, entries: Mapping[str, Any], source: str) -> Self:
        """Check names and types of `entries`, which came from `source`. Raises SettingsError."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(entries) - known):
            raise SettingsError(f"{source}: found {', '.join(unknown)}, wanted only {', '.join(sorted(known))}")
        values = dict(entries)
        views = values.get("views", [UNFLIPPED])
        threshold, dust_voxels = values.get("threshold"), values.get("dust_voxels", 0)
        if not isinstance(views, list) or not all(isinstance(view, str) for view in views):
            raise SettingsError(f"{source}: found views = {views!r}, wanted a list of words")
        if threshold is not None and (isinstance(threshold, bool) or not isinstance(threshold, int | float)):
            raise SettingsError(f"{source}: found threshold = {threshold!r}, wanted a number")
        if isinstance(dust_voxels, bool) or not isinstance(dust_voxels, int):
            raise SettingsError(f"{source}: found dust_voxels = {dust_voxels!r}, wanted a whole number")
        values["views"] = tuple(views)
        try:
            return cls(**values)
        except SettingsError as error:
            raise SettingsError(f"{source}: {error}") from error


def from_toml(path: Path) -> Settings:
    """Read settings that a person wrote. Raises SettingsError."""
    try:
        return Settings.from_mapping(tomllib.loads(path.read_text()), str(path))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path}: found no readable TOML ({error}), wanted a settings file") from error


def from_json(path: Path) -> Settings:
    """Read the settings that a bundle carries. Raises SettingsError."""
    try:
        entries = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path}: found no readable JSON ({error}), wanted a bundle's settings") from error
    if not isinstance(entries, dict):
        raise SettingsError(f"{path}: found a {type(entries).__name__}, wanted a JSON object")
    return Settings.from_mapping(entries, str(path))


def to_json(settings: Settings) -> str:
    """Write settings as a bundle carries them: the same settings, the same text."""
    return json.dumps(asdict(settings), indent=2, sort_keys=True) + "\n"
