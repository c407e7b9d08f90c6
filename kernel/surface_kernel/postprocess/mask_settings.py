"""How a mask is made of logits, as settings: the chain of steps, and whether unscanned voxels are cleared.

Read without numba, torch and the libraries of the steps: a run writes its zeros before those are imported.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from surface_kernel.message import shown
from surface_kernel.postprocess.steps import (
    DropSmallComponents,
    Hysteresis,
    Majority,
    Slit,
    Step,
    StepError,
    Threshold,
    step_from_table,
    step_to_table,
)

ENTRIES = ("postprocess", "clear_unscanned", "threshold", "dust_voxels")
USUAL_LEAST_VOXELS = 1000
COMPETITION_STEPS: tuple[Step, ...] = (
    Threshold(),
    Majority(rounds=6),
    DropSmallComponents(least_voxels=5000, connectivity=6),
    Slit(),
)
"""What a bundle for the competition is built with where its settings name no step: docs/postprocess.md. Its last step
is made for the metric, so nothing else takes it unless it is named."""
_OLDER = ("threshold", "dust_voxels")  # how settings said it before there were steps


class MaskSettingsError(ValueError):
    """Settings of a mask that cannot be meant."""


@dataclass(frozen=True, kw_only=True)
class MaskSettings:
    """How masks are made from a field of logits."""

    steps: tuple[Step, ...] = (
        Threshold(),
        DropSmallComponents(least_voxels=USUAL_LEAST_VOXELS, connectivity=26),
    )
    """The chain, in order."""
    clear_unscanned: bool = True
    """Voxels that were not scanned are background (`volumes.scanned`)."""

    def __post_init__(self) -> None:
        made = [place for place, step in enumerate(self.steps) if isinstance(step, Threshold | Hysteresis)]
        if len(made) != 1:
            names = sorted(self.steps[place].name for place in made)
            got = f"{len(made)} ({', '.join(names)})" if len(set(names)) > 1 else len(made)
            raise MaskSettingsError(f"postprocess: expected exactly one threshold or hysteresis, got {got}")
        for place, step in enumerate(self.steps):
            if step.reads == "mask" and place < made[0]:
                raise MaskSettingsError(f"postprocess: {step.name} reads a mask; expected it after the threshold")
            if step.reads == "field" and place > made[0]:
                raise MaskSettingsError(f"postprocess: {step.name} reads the field; expected it before the threshold")

    @classmethod
    def from_entries(cls, entries: Mapping[str, Any], *, usual: tuple[Step, ...] | None = None) -> Self:
        """Read the entries ENTRIES of a settings file, those that are there.

        Args:
            entries: others are passed over.
            usual: the steps where the entries name none; None: those of older files.

        Raises:
            MaskSettingsError: for what cannot be meant.
        """
        rule = entries.get("clear_unscanned", True)
        if not isinstance(rule, bool):
            raise MaskSettingsError(f"clear_unscanned: expected true or false, got {shown(rule)}")
        older = [name for name in _OLDER if entries.get(name) is not None]
        tables = entries.get("postprocess")
        try:
            if tables is None and not older and usual is not None:
                return cls(steps=usual, clear_unscanned=rule)
            if tables is None:
                return cls(steps=_older_steps(entries), clear_unscanned=rule)
            if older:
                raise StepError(f"{' and '.join(older)} beside [[postprocess]]: expected it in a step")
            if not isinstance(tables, list):
                raise StepError(f"postprocess: expected [[postprocess]] tables, got {shown(tables)}")
            return cls(steps=_steps(tables), clear_unscanned=rule)
        except StepError as error:
            raise MaskSettingsError(str(error)) from error

    def to_entries(self) -> dict[str, Any]:
        """Return the entries that `from_entries` reads."""
        return {"postprocess": self.to_tables(), "clear_unscanned": self.clear_unscanned}

    def to_tables(self) -> list[dict[str, Any]]:
        """Return the steps as `[[postprocess]]` tables."""
        return [step_to_table(step) for step in self.steps]

    @property
    def threshold(self) -> float | None:
        """The threshold's probability; None: the weights' own. Of a hysteresis the lower one."""
        made = next(step for step in self.steps if isinstance(step, Threshold | Hysteresis))
        return made.low if isinstance(made, Hysteresis) else made.threshold

    @property
    def field_steps(self) -> tuple[Step, ...]:
        """The steps beside a threshold that read the field: it has to be kept for them."""
        return tuple(step for step in self.steps if step.reads == "field" and not isinstance(step, Threshold))

    def with_threshold(self, threshold: float) -> Self:
        """Return the same chain with this threshold; a hysteresis stays as it is."""
        steps = [replace(step, threshold=threshold) if isinstance(step, Threshold) else step for step in self.steps]
        return replace(self, steps=tuple(steps))

    def same_but_threshold(self, other: "MaskSettings") -> bool:
        """Whether another chain differs in the threshold at most."""
        return self.with_threshold(0.5) == other.with_threshold(0.5)


def advice_on_older_entries(entries: Mapping[str, Any]) -> str:
    """Return what to write in place of `threshold` and `dust_voxels`; empty where they are not there."""
    older = [name for name in _OLDER if entries.get(name) is not None]
    if not older:
        return ""
    tables = ", ".join(
        "{" + ", ".join(f"{name} = {_toml(value)}" for name, value in step_to_table(step).items()) + "}"
        for step in _older_steps(entries)
    )
    return f"{' and '.join(older)}: an older form, still read; write postprocess = [{tables}]"


def _older_steps(entries: Mapping[str, Any]) -> tuple[Step, ...]:
    """Return the steps that the entries `threshold` and `dust_voxels` of older files mean. Raises StepError."""
    least = entries.get("dust_voxels")
    if least is not None and (type(least) is not int or least < 0):
        raise StepError(f"dust_voxels: expected a whole number of voxels >= 0, got {shown(least)}")
    drop = DropSmallComponents(least_voxels=USUAL_LEAST_VOXELS if least is None else least, connectivity=26)
    return Threshold(threshold=entries.get("threshold")), drop


def _steps(tables: Sequence[Any]) -> tuple[Step, ...]:
    steps = []
    for number, table in enumerate(tables, start=1):
        try:
            steps.append(step_from_table(table))
        except StepError as error:
            raise StepError(f"postprocess, step {number}: {error}") from error
    return tuple(steps)


def _toml(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)
