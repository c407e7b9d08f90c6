"""Files that are there whole or not at all, and the room that there is for them."""

import contextlib
import errno
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

PARTIAL = ".partial"  # how the names of files end that are being written
_CHUNK_BYTES = 1 << 22
_PAUSE_S = 0.05


def put(path: Path, content: bytes | memoryview, tries: int = 3) -> None:
    """Write a file that appears complete under `path` or not at all. Raises OSError, and leaves nothing then.

    tries: a disk that fails once need not fail twice.
    """
    insist(lambda: put_parts(path, [content]), tries)


def put_parts(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Write a file as `put` does, part by part, in one try."""
    with replacing(path) as partial, partial.open("wb") as file:
        for part in parts:
            file.write(part)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the name of a file to write, which appears as `path` at the end of the block, if that raises nothing."""
    with temporary(path) as partial:
        yield partial
        partial.replace(path)


@contextlib.contextmanager
def temporary(path: Path) -> Iterator[Path]:
    """Yield the name of a file to write beside `path`, which is removed at the end of the block."""
    partial = partial_of(path)
    try:
        yield partial
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def insist(action: Callable[[], object], tries: int) -> None:
    """Do something until it succeeds, `tries` times at the most. Raises the last try's OSError."""
    for left in reversed(range(tries)):
        try:
            action()
            return
        except OSError:
            if not left:
                raise
            time.sleep(_PAUSE_S)


def partial_of(path: Path, process: int | None = None) -> Path:
    """Give the name of a file while this or another process writes it: each uses a name of its own."""
    return path.with_name(f"{path.name}.{process or os.getpid()}{PARTIAL}")


def allocate(path: Path, size_bytes: int) -> None:
    """Make a file of zeros whose room is taken now. Raises OSError, and leaves nothing then.

    What is written through a memory map into a file that only promises its room kills the process on a full disk. The
    room is asked for first: a file system may take all there is before it says that this does not suffice.
    """
    if size_bytes > (free := free_bytes(path.parent)):
        found = f"{os.strerror(errno.ENOSPC)}: {size_bytes} bytes wanted, {free} free"
        raise OSError(errno.ENOSPC, found, str(path))
    try:
        with path.open("wb") as file:
            if size_bytes:
                os.posix_fallocate(file.fileno(), 0, size_bytes)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def copy(source: Path, target: Path) -> int:
    """Copy a file's bytes; give their CRC-32. Raises OSError."""
    checksum = 0
    with source.open("rb") as read, target.open("wb") as write:
        while chunk := read.read(_CHUNK_BYTES):
            checksum = zlib.crc32(chunk, checksum)
            write.write(chunk)
    return checksum


def checksum(path: Path) -> int:
    """Give the CRC-32 of a file's bytes. Raises OSError."""
    found = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            found = zlib.crc32(chunk, found)
    return found


def free_bytes(folder: Path) -> int:
    """Give the room that is left on the disk of a folder."""
    return shutil.disk_usage(folder).free
