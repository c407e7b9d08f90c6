"""A run that a signal ends: Ctrl-C, or the SIGTERM of Slurm and of machines that are taken back."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

from surface_kernel.interrupts import Stopped

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
