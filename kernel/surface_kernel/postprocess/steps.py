"""The steps of post-processing as settings: what a `[[postprocess]]` table may say.

A step states what it reads, the field of logits or a mask, whether it may set voxels that were background, and its
reach: how many voxels far a voxel's answer depends on others (None: any distance), which is what a block of a scroll
needs around it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal, get_args

from surface_kernel.message import shown

Connectivity = Literal[6, 26]
Reads = Literal["field", "mask"]
MOST_VOXELS = 1 << 40  # more than any volume has
MOST_ROUNDS = 100


class StepError(ValueError):
    """A step that cannot be meant."""


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """Surface is where the probability is above the threshold."""

    name: ClassVar = "threshold"
    reads: ClassVar[Reads] = "field"
    adds: ClassVar = False
    reach_voxels: ClassVar[int | None] = 0

    threshold: float | None = None
    """A probability between 0 and 1; None: the weights' own, which their validation chose."""

    def __post_init__(self) -> None:
        value = self.threshold
        if value is not None and not _is_probability(value):
            raise StepError(f"threshold: expected a probability between 0 and 1, got {shown(value)}")


@dataclass(frozen=True, kw_only=True)
class DropSmallComponents:
    """Connected components of fewer voxels are dropped."""

    name: ClassVar = "drop_small_components"
    reads: ClassVar[Reads] = "mask"
    adds: ClassVar = False
    reach_voxels: ClassVar[int | None] = None

    least_voxels: int
    """0 or 1 keeps everything."""
    connectivity: Connectivity
    """6 or 26 neighbours make a component."""

    def __post_init__(self) -> None:
        if not _is_whole(self.least_voxels) or not 0 <= self.least_voxels <= MOST_VOXELS:
            expected = "a whole number of voxels from 0 to 2**40"
            raise StepError(f"least_voxels: expected {expected}, got {shown(self.least_voxels)}")
        if not _is_whole(self.connectivity) or self.connectivity not in get_args(Connectivity):
            raise StepError(f"connectivity: expected 6 or 26, got {shown(self.connectivity)}")


@dataclass(frozen=True, kw_only=True)
class Majority:
    """Every voxel becomes what most of the 27 voxels around it and itself are."""

    name: ClassVar = "majority"
    reads: ClassVar[Reads] = "mask"
    adds: ClassVar = True

    rounds: int
    """How often; it ends as soon as nothing changes."""

    def __post_init__(self) -> None:
        if not _is_whole(self.rounds) or not 1 <= self.rounds <= MOST_ROUNDS:
            raise StepError(f"rounds: expected a whole number from 1 to {MOST_ROUNDS}, got {shown(self.rounds)}")

    @property
    def reach_voxels(self) -> int | None:
        """A voxel for each round."""
        return self.rounds


@dataclass(frozen=True, kw_only=True)
class Slit:
    """Every tunnel is cut and every cavity opened, octant by octant: for the competition's metric only."""

    name: ClassVar = "slit"
    reads: ClassVar[Reads] = "mask"
    adds: ClassVar = False
    reach_voxels: ClassVar[int | None] = None


Step = Threshold | DropSmallComponents | Majority | Slit
STEPS: Mapping[str, type[Step]] = {step.name: step for step in (Threshold, DropSmallComponents, Majority, Slit)}


def step_from_table(table: Any) -> Step:
    """Read a step as settings write it: `step`, its name, and its own entries. Raises StepError."""
    if not isinstance(table, dict) or not isinstance(table.get("step"), str) or table["step"] not in STEPS:
        got = shown(table.get("step") if isinstance(table, dict) else table)
        raise StepError(f"step: expected one of {', '.join(STEPS)}, got {got}")
    kind = STEPS[table["step"]]
    entries = {name: value for name, value in table.items() if name != "step"}
    known = [field.name for field in fields(kind)]
    if unknown := sorted(set(entries) - set(known)):
        has = ", ".join(known) or "none"
        raise StepError(f"{kind.name}: unknown entry {', '.join(map(shown, unknown))}; it has {has}")
    needed = [] if kind is Threshold else known
    if missing := [name for name in needed if name not in entries]:
        raise StepError(f"{kind.name}: expected the entry {', '.join(missing)}, which has no default")
    try:
        return kind(**entries)
    except StepError as error:
        raise StepError(f"{kind.name}: {error}") from error


def step_to_table(step: Step) -> dict[str, Any]:
    """Return a step as settings write it; what is None is left out."""
    return {"step": step.name} | {name: value for name, value in asdict(step).items() if value is not None}


def _is_whole(value: Any) -> bool:
    return type(value) is int


def _is_probability(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1
