"""How much memory a process and all that it starts hold together, sampled from /proc."""

import contextlib
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

PERIOD_S = 0.2


class MemoryWatch:
    """Samples a process tree until the `with` block ends; then `peak_bytes` is the largest sum that was seen."""

    def __init__(self, pid: int, period_s: float = PERIOD_S) -> None:
        self.peak_bytes = 0
        self._pid, self._period_s = pid, period_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        while True:
            self.peak_bytes = max(self.peak_bytes, sum(memory_bytes(pid) for pid in tree(self._pid)))
            if self._ended.wait(self._period_s):
                return


def tree(pid: int) -> set[int]:
    """Return a process and its descendants that are alive now, by their ids."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                # The name in parentheses may hold anything; the parent is the second field after it.
                fields = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    alive, waiting = set(), [pid]
    while waiting:
        parent = waiting.pop()
        alive.add(parent)
        waiting += children.get(parent, [])
    return alive


def memory_bytes(pid: int) -> int:
    """Return a process's proportional set size, in which a shared page counts once over all.

    Its resident set size where the kernel does not show the former; 0 for a process that has ended.
    """
    for file, entry in (("smaps_rollup", "Pss:"), ("status", "VmRSS:")):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/{file}").read_text(encoding="utf-8").splitlines():
                if line.startswith(entry):
                    return int(line.split()[1]) * 1024
    return 0
