"""Where a run came from: sources, libraries, the kind of machine, and the weights that it started from."""

import hashlib
import logging
import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from surface_kernel import machine

log = logging.getLogger("surface_train")

_LIBRARIES = (
    "torch",
    "numpy",
    "numba",
    "segmentation-models-pytorch-3d",
    "dynamic-network-architectures",
    "safetensors",
    "tifffile",
    "pillow",
)


def environment() -> dict[str, Any]:
    """Return what a run depends on beside its settings, ready for JSON.

    Names of hosts, users and folders are left out: the file is meant to be passed on.
    """
    import torch  # not where only a run's folder is read

    return {
        "commit": commit(),
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
        "cuda": torch.version.cuda,
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "machine": platform.machine(),
        "cpu": _cpu(),
        "cores": machine.cores(),
        "memory_gib": round(machine.machine_bytes() / 2**30, 1),
        "torch_threads": torch.get_num_threads(),
    }


def origin(weights: Path | None) -> dict[str, str] | None:
    """Return name and sha256 of the weights that a run starts from, None when it starts from none."""
    if weights is None:
        return None
    with weights.open("rb") as file:
        return {"name": weights.name, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def commit() -> str | None:
    """Return the commit of this source tree, "-dirty" behind it when files were changed since; None outside git.

    Code that was installed from wheels has its commit from SURFACE_COMMIT, where whoever made the wheels set it.
    """
    if stated := os.environ.get("SURFACE_COMMIT"):
        return stated
    # --exclude "*": never a tag's name, always the commit.
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude", "*"]
    english = os.environ | {"LC_ALL": "C"}
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, env=english)
    except OSError:
        return None
    if done.returncode:
        _warn_of_git(" ".join(done.stderr.split()))
        return None
    return done.stdout.strip()


@cache  # each weights file names its commit: once is enough
def _warn_of_git(said: str) -> None:
    """Warn that a clone's commit is not known, and why: git refuses that of another user, as in many containers."""
    if "not a git repository" not in said:
        log.warning("the weights will name no commit: %s", said)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu() -> str | None:
    """Return the processor's model name, None where /proc/cpuinfo does not hold it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)
