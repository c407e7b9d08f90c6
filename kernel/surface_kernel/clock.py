"""The time there is, and whether one more volume fits in."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Clock:
    """Counts down `budget_s` seconds from now.

    margin: how much longer than the slowest volume so far, per voxel, the next one is taken to be.
    reserve_s: kept for writing the submission.
    """

    budget_s: float
    margin: float = 1.25
    reserve_s: float = 30.0
    now_s: Callable[[], float] = time.monotonic
    _start_s: float = field(init=False)
    _slowest_s_per_voxel: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._start_s = self.now_s()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the clock was made."""
        return self.now_s() - self._start_s

    def learn(self, voxels: int, seconds: float) -> None:
        """Remember how long a volume took."""
        self._slowest_s_per_voxel = max(self._slowest_s_per_voxel, seconds / voxels)

    def fits(self, voxels: int) -> bool:
        """Say whether a volume may be begun. The first one always may, while there is any time left at all."""
        expected_s = voxels * self._slowest_s_per_voxel * self.margin
        return self.elapsed_s + expected_s + min(self.reserve_s, 0.1 * self.budget_s) < self.budget_s
