"""What ends a session: its time limit, with how long the parts of a run take, and signals.

Signals are Ctrl-C, and the SIGTERM of Slurm and of machines that are taken back.
"""

import logging
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

from surface_kernel.interrupts import Stopped

_MARGIN = 1.2  # on what a part took before
_STEP_MEMORY = 0.9  # of the slowest step's time, what the next step still remembers


log = logging.getLogger("surface_train")


class StopSignals:
    """Handles SIGINT and SIGTERM in `with`: the first one raises Stopped, a second one ends the process at once.

    number: of the signal that came, 0 before. What must not be interrupted runs in `held`, and looks at `number`.
    """

    def __init__(self) -> None:
        self.number = 0
        self._held = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # others may not handle signals
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:  # as a shell starts what it puts in the background
                    self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let the block end before Stopped is raised."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self.number:
            raise Stopped(self.number)

    def _on_signal(self, number: int, frame: object) -> None:
        self.number = number
        for each in self._before:
            signal.signal(each, signal.SIG_DFL)
        if not self._held:
            raise Stopped(number)
        log.info("%s: stopping after this step; a second one stops at once", signal.Signals(number).name)


class Budget:
    """Seconds that a session may take, from now on, infinite without a limit; and the signals that end it before.

    stop: to be entered by whoever runs the session.
    """

    def __init__(self, budget_s: float) -> None:
        self.stop = StopSignals()
        self._ends_s = time.monotonic() + budget_s
        self.is_limited = budget_s < math.inf

    @property
    def left_s(self) -> float:
        """Seconds left, below 0 when they are over."""
        return self._ends_s - time.monotonic()


@dataclass(kw_only=True)
class Timings:
    """The longest time that each part of this run took, and the time to keep for what is still to come."""

    thresholds: int
    """Thresholds that the final search scores."""
    batchnorm_steps: int
    """Batches that the averaged weights' BatchNorm statistics take."""
    step_s: float = 0.0
    save_s: float = 0.0
    validation_s: float = 0.0
    """Prediction, score at one threshold, and picture."""
    score_s: float = 0.0
    """Of a validation, the score at one threshold."""

    @contextmanager
    def step(self) -> Iterator[None]:
        """Time a step. One slow step is forgotten over the next ones."""
        started_s = time.monotonic()
        yield
        self.step_s = max(_STEP_MEMORY * self.step_s, time.monotonic() - started_s)

    @contextmanager
    def save(self) -> Iterator[None]:
        """Time a save of the state."""
        started_s = time.monotonic()
        yield
        self.save_s = max(self.save_s, time.monotonic() - started_s)

    @contextmanager
    def validation(self) -> Iterator[None]:
        """Time a validation."""
        started_s = time.monotonic()
        yield
        self.validation_s = max(self.validation_s, time.monotonic() - started_s)

    @contextmanager
    def score(self) -> Iterator[None]:
        """Time the scoring of a validation's cases at one threshold."""
        started_s = time.monotonic()
        yield
        self.score_s = max(self.score_s, time.monotonic() - started_s)

    @property
    def finish_s(self) -> float:
        """Seconds that the end of the run takes, 0 before the first validation.

        The averaged and the best single weights are predicted and scored, one of the two at every threshold.
        """
        if not self.validation_s:
            return 0.0
        return 2 * self.validation_s + self.thresholds * self.score_s + self.batchnorm_steps * self.step_s

    @property
    def next_step_s(self) -> float:
        """Seconds to keep for one more step, a save and the end of the run, with a margin."""
        return _MARGIN * (self.step_s + self.save_s + self.finish_s)

    def fold_s(self, share: float) -> float:
        """Seconds to keep for a validation of `share` times as many cases as usual, with a margin."""
        return _MARGIN * self.validation_s * share
