"""Signals that end a command: it tidies up, and exits as a shell expects it."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Stopped(KeyboardInterrupt):
    """A command that a signal ended; the message says where it stands, if that matters."""

    def __init__(self, number: int, message: str = "") -> None:
        super().__init__(message)
        self.number = number
        """Of the signal."""


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM raise Stopped in the block, as Ctrl-C raises KeyboardInterrupt: what is open is closed, and removed.

    Other threads than the first one may not handle signals: there nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once
        raise Stopped(number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def status_of(interrupt: KeyboardInterrupt) -> int:
    """Return what a shell reports for such an end: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + (interrupt.number if isinstance(interrupt, Stopped) else signal.SIGINT)
