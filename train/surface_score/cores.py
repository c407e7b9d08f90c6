"""How many cores there are to work with."""

import os


def allowed_cores() -> int:
    """Return how many cores this process may use, which may be fewer than the machine has."""
    counted = os.process_cpu_count() if hasattr(os, "process_cpu_count") else len(os.sched_getaffinity(0))
    return counted or 1
