"""What a run took, against what Kaggle gives: memory of the whole machine, and time for the hidden test."""

import runpy
from collections.abc import Sequence

from surface_package.build import manifest

MEMORY_BYTES = 29e9  # the least that was seen of a machine with two T4
VOLUMES, SIDE_VOXELS = 120, 320  # of the hidden test, about; 738 of the competition's 786 volumes are 320³


def budget_s() -> float:
    """Return the wall time that submit.py gives itself on Kaggle."""
    return float(runpy.run_path(str(manifest.submit_script()))["BUDGET_S"])


def scaled_s(*, wall_s: float, voxels: int, seconds: Sequence[float], workers: int) -> float:
    """Return the wall time of the hidden test, in seconds, from that of a run with data.

    Args:
        wall_s: the run's.
        voxels: of all its volumes.
        seconds: of every volume, what its networks took; the rest of the wall time is start-up and counted once. Where
            all are 0 the whole run grows with the voxels.
        workers: devices that share the volumes.
    """
    work_s = sum(seconds) / workers
    if not work_s:
        seconds, work_s = [wall_s], wall_s
    # Of few volumes on many devices, some devices have none: the longest volume bounds the span.
    span_s = min(max(work_s, *seconds), wall_s)
    return wall_s - span_s + work_s * VOLUMES * SIDE_VOXELS**3 / voxels


def workers(device: str) -> int:
    """Return how many devices shared the volumes of a run on this one, as its report names it: "cuda" is all GPUs."""
    if device != "cuda":
        return 1
    from torch import cuda

    return max(1, cuda.device_count())


def memory_findings(peak_bytes: int) -> list[str]:
    """Return a finding where a run's process tree took more memory than Kaggle's machine has."""
    if peak_bytes <= MEMORY_BYTES:
        return []
    expected = f"expected at most {MEMORY_BYTES / 1e9:.0f} GB in all processes, as on Kaggle"
    return [f"memory: {expected}, got {peak_bytes / 1e9:.1f} GB; take a smaller network or fewer members"]


def judge_time(expected_s: float, device: str) -> tuple[str, list[str]]:
    """Return a line on how long the hidden test would take, and a finding where that is too long.

    Of a run without a GPU it is no finding: it says nothing about Kaggle's.
    """
    what = f"{VOLUMES} volumes of {SIDE_VOXELS}³ would take {expected_s / 3600:.2f} h at this run's speed"
    budget_h = budget_s() / 3600
    if not device.startswith("cuda"):
        return f"{what}, of {budget_h:.1f} h, on {device}: no CUDA device, so no verdict on Kaggle's GPUs", []
    advice = "take fewer views or members, or Kaggle's run will leave some out"
    finding = f"time: expected at most {budget_h:.1f} h, got: {what} on {device}; {advice}"
    return f"{what}, of {budget_h:.1f} h, on {device}", [finding] if expected_s > budget_s() else []
