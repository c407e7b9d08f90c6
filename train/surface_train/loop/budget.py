"""How long a run may take, counted from where the run began."""

import time


class Budget:
    """Seconds that a run may take, from now on; infinite where nobody set any."""

    def __init__(self, budget_s: float) -> None:
        self._ends_s = time.monotonic() + budget_s

    @property
    def left_s(self) -> float:
        """Give the seconds that are left, below 0 when they are over."""
        return self._ends_s - time.monotonic()
