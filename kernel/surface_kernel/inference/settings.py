"""What a bundle's owner decides about prediction, beside what the weights decide for themselves.

People write it as TOML, the bundle carries it as JSON. The weights' metadata rules intensity, tile and architecture;
this rules views or stages, threshold and dust.
"""

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from surface_kernel.inference.views import UNTURNED, View, ViewError, parse_all
from surface_kernel.message import shown

Stage = tuple[tuple[int, str], ...]
FIRST: Stage = ((0, UNTURNED),)  # the shortest way to a mask
ENTRIES = ("compiled", "dust_voxels", "stages", "threshold", "views")
DUST_LIMIT_VOXELS = 1 << 40  # more than any volume has


class SettingsError(ValueError):
    """Settings that cannot be meant; the message names the entry, what was found and what was wanted."""


@dataclass(frozen=True)
class Settings:
    """How masks are made from the members' logits.

    views: how every member sees a volume, by the names in `views`. The first one must be "none": the
        plain prediction is part of every mask.
    threshold: voxels whose probability is above it are surface. None takes the first member's own threshold.
    dust_voxels: 26-connected components of fewer voxels are dropped. 0 keeps everything.
    compiled: run the networks through torch.compile. Compiling takes a minute or more a process, once for every shape.
    staged: instead of views, what is computed in which order: stages of (member, view), the first one FIRST. Files
        call it `stages` and write a pair as "MEMBER VIEW": stages = [["0 none"], ["1 none"], ["0 x", "1 x"]].
    """

    views: tuple[str, ...] = (UNTURNED,)
    threshold: float | None = None
    dust_voxels: int = 1000
    compiled: bool = False
    staged: tuple[Stage, ...] | None = None

    def __post_init__(self) -> None:
        if not self.views or self.views[0] != UNTURNED:
            raise SettingsError(f'views: found {list(self.views)}, wanted a list that begins with "{UNTURNED}"')
        try:
            parse_all(self.views)
        except ViewError as error:
            raise SettingsError(f"views: {error}") from error
        if self.staged is not None:
            self._check_stages(self.staged)
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise SettingsError(f"threshold: found {shown(self.threshold)}, wanted a probability between 0 and 1")
        if not 0 <= self.dust_voxels <= DUST_LIMIT_VOXELS:
            raise SettingsError(f"dust_voxels: found {shown(self.dust_voxels)}, wanted 0 or more, to 2**40")

    def _check_stages(self, staged: tuple[Stage, ...]) -> None:
        if self.views != (UNTURNED,):
            raise SettingsError(f"views: found {list(self.views)} beside stages, wanted one of the two")
        if staged[:1] != (FIRST,):
            raise SettingsError(f'stages: found {shown(_words(staged[:1]))} first, wanted [["0 {UNTURNED}"]]')
        seen: set[tuple[int, View]] = set()
        for number, stage in enumerate(staged):
            if not stage:
                raise SettingsError(f"stages: found stage {number} empty, wanted a member and a view at least")
            for member, name in stage:
                try:
                    pair = member, View.parse(name)
                except ViewError as error:
                    raise SettingsError(f"stages: {error}") from error
                if pair in seen:
                    raise SettingsError(f'stages: found "{member} {name}" a second time, wanted every pair once')
                seen.add(pair)

    def stages(self, members: int) -> list[Stage]:
        """Give the stages of an ensemble: lists of (member, view), every pair in one of them.

        Where none are given: stage 0 is the first member without a view, the next one the other members without, then
        comes a stage a view, with all members: a mask stands after the shortest of them and gets better with each that
        follows. Raises SettingsError where the given ones are not of exactly these members.
        """
        everybody = range(members)
        if self.staged is not None:
            used = {member for stage in self.staged for member, _ in stage}
            if used != set(everybody):
                found, wanted = ", ".join(map(str, sorted(used))), f"0 to {members - 1}, as there are weights"
                raise SettingsError(f"stages: found the members {found}, wanted each of {wanted}")
            return list(self.staged)
        plain = [[(0, UNTURNED)], [(member, UNTURNED) for member in everybody[1:]]]
        turned = [[(member, view) for member in everybody] for view in self.views[1:]]
        return [tuple(stage) for stage in plain + turned if stage]

    @classmethod
    def from_mapping(cls, entries: Mapping[str, Any], source: str) -> Self:
        """Check names and types of `entries`, which came from `source`. Raises SettingsError."""
        if unknown := sorted(set(entries) - set(ENTRIES)):
            raise SettingsError(f"{source}: found {', '.join(map(shown, unknown))}, wanted only {', '.join(ENTRIES)}")
        values = dict(entries)
        views = values.get("views", [UNTURNED])
        threshold, dust_voxels = values.get("threshold"), values.get("dust_voxels", 0)
        if not isinstance(views, list) or not all(_is_word(view) for view in views):
            raise SettingsError(f"{source}: found views = {shown(views)}, wanted a list of words")
        if threshold is not None and (isinstance(threshold, bool) or not isinstance(threshold, int | float)):
            raise SettingsError(f"{source}: found threshold = {shown(threshold)}, wanted a number")
        if isinstance(dust_voxels, bool) or not isinstance(dust_voxels, int):
            raise SettingsError(f"{source}: found dust_voxels = {shown(dust_voxels)}, wanted a whole number")
        if not isinstance(values.get("compiled", False), bool):
            raise SettingsError(f"{source}: found compiled = {shown(values['compiled'])}, wanted true or false")
        values["views"] = tuple(views)
        try:
            values["staged"] = _parse_stages(values.pop("stages", None))
            return cls(**values)
        except SettingsError as error:
            raise SettingsError(f"{source}: {error}") from error

    def to_mapping(self) -> dict[str, Any]:
        """Give the entries that `from_mapping` reads."""
        return {
            "views": list(self.views),
            "stages": None if self.staged is None else _words(self.staged),
            "threshold": self.threshold,
            "dust_voxels": self.dust_voxels,
            "compiled": self.compiled,
        }


