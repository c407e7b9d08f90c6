"""What the machine has for this process, asked without torch."""

import os
from pathlib import Path


def cores() -> int:
    """Return how many cores this process may use."""
    counted = os.process_cpu_count() if hasattr(os, "process_cpu_count") else len(os.sched_getaffinity(0))
    return counted or 1


def machine_bytes() -> int:
    """Return the memory for this process and all beside it: the container's limit or the machine's, the lesser."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    # A container's limit, as cgroups of version 2 and 1 state it.
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(limit).read_text().strip()
        except OSError:
            continue
        if text.isdecimal():
            memory_bytes = min(memory_bytes, int(text))
    return memory_bytes


def cache_folder() -> Path | None:
    """Return the user's folder for what need not be made twice, made if need be; None where nothing can be kept."""
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = base / "vesuvius-surface"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: a user without a home
        return None
    return folder if os.access(folder, os.W_OK) else None


def cpu_flags() -> set[str]:
    """Return the words of /proc/cpuinfo, the CPU's features among them; empty where there is no such file."""
    try:
        return set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return set()
