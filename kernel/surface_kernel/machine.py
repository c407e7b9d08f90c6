"""What the machine has for this process, asked without torch."""

import os
from pathlib import Path


def cores() -> int:
    """Count the cores that this process may use."""
    counted = os.process_cpu_count() if hasattr(os, "process_cpu_count") else len(os.sched_getaffinity(0))
    return counted or 1


def machine_bytes() -> int:
    """Give the memory that there is for this process and all beside it: the container's limit or the machine's."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(limit).read_text().strip()
        except OSError:
            continue
        if text.isdecimal():
            found = min(found, int(text))
    return found


def cpu_flags() -> set[str]:
    """Return the words of /proc/cpuinfo, the CPU's features among them; none where there is no such file."""
    try:
        return set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return set()