def from_toml(path: Path) -> Settings:
    """Read settings that a person wrote. Raises SettingsError."""
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SettingsError(f"{path}: found no readable TOML ({error}), wanted a settings file") from error
    return Settings.from_mapping(entries, str(path))


def from_json(content: bytes, source: str) -> Settings:
    """Read the settings that a bundle carries. Raises SettingsError."""
    try:
        entries = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{source}: found no readable JSON ({error}), wanted a bundle's settings") from error
    if not isinstance(entries, dict):
        raise SettingsError(f"{source}: found a {type(entries).__name__}, wanted a JSON object")
    return Settings.from_mapping(entries, source)


def to_json(settings: Settings) -> str:
    """Write settings as a bundle carries them: the same settings, the same text."""
    return json.dumps(settings.to_mapping(), indent=2, sort_keys=True) + "\n"


def _parse_stages(value: Any) -> tuple[Stage, ...] | None:
    """Read stages as files write them. Raises SettingsError."""
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(stage, list) for stage in value):
        raise SettingsError(f'found stages = {shown(value)}, wanted lists such as ["0 {UNTURNED}", "1 x"]')
    return tuple(tuple(_parse_pair(pair) for pair in stage) for stage in value)


def _parse_pair(value: Any) -> tuple[int, str]:
    form = re.fullmatch(r"([0-9]{1,4}) ([!-~]+)", value) if isinstance(value, str) else None
    if form is None:
        raise SettingsError(f'stages: found {shown(value)}, wanted a member and a view such as "0 {UNTURNED}"')
    return int(form[1]), form[2]


def _words(staged: tuple[Stage, ...]) -> list[list[str]]:
    return [[f"{member} {view}" for member, view in stage] for stage in staged]


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable()
