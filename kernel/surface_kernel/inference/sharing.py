"""Work on planes shared out over threads: compiled kernels here release Python's lock and start no threads.

numba's own threads would reset torch's (numba issue 9387), and its default layer must not be entered by two threads at
once.
"""

from collections.abc import Callable
from concurrent.futures import Executor
from itertools import pairwise

Work = Callable[[int, int], None]
Share = Callable[[Work, int], None]


def alone(work: Work, planes: int) -> None:
    """Do all of the work in this thread."""
    work(0, planes)


def shared_by(pool: Executor, threads: int) -> Share:
    """Return a `Share` that cuts planes into one part a thread: it calls work(first, last) until all are covered."""

    def share(work: Work, planes: int) -> None:
        cuts = [planes * part // threads for part in range(threads + 1)]
        for done in [pool.submit(work, first, last) for first, last in pairwise(cuts)]:
            done.result()

    return share
