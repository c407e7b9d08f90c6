"""The steps of post-processing as settings: what a `[[postprocess]]` table may say.

A step states what it reads, the field of logits or a mask, whether it may set voxels that were background, and its
reach: how many voxels far a voxel's answer depends on others (None: any distance), which is what a block of a scroll
needs around it.
"""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar, Literal, get_args

from surface_kernel.message import shown

Connectivity = Literal[6, 26]
Reads = Literal["field", "mask"]
MOST_VOXELS = 1 << 40  # more than any volume has
MOST_ROUNDS = 100
MOST_RADIUS = 16
MOST_SIGMA = 16
TRUNCATE_SIGMAS = 3.0  # where a Gaussian is cut off


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
class Hysteresis:
    """Surface is where the probability is above `low`, in pieces that reach above `high`; in place of a threshold."""

    name: ClassVar = "hysteresis"
    reads: ClassVar[Reads] = "field"
    adds: ClassVar = False
    reach_voxels: ClassVar[int | None] = None

    low: float
    """A probability between 0 and 1."""
    high: float
    """A larger one."""

    def __post_init__(self) -> None:
        for name, value in (("low", self.low), ("high", self.high)):
            if not _is_probability(value):
                raise StepError(f"{name}: expected a probability between 0 and 1, got {shown(value)}")
        if not self.low < self.high:
            raise StepError(f"low: expected less than high = {self.high}, got {self.low}")


@dataclass(frozen=True, kw_only=True)
class Smooth:
    """The logits are blurred by a Gaussian."""

    name: ClassVar = "smooth"
    reads: ClassVar[Reads] = "field"
    adds: ClassVar = False

    sigma: float
    """In voxels."""

    def __post_init__(self) -> None:
        whole = isinstance(self.sigma, int | float) and not isinstance(self.sigma, bool)
        if not whole or not 0 < self.sigma <= MOST_SIGMA:
            raise StepError(f"sigma: expected a number above 0, at most {MOST_SIGMA}, got {shown(self.sigma)}")

    @property
    def reach_voxels(self) -> int | None:
        """Three sigma, as scipy rounds them."""
        return int(TRUNCATE_SIGMAS * self.sigma + 0.5)


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
    keep_touching_faces: bool = False
    """Keep those that touch a face of the volume: they may be larger than what is seen of them."""

    def __post_init__(self) -> None:
        if not _is_whole(self.least_voxels) or not 0 <= self.least_voxels <= MOST_VOXELS:
            expected = "a whole number of voxels from 0 to 2**40"
            raise StepError(f"least_voxels: expected {expected}, got {shown(self.least_voxels)}")
        if not _is_whole(self.connectivity) or self.connectivity not in get_args(Connectivity):
            raise StepError(f"connectivity: expected 6 or 26, got {shown(self.connectivity)}")
        if not isinstance(self.keep_touching_faces, bool):
            raise StepError(f"keep_touching_faces: expected true or false, got {shown(self.keep_touching_faces)}")


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


@dataclass(frozen=True, kw_only=True)
class _ByEllipsoid:
    """What closing and opening have in common."""

    reads: ClassVar[Reads] = "mask"

    radius_z: int
    """Of the ellipsoid along z, in voxels."""
    radius_yx: int
    """Along y and x."""

    def __post_init__(self) -> None:
        for name, radius in (("radius_z", self.radius_z), ("radius_yx", self.radius_yx)):
            if not _is_whole(radius) or not 0 <= radius <= MOST_RADIUS:
                raise StepError(f"{name}: expected a whole number from 0 to {MOST_RADIUS}, got {shown(radius)}")

    @property
    def reach_voxels(self) -> int | None:
        """Twice the larger radius: there and back."""
        return 2 * max(self.radius_z, self.radius_yx)


@dataclass(frozen=True, kw_only=True)
class Close(_ByEllipsoid):
    """Gaps that an ellipsoid cannot enter are filled."""

    name: ClassVar = "close"
    adds: ClassVar = True


@dataclass(frozen=True, kw_only=True)
class Open(_ByEllipsoid):
    """Parts that cannot hold an ellipsoid are removed."""

    name: ClassVar = "open"
    adds: ClassVar = False


@dataclass(frozen=True, kw_only=True)
class Plug:
    """Voxels that touch across an edge or a corner only are joined across faces."""

    name: ClassVar = "plug"
    reads: ClassVar[Reads] = "mask"
    adds: ClassVar = True
    reach_voxels: ClassVar[int | None] = None  # one plugged block may make the next one need it


Step = Threshold | Hysteresis | Smooth | DropSmallComponents | Majority | Close | Open | Plug | Slit
STEPS: Mapping[str, type[Step]] = {step.name: step for step in get_args(Step)}


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
    needed = [field.name for field in fields(kind) if field.default is MISSING]
    if missing := [name for name in needed if name not in entries]:
        raise StepError(f"{kind.name}: expected the entry {', '.join(missing)}, which has no default")
    try:
        return kind(**entries)
    except StepError as error:
        raise StepError(f"{kind.name}: {error}") from error


def step_to_table(step: Step) -> dict[str, Any]:
    """Return a step as settings write it; what is at its default is left out."""
    entries = {field.name: getattr(step, field.name) for field in fields(step)}
    usual = {field.name: field.default for field in fields(step)}
    return {"step": step.name} | {name: value for name, value in entries.items() if value != usual[name]}


def _is_whole(value: Any) -> bool:
    return type(value) is int


def _is_probability(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1
