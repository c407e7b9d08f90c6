"""A disk on which one write goes wrong: files below a folder, in this process, by whatever of Python's ways."""

import builtins
import errno
import io
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KINDS = ("no space", "error", "short")
_CODES = {"no space": errno.ENOSPC, "error": errno.EIO}


@dataclass
class BrokenDisk:
    """Lets the n-th change below a folder go wrong.

    kind: one of KINDS. "short" writes less than was asked for and says so, which is no error. Changes are: opening for
    writing, every write that reaches the system, taking room, renaming. seen: how many there were.
    """

    folder: Path
    nth: int
    kind: str
    seen: int = 0
    _real: dict[str, Callable[..., Any]] = field(default_factory=dict)

    def __enter__(self):
        self._real = {"open": io.open, "replace": os.replace, "fallocate": os.posix_fallocate}
        builtins.open = io.open = self._open
        os.replace, os.posix_fallocate = self._replace, self._fallocate
        return self

    def __exit__(self, *_):
        builtins.open = io.open = self._real["open"]
        os.replace, os.posix_fallocate = self._real["replace"], self._real["fallocate"]

    def _inside(self, path):
        try:
            return str(Path(path)).startswith(str(self.folder))
        except TypeError:  # a descriptor
            return False

    def change(self):
        """Counts a change; says whether it is to be a short one."""
        self.seen += 1
        if self.seen == self.nth and self.kind != "short":
            raise OSError(_CODES[self.kind], os.strerror(_CODES[self.kind]), "a broken disk")
        return self.seen == self.nth

    def _open(self, file, mode="r", buffering=-1, *rest, **named):
        if "w" not in mode or not self._inside(file):
            return self._real["open"](file, mode, buffering, *rest, **named)
        self.change()
        raw = _File(self, file, mode.replace("b", "").replace("t", ""))
        if "b" not in mode:
            return io.TextIOWrapper(io.BufferedWriter(raw))
        return io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)

    def _replace(self, source, target, **named):
        if self._inside(target):
            self.change()
        return self._real["replace"](source, target, **named)

    def _fallocate(self, *where):
        self.change()
        return self._real["fallocate"](*where)


class _File(io.FileIO):
    def __init__(self, disk, path, mode):
        super().__init__(path, mode)
        self._disk = disk

    def write(self, content):
        content = memoryview(content)
        if self._disk.change() and len(content) > 1:
            content = content[: len(content) // 2]
        return super().write(content)
