"""How benchmarks describe the machine, and summarise a few timings."""

import os
import platform
from pathlib import Path

import numpy as np


def describe() -> str:
    """Return the machine, its software and its load, in one line."""
    import numba
    import torch

    cpu = Path("/proc/cpuinfo").read_text()
    model = next((line.partition(":")[2].strip() for line in cpu.splitlines() if line.startswith("model name")), "?")
    flags = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in cpu.split()]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, numba {numba.__version__}"
    load = f"load {os.getloadavg()[0]:.1f}"
    return f"{len(os.sched_getaffinity(0))} cores of {model} ({', '.join(flags)}), {gpu}; {versions}; {load} at the end"


def median_and_range(seconds: list[float]) -> str:
    """Return the median of some timings, and their range."""
    return f"{np.median(seconds):.3f} ({min(seconds):.3f}–{max(seconds):.3f})"
