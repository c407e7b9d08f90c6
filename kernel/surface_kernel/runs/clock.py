"""The time there is, and what each kind of work takes on this machine.

The clock counts from the start of the process, so that what Python needed to get here counts too. Costs are measured
as the run goes: seconds for a size (voxels, passes over voxels, bytes), of each kind of work the last few.
"""

import os
import time
from collections import defaultdict, deque
from collections.abc import Callable
from pathlib import Path

MARGIN = 1.25  # how much longer than usual work is taken to be, at least
REMEMBERED = 8  # of each kind: a machine that slows down is noticed, and a slow start forgotten
_IMPORTED_S = time.monotonic()


def process_age_s() -> float:
    """Return the seconds since this process began; since this module was imported, where the system does not say."""
    try:
        ticks = int(Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return time.monotonic() - _IMPORTED_S


class Clock:
    """Counts down from `budget_s`, and remembers what work took."""

    def __init__(self, budget_s: float, elapsed_s: Callable[[], float] = process_age_s) -> None:
        self.budget_s, self._elapsed_s = budget_s, elapsed_s
        self._seen: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=REMEMBERED))

    @property
    def elapsed_s(self) -> float:
        """Return the seconds that have gone by."""
        return self._elapsed_s()

    @property
    def left_s(self) -> float:
        """Return the seconds that are left."""
        return self.budget_s - self.elapsed_s

    def learn(self, kind: str, size: float, seconds: float) -> None:
        """Remember what work of some kind and size took; nothing where either is unknown, which is 0."""
        if size > 0 and seconds > 0:
            self._seen[kind].append(seconds / size)

    def knows(self, kind: str) -> bool:
        """Whether work of this kind was ever measured."""
        return bool(self._seen[kind])

    def expect_s(self, kind: str, size: float) -> float:
        """Return what work may take: the slowest of the last few, but at least MARGIN times their mean; 0: unknown."""
        seen = self._seen[kind]
        if not seen:
            return 0.0
        return size * max(*seen, MARGIN * sum(seen) / len(seen))


def duration(seconds: float) -> str:
    """Return seconds as people write them: 2 h 05 min, 3 min 09 s."""
    hours, rest = divmod(int(max(0.0, seconds)), 3600)
    return f"{hours} h {rest // 60:02d} min" if hours else f"{rest // 60} min {rest % 60:02d} s"
