"""What became of every volume and of the run, for machines (run_report.json) and for people (run_report.txt)."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from surface_kernel import disk
from surface_kernel.inference.tiles import Shape
from surface_kernel.runs.messages import sides

PREDICTED, PARTLY, ZEROS = "predicted", "partly", "zeros"
UNIFORM_SHARES = (0.001, 0.95)  # outside of these a mask is called uniform: all surface or none says nothing
LEAST_VARIANCE = 0.001  # of probabilities: below it a network says the same everywhere


def uniform_fault(
    foreground: float,
    variance: float | None = None,
    *,
    shares: tuple[float, float] = UNIFORM_SHARES,
    least_variance: float = LEAST_VARIANCE,
) -> str:
    """Return in what way a prediction is uniform, empty where it is not. NaN is uniform.

    Args:
        foreground: its share of surface, 0 to 1.
        variance: of its probabilities; None for a mask, which has none of its own.
        shares: the least and the greatest share that are none of a uniform prediction.
        least_variance: of probabilities that are not uniform.
    """
    low, high = shares
    if not foreground <= high:
        return f"expected at most {100 * high:g}% foreground, got {foreground:.2%}"
    if not foreground >= low:
        return f"expected at least {100 * low:g}% foreground, got {foreground:.2%}"
    if variance is not None and not variance >= least_variance:
        return f"expected a variance of at least {least_variance:g}, got {variance:.2g}"
    return ""


def validation_fault(provenance: Mapping[str, Any]) -> str:
    """Return in what way the validation was uniform that a weights file quotes, empty where it was not, or is none.

    provenance: of the file; it holds the limits that its training had, where it is not an older one.
    """
    validation, limits = provenance.get("validation"), provenance.get("limits")
    if not isinstance(validation, Mapping):
        return ""
    own = limits if isinstance(limits, Mapping) else {}
    try:
        return uniform_fault(
            float(validation["foreground"]),
            float(validation["variance"]),
            shares=(
                float(own.get("least_foreground", UNIFORM_SHARES[0])),
                float(own.get("most_foreground", UNIFORM_SHARES[1])),
            ),
            least_variance=float(own.get("least_variance", LEAST_VARIANCE)),
        )
    except (KeyError, TypeError, ValueError):  # of another program: it says nothing that can be judged
        return ""


class Outcome(StrEnum):
    """How a command ended."""

    COMPLETE = "complete"
    DEGRADED = "degraded"
    """Done with losses: some volume has not all of its stages."""
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class VolumeReport:
    """What became of one volume."""

    case: str
    shape_zyx: Shape
    stages: int
    """That its mask is made of."""
    wanted: int
    """Stages that the settings ask for."""
    seconds: float = 0.0
    """That its networks took."""
    foreground: float = 0.0
    """Share of the mask."""
    unscanned: float = 0.0
    """Share of the predicted voxels that was removed, since nothing was scanned there."""
    variance: float = 0.0
    """Of the probabilities."""
    reason: str = ""
    """Why stages are missing."""
    notes: tuple[str, ...] = ()
    """What else happened."""

    @property
    def status(self) -> str:
        """Return whether it has all stages, some, or none."""
        return PREDICTED if self.stages >= self.wanted else PARTLY if self.stages else ZEROS

    @property
    def warning(self) -> str:
        """Return what is suspicious about a prediction; empty where nothing is."""
        low, high = UNIFORM_SHARES
        if self.stages and not low <= self.foreground <= high:
            return f"the mask is uniform: {self.foreground:.2%} foreground"
        if self.stages and self.variance < LEAST_VARIANCE:
            return f"the probabilities are uniform: variance {self.variance:.2g}"
        return ""

    def line(self) -> str:
        """Return the outcome in one line."""
        head, notes = f"{self.case}  {sides(self.shape_zyx)}", "".join(f"; {note}" for note in self.notes)
        if not self.stages:
            return f"{head}  zeros: {self.reason}{notes}"
        missing = f" of {self.wanted}" + f": {self.reason}" * bool(self.reason) if self.stages < self.wanted else ""
        stages = f"  stages {self.stages}{missing}" if self.wanted > 1 else ""
        removed = f", unscanned {self.unscanned:.2%} removed" if self.unscanned else ""
        statistics = f"foreground {self.foreground:.2%}{removed}, variance {self.variance:.3f}"
        warning = f"  WARNING {self.warning}" if self.warning else ""
        return f"{head}  {self.seconds:.1f} s{stages}  {statistics}{warning}{notes}"


@dataclass(kw_only=True)
class VolumeProgress:
    """How far a volume is."""

    case: str
    path: Path
    shape_zyx: Shape
    predicted: int = 0
    """Stages whose units are done."""
    written: int = 0
    """Stages that its mask in the submission is made of."""
    closed: str = ""
    """Why it gets no further stage; empty while it may."""
    under_way: bool = False
    """Whether a worker has its next unit."""
    failures: int = 0
    """Of its next unit."""
    late: bool = False
    """Whether it comes last of its stage, and alone, since a worker or a run may have died of it."""
    trained_tile: bool = False
    """Whether it takes tiles of the trained size only, since a worker was killed for its memory."""
    image_sha256: str | None = None
    sums_crc32: int | None = None
    seconds: float = 0.0
    """That its networks took."""
    variance: float = 0.0
    """Of the probabilities."""
    foreground: float = 0.0
    """Share of its mask."""
    unscanned: float = 0.0
    """Share of the predicted voxels that was removed, since nothing was scanned there."""
    no_room: str = ""
    """Why the disk has no room for its next unit, if so."""
    notes: list[str] = field(default_factory=list)

    @property
    def voxels(self) -> int:
        """Count its voxels."""
        return math.prod(self.shape_zyx)

    def report(self, wanted: int, reason: str = "") -> VolumeReport:
        """Return its outcome so far. wanted: stages; reason: why it has not all of them, if so."""
        return VolumeReport(
            case=self.case,
            shape_zyx=self.shape_zyx,
            stages=self.written,
            wanted=wanted,
            seconds=self.seconds,
            foreground=self.foreground,
            unscanned=self.unscanned,
            variance=self.variance,
            reason=reason if self.written < wanted else "",
            notes=tuple(self.notes),
        )


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """What became of a whole run."""

    volumes: Sequence[VolumeReport]
    device: str
    """In words."""
    wall_s: float
    budget_s: float
    how: Mapping[str, Any] = field(default_factory=dict)
    """`RunConditions.to_mapping`: --device takes it from the written report."""
    trouble: Sequence[str] = ()
    """What went wrong with the run as a whole, one line each."""

    @property
    def outcome(self) -> Outcome:
        """Return whether every volume has all its stages."""
        complete = all(volume.status == PREDICTED for volume in self.volumes)
        return Outcome.COMPLETE if complete else Outcome.DEGRADED

    def write(self, folder: Path) -> None:
        """Write run_report.json and run_report.txt. Raises OSError."""
        entries = {
            "verdict": self.outcome,
            "device": self.device,
            "wall_s": round(self.wall_s, 3),
            "budget_s": self.budget_s,
            "trouble": list(self.trouble),
            "how": dict(self.how),
            "volumes": [
                asdict(volume) | {"status": volume.status, "warning": volume.warning} for volume in self.volumes
            ],
        }
        disk.put(folder / "run_report.json", (json.dumps(entries, indent=2) + "\n").encode())
        lines = [
            self._head(),
            *(f"trouble: {line}" for line in self.trouble),
            *(volume.line() for volume in self.volumes),
        ]
        disk.put(folder / "run_report.txt", ("\n".join(lines) + "\n").encode())

    def _head(self) -> str:
        predicted = sum(volume.status == PREDICTED for volume in self.volumes)
        partly = sum(volume.status == PARTLY for volume in self.volumes)
        counts = f"{predicted} of {len(self.volumes)} volumes predicted" + f", {partly} partly" * bool(partly)
        return f"{self.outcome}: {counts} in {self.wall_s:.0f} s of {self.budget_s:.0f} on {self.device}"
