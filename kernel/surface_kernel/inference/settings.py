"""What a bundle's owner decides about prediction, beside what the weights decide for themselves.

People write it as TOML, the bundle carries it as JSON. The weights' metadata rules intensity, tile and architecture;
this rules views or stages, and how a mask is made of logits (`postprocess.mask_settings`).
"""

import json
import logging
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from surface_kernel.inference.views import UNTURNED, View, ViewError, parse_all
from surface_kernel.message import shown
from surface_kernel.postprocess import mask_settings
from surface_kernel.postprocess.mask_settings import (
    COMPETITION_STEPS,
    MaskSettings,
    MaskSettingsError,
    advice_on_older_entries,
)

Stage = tuple[tuple[int, str], ...]
FIRST: Stage = ((0, UNTURNED),)  # the shortest way to a mask
ENTRIES = ("compiled", "purpose", "stages", "views", *mask_settings.ENTRIES)
COMPETITION, SEGMENTATION = PURPOSES = ("competition", "segmentation")
log = logging.getLogger("surface_kernel")


class SettingsError(ValueError):
    """Settings that cannot be meant; the message names the file and the entry."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How masks are made from the members' logits."""

    views: tuple[str, ...] = (UNTURNED,)
    """How every member sees a volume, by the names in `views`. The first one must be "none": the plain prediction is
    part of every mask."""
    mask: MaskSettings = field(default_factory=MaskSettings)
    """How a mask is made of the logits. Files write its entries beside these."""
    compiled: bool = False
    """Run the networks through torch.compile, which takes a minute or more a process, once for every shape."""
    purpose: str = COMPETITION
    """One of PURPOSES: which steps a bundle is built with where its file names none. Nothing else depends on it."""
    staged: tuple[Stage, ...] | None = None
    """Instead of views, what is computed in which order: stages of (member, view), the first one FIRST. Files call it
    `stages` and write a pair as "MEMBER VIEW": stages = [["0 none"], ["1 none"], ["0 x", "1 x"]]."""

    def __post_init__(self) -> None:
        if self.purpose not in PURPOSES:
            raise SettingsError(f"purpose: expected {' or '.join(PURPOSES)}, got {shown(self.purpose)}")
        if not self.views or self.views[0] != UNTURNED:
            raise SettingsError(f'views: expected a list that begins with "{UNTURNED}", got {list(self.views)}')
        try:
            parse_all(self.views)
        except ViewError as error:
            raise SettingsError(f"views: {error}") from error
        if self.staged is not None:
            self._check_stages(self.staged)

    def _check_stages(self, staged: tuple[Stage, ...]) -> None:
        if self.views != (UNTURNED,):
            raise SettingsError(f"views: {list(self.views)} beside stages; expected one of the two")
        if staged[:1] != (FIRST,):
            raise SettingsError(f'stages: expected ["0 {UNTURNED}"] as the first, got {shown(_words(staged[:1]))}')
        seen: set[tuple[int, View]] = set()
        for number, stage in enumerate(staged):
            if not stage:
                raise SettingsError(f"stages: expected a member and a view in every stage, got none in stage {number}")
            for member, name in stage:
                try:
                    pair = member, View.parse(name)
                except ViewError as error:
                    raise SettingsError(f"stages: {error}") from error
                if pair in seen:
                    raise SettingsError(f'stages: expected every pair once, got "{member} {name}" a second time')
                seen.add(pair)

    def stages(self, members: int) -> list[Stage]:
        """Return the stages of an ensemble: lists of (member, view), every pair in one of them.

        Where none are given: stage 0 is the first member without a view, the next one the other members without, then
        comes a stage a view, with all members: there is a mask after the shortest of them, and it gets better with each
        that follows. Raises SettingsError where the given ones are not of exactly these members.
        """
        everybody = range(members)
        if self.staged is not None:
            used = {member for stage in self.staged for member, _ in stage}
            if used != set(everybody):
                got = ", ".join(map(str, sorted(used)))
                raise SettingsError(f"stages: expected the members 0 to {members - 1}, as there are weights, got {got}")
            return list(self.staged)
        plain = [[(0, UNTURNED)], [(member, UNTURNED) for member in everybody[1:]]]
        turned = [[(member, view) for member in everybody] for view in self.views[1:]]
        return [tuple(stage) for stage in plain + turned if stage]

    @classmethod
    def from_mapping(cls, entries: Mapping[str, Any], source: str, *, of_purpose: bool = False) -> Self:
        """Check names and types of settings.

        Args:
            entries: as files write them.
            source: where they came from, for errors.
            of_purpose: take the steps of the entries' purpose where they name none; else those of older files.

        Raises:
            SettingsError: for what cannot be meant.
        """
        if unknown := sorted(set(entries) - set(ENTRIES)):
            names = ", ".join(map(shown, unknown))
            raise SettingsError(f"{source}: unknown entry {names}; expected only {', '.join(ENTRIES)}")
        views, compiled = entries.get("views", [UNTURNED]), entries.get("compiled", False)
        if not isinstance(views, list) or not all(_is_word(view) for view in views):
            raise SettingsError(f"{source}: views: expected a list of words, got {shown(views)}")
        if not isinstance(compiled, bool):
            raise SettingsError(f"{source}: compiled: expected true or false, got {shown(compiled)}")
        purpose = entries.get("purpose", COMPETITION)
        usual = COMPETITION_STEPS if of_purpose and purpose == COMPETITION else None
        try:
            return cls(
                views=tuple(views),
                mask=MaskSettings.from_entries(entries, usual=usual),
                compiled=compiled,
                purpose=purpose,
                staged=_parse_stages(entries.get("stages")),
            )
        except (SettingsError, MaskSettingsError) as error:
            raise SettingsError(f"{source}: {error}") from error

    def to_mapping(self) -> dict[str, Any]:
        """Return the entries that `from_mapping` reads."""
        return {
            "views": list(self.views),
            "stages": None if self.staged is None else _words(self.staged),
            "compiled": self.compiled,
            "purpose": self.purpose,
            **self.mask.to_entries(),
        }


