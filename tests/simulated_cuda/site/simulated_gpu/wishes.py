"""What a test asks of the simulated CUDA, in a JSON file that SIMULATED_CUDA names.

A file, since a worker is forked from a server whose environment is as old as the test session: every process reads it
when it starts, and a test's own process when it is told to.
"""

import json
import os
from dataclasses import dataclass, fields
from pathlib import Path

import simulated_device as device

from simulated_gpu import faults


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What is simulated."""

    gpus: int = 1
    capability: tuple[int, int] = (7, 5)
    """Of the architecture: a T4's, without bfloat16."""
    total_bytes: int = 15_800_000_000
    """What a GPU says that it has."""
    limit_bytes: int = 0
    """What it really has; 0: no limit."""
    poison: float = 12345.0
    """What pinned memory holds until a copy into it has been waited for. NaN would be mended silently by some."""
    faults: tuple[dict, ...] = ()
    """Entries of `faults.Fault`."""
    evidence: str = ""
    """The file of what was seen, a JSON object a line."""


now = Wishes()


def read() -> None:
    """Take over what the file says now; faults begin to count anew."""
    global now
    path = Path(os.environ["SIMULATED_CUDA"])
    entries = json.loads(path.read_text()) if path.exists() else {}
    unknown = set(entries) - {field.name for field in fields(Wishes)}
    if unknown:
        raise ValueError(f"{path}: expected entries of Wishes, got {sorted(unknown)}")
    entries |= {name: tuple(entries[name]) for name in ("capability", "faults") if name in entries}
    now = Wishes(**entries)
    device.set_device_count(now.gpus)
    for index in range(now.gpus):
        device.set_limit(index, now.limit_bytes)
        device.reset_peak(index)
    faults.arm(now.faults)
