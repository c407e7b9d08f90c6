"""What happened, for machines (run_report.json) and for people (run_report.txt)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

PREDICTED, ZEROS = "predicted", "zeros"
UNIFORM_SHARES = (0.001, 0.95)  # outside of these a mask is called uniform: all surface or none says nothing
LEAST_VARIANCE = 0.001  # of probabilities: below it a network says the same everywhere


@dataclass(frozen=True)
class VolumeReport:
    """One volume's outcome.

    foreground: share of the mask. variance: of the probabilities. reason: why zeros stand. notes: what else happened.
    """

    case: str
    shape_zyx: tuple[int, int, int]
    status: str
    seconds: float = 0.0
    foreground: float = 0.0
    variance: float = 0.0
    reason: str = ""
    notes: tuple[str, ...] = ()

    @property
    def warning(self) -> str:
        """Say what is odd about a prediction; empty when nothing is."""
        low, high = UNIFORM_SHARES
        if self.status == PREDICTED and not low <= self.foreground <= high:
            return f"the mask is uniform: {self.foreground:.2%} foreground"
        if self.status == PREDICTED and self.variance < LEAST_VARIANCE:
            return f"the probabilities are uniform: variance {self.variance:.2g}"
        return ""

    def line(self) -> str:
        """Give the outcome in one line."""
        shape = "×".join(str(size) for size in self.shape_zyx)
        notes = "".join(f"; {note}" for note in self.notes)
        if self.status != PREDICTED:
            return f"{self.case}  {shape}  zeros: {self.reason}{notes}"
        warning = f"  WARNING {self.warning}" if self.warning else ""
        return f"{self.case}  {shape}  {self.seconds:.1f} s  foreground {self.foreground:.2%}{warning}{notes}"


@dataclass(frozen=True)
class RunReport:
    """A whole run. It is complete when every volume was predicted, else degraded.

    how: the device as whoever is to repeat the run must set it, what else was tried, and the tiles of every shape.
    """

    volumes: Sequence[VolumeReport]
    device: str
    wall_s: float
    how: Mapping[str, Any] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether no volume kept its zeros."""
        return all(volume.status == PREDICTED for volume in self.volumes)

    def write(self, output: Path) -> None:
        """Write both forms into `output`."""
        verdict = "complete" if self.complete else "degraded"
        entries = {
            "verdict": verdict,
            "device": self.device,
            "wall_s": round(self.wall_s, 3),
            "how": dict(self.how),
            "volumes": [asdict(volume) | {"warning": volume.warning} for volume in self.volumes],
        }
        _write(output / "run_report.json", json.dumps(entries, indent=2) + "\n")
        done = sum(volume.status == PREDICTED for volume in self.volumes)
        head = f"{verdict}: {done} of {len(self.volumes)} volumes predicted in {self.wall_s:.0f} s on {self.device}"
        _write(output / "run_report.txt", "\n".join([head, *(volume.line() for volume in self.volumes)]) + "\n")


def _write(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    partial.replace(path)