def from_toml(path: Path, *, of_purpose: bool = False) -> Settings:
    """Read settings that a person wrote; `of_purpose` as `from_mapping` has it. Raises SettingsError."""
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise SettingsError(f"{path}: expected a settings file in TOML, which this is not: {error}") from error
    settings = Settings.from_mapping(entries, str(path), of_purpose=of_purpose)
    if advice := advice_on_older_entries(entries):
        log.warning("%s: %s", path, advice)
    return settings


def from_json(content: bytes, source: str) -> Settings:
    """Read the settings that a bundle carries. Raises SettingsError."""
    try:
        entries = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{source}: expected a bundle's settings in JSON, which this is not: {error}") from error
    if not isinstance(entries, dict):
        raise SettingsError(f"{source}: expected a JSON object, got a {type(entries).__name__}")
    return Settings.from_mapping(entries, source)


def to_json(settings: Settings) -> str:
    """Return settings as a bundle carries them: the same settings, the same text."""
    return json.dumps(settings.to_mapping(), indent=2, sort_keys=True) + "\n"


def _parse_stages(value: Any) -> tuple[Stage, ...] | None:
    """Read stages as files write them. Raises SettingsError."""
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(stage, list) for stage in value):
        raise SettingsError(f'stages: expected lists such as ["0 {UNTURNED}", "1 x"], got {shown(value)}')
    return tuple(tuple(_parse_pair(pair) for pair in stage) for stage in value)


def _parse_pair(value: Any) -> tuple[int, str]:
    form = re.fullmatch(r"([0-9]{1,4}) ([!-~]+)", value) if isinstance(value, str) else None
    if form is None:
        raise SettingsError(f'stages: expected a member and a view such as "0 {UNTURNED}", got {shown(value)}')
    return int(form[1]), form[2]


def _words(staged: tuple[Stage, ...]) -> list[list[str]]:
    return [[f"{member} {view}" for member, view in stage] for stage in staged]


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable()
