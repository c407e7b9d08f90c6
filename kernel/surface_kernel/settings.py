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

from surface_kernel.views import UNTURNED, ViewError, parse_all


class SettingsError(ValueError):
    """Settings that cannot be meant; the message names the entry, what was found and what was wanted."""


@dataclass(frozen=True)
class Settings:
    """How masks are made from the members' logits.

    views: how every member sees a volume, by the names of `surface_kernel.views`. The first one must be "none": the
        plain prediction is part of every mask.
    threshold: voxels whose probability is above it are surface. None takes the first member's own threshold.
    dust_voxels: 26-connected components of fewer voxels are dropped. 0 keeps everything.
    compiled: run the networks through torch.compile. Compiling takes a minute or more a process, once for every shape.
    """

    views: tuple[str, ...] = (UNTURNED,)
    threshold: float | None = None
    dust_voxels: int = 1000
    compiled: bool = False

    def __post_init__(self) -> None:
        if not self.views or self.views[0] != UNTURNED:
            raise SettingsError(f'views: found {list(self.views)}, wanted a list that begins with "{UNTURNED}"')
        try:
            parse_all(self.views)
        except ViewError as error:
            raise SettingsError(f"views: {error}") from error
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise SettingsError(f"threshold: found {self.threshold}, wanted a probability between 0 and 1")
        if self.dust_voxels < 0:
            raise SettingsError(f"dust_voxels: found {self.dust_voxels}, wanted 0 or more")

    def stages(self, members: int) -> list[tuple[tuple[int, str], ...]]:
        """Give the stages of an ensemble: lists of (member, view), every pair in one of them.

        Stage 0 is the first member without a view, the next one the other members without, then comes a stage a view,
        with all members: a mask stands after the shortest of them and gets better with each that follows.
        """
        everybody = range(members)
        plain = [[(0, UNTURNED)], [(member, UNTURNED) for member in everybody[1:]]]
        turned = [[(member, view) for member in everybody] for view in self.views[1:]]
        return [tuple(stage) for stage in plain + turned if stage]

    @classmethod
    def from_mapping(cls, entries: Mapping[str, Any], source: str) -> Self:
        """Check names and types of `entries`, which came from `source`. Raises SettingsError."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(entries) - known):
            raise SettingsError(f"{source}: found {', '.join(unknown)}, wanted only {', '.join(sorted(known))}")
        values = dict(entries)
        views = values.get("views", [UNTURNED])
        threshold, dust_voxels = values.get("threshold"), values.get("dust_voxels", 0)
        if not isinstance(views, list) or not all(isinstance(view, str) for view in views):
            raise SettingsError(f"{source}: found views = {views!r}, wanted a list of words")
        if threshold is not None and (isinstance(threshold, bool) or not isinstance(threshold, int | float)):
            raise SettingsError(f"{source}: found threshold = {threshold!r}, wanted a number")
        if isinstance(dust_voxels, bool) or not isinstance(dust_voxels, int):
            raise SettingsError(f"{source}: found dust_voxels = {dust_voxels!r}, wanted a whole number")
        if not isinstance(values.get("compiled", False), bool):
            raise SettingsError(f"{source}: found compiled = {values['compiled']!r}, wanted true or false")
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
