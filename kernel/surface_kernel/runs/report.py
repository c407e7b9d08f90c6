"""What happened, for machines (run_report.json) and for people (run_report.txt)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from surface_kernel import disk

COMPLETE, PARTLY, ZEROS = "predicted", "partly", "zeros"
UNIFORM_SHARES = (0.001, 0.95)  # outside of these a mask is called uniform: all surface or none says nothing
LEAST_VARIANCE = 0.001  # of probabilities: below it a network says the same everywhere


@dataclass(frozen=True)
class VolumeReport:
    """One volume's outcome.

    stages, wanted: that its mask is made of, and that the settings ask for. seconds: that its networks took.
    foreground: share of the mask. variance: of the probabilities. reason: why stages are missing. notes: what else
    happened.
    """

    case: str
    shape_zyx: tuple[int, int, int]
    stages: int
    wanted: int
    seconds: float = 0.0
    foreground: float = 0.0
    variance: float = 0.0
    reason: str = ""
    notes: tuple[str, ...] = ()

    @property
    def status(self) -> str:
        """Say whether it has all stages, some, or none."""
        return COMPLETE if self.stages >= self.wanted else PARTLY if self.stages else ZEROS

    @property
    def warning(self) -> str:
        """Say what is odd about a prediction; empty when nothing is."""
        low, high = UNIFORM_SHARES
        if self.stages and not low <= self.foreground <= high:
            return f"the mask is uniform: {self.foreground:.2%} foreground"
        if self.stages and self.variance < LEAST_VARIANCE:
            return f"the probabilities are uniform: variance {self.variance:.2g}"
        return ""

    def line(self) -> str:
        """Give the outcome in one line."""
        shape = "×".join(str(size) for size in self.shape_zyx)
        notes = "".join(f"; {note}" for note in self.notes)
        if not self.stages:
            return f"{self.case}  {shape}  zeros: {self.reason}{notes}"
        missing = f" of {self.wanted}" + f": {self.reason}" * bool(self.reason) if self.stages < self.wanted else ""
        stages = f"  stages {self.stages}{missing}" if self.wanted > 1 else ""
        found = f"foreground {self.foreground:.2%}, spread {self.variance:.3f}"
        warning = f"  WARNING {self.warning}" if self.warning else ""
        return f"{self.case}  {shape}  {self.seconds:.1f} s{stages}  {found}{warning}{notes}"


@dataclass(frozen=True)
class RunReport:
    """A whole run.

    how: the device as whoever is to repeat the run must set it, what else was tried, and the tiles of every shape.
    trouble: what went wrong with the run as a whole.
    """

    volumes: Sequence[VolumeReport]
    device: str
    wall_s: float
    budget_s: float
    how: Mapping[str, Any] = field(default_factory=dict)
    trouble: Sequence[str] = ()

    @property
    def complete(self) -> bool:
        """Whether every volume has all its stages."""
        return all(volume.status == COMPLETE for volume in self.volumes)

    @property
    def verdict(self) -> str:
        """Say in a word what came of it."""
        return "complete" if self.complete else "degraded"

    def write(self, output: Path) -> None:
        """Write both forms into `output`. Raises OSError."""
        entries = {
            "verdict": self.verdict,
            "device": self.device,
            "wall_s": round(self.wall_s, 3),
            "budget_s": self.budget_s,
            "trouble": list(self.trouble),
            "how": dict(self.how),
            "volumes": [
                asdict(volume) | {"status": volume.status, "warning": volume.warning} for volume in self.volumes
            ],
        }
        disk.put(output / "run_report.json", (json.dumps(entries, indent=2) + "\n").encode())
        done = sum(volume.status == COMPLETE for volume in self.volumes)
        partly = sum(volume.status == PARTLY for volume in self.volumes)
        some = f", {partly} in part" if partly else ""
        counted = f"{done} of {len(self.volumes)} volumes predicted{some}"
        head = f"{self.verdict}: {counted} in {self.wall_s:.0f} s of {self.budget_s:.0f} on {self.device}"
        lines = [head, *(f"trouble: {line}" for line in self.trouble), *(volume.line() for volume in self.volumes)]
        disk.put(output / "run_report.txt", ("\n".join(lines) + "\n").encode())
