"""Files that appear complete or not at all, and the room that there is for them."""

import contextlib
import errno
import fcntl
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

PARTIAL = ".partial"  # how the names of files end while they are written
_CHUNK_BYTES = 1 << 22
_PAUSE_S = 0.05


def put(path: Path, content: bytes | memoryview, tries: int = 3) -> None:
    """Write a file that appears complete under `path` or not at all.

    Args:
        path: an older file of this name is replaced.
        content: all of its bytes.
        tries: a disk that fails once need not fail twice.

    Raises:
        OSError: of the last try; nothing of the new file is left then.
    """
    retry(lambda: put_parts(path, [content], memoryview(content).nbytes), tries)


def put_parts(path: Path, parts: Iterable[bytes | memoryview], size_bytes: int | None = None) -> None:
    """Write a file as `put` does, part by part, in one try. size_bytes: of all parts, for an error; None: unknown."""
    with replacing(path, size_bytes) as partial, partial.open("wb") as file:
        for part in parts:
            file.write(part)


@contextlib.contextmanager
def replacing(path: Path, size_bytes: int | None = None) -> Iterator[Path]:
    """Yield the name of a file to write, which appears as `path` at the end of the block, if that raises nothing.

    Errors of the block are raised as `named` does.
    """
    with named(path, size_bytes), temporary(path) as partial:
        yield partial
        partial.replace(path)


@contextlib.contextmanager
def named(path: Path, size_bytes: int | None = None) -> Iterator[None]:
    """Let an OSError of the block name the file that was to be written, and on a full disk the bytes wanted and free.

    The system's own errors of a write name no file.

    Args:
        path: the file.
        size_bytes: what it would have held; None: unknown.
    """
    try:
        yield
    except OSError as error:
        described = error.strerror != os.strerror(error.errno or 0)  # by `allocate`, which knows best
        if error.errno in (errno.ENOSPC, errno.EDQUOT) and not (described and error.filename):
            wanted = "enough" if size_bytes is None else f"{size_bytes:,}"
            why = f"{os.strerror(error.errno)}: expected {wanted} bytes free, got {free_bytes(path.parent):,}"
            raise OSError(error.errno, why, str(path)) from error
        if error.errno and error.filename is None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def lock(path: Path) -> IO[bytes] | None:
    """Take a file's lock, for as long as what is returned is open: it dies with its process, however that ends.

    Returns:
        The open file, made where there was none; None where the file system has no locks.

    Raises:
        BlockingIOError: where another process has it.
        OSError: where the file cannot be made.
    """
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise
    except OSError:
        file.close()
        return None
    return file


@contextlib.contextmanager
def temporary(path: Path) -> Iterator[Path]:
    """Yield the name of a file to write beside `path`, which is removed at the end of the block."""
    partial = partial_of(path)
    try:
        yield partial
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def retry(action: Callable[[], object], tries: int) -> None:
    """Call `action` until it succeeds, at most `tries` times. Raises the last try's OSError."""
    for left in reversed(range(tries)):
        try:
            action()
            return
        except OSError:
            if not left:
                raise
            time.sleep(_PAUSE_S)


def partial_of(path: Path, process: int | None = None) -> Path:
    """Return the name of a file while this or another process writes it: each uses a name of its own."""
    return path.with_name(f"{path.name}.{process or os.getpid()}{PARTIAL}")


def allocate(path: Path, size_bytes: int) -> None:
    """Make a file of zeros whose room on the disk is taken now.

    What is written through a memory map into a file that only promises its room kills the process on a full disk.

    Raises:
        OSError: where there is no room; nothing is left then.
    """
    # Asked first: a file system may take all that there is before it says that this does not suffice.
    if size_bytes > (free := free_bytes(path.parent)):
        no_space = os.strerror(errno.ENOSPC)
        raise OSError(errno.ENOSPC, f"{no_space}: expected {size_bytes} bytes free, got {free}", str(path))
    try:
        with path.open("wb") as file:
            if size_bytes:
                os.posix_fallocate(file.fileno(), 0, size_bytes)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def copy(source: Path, target: Path) -> int:
    """Copy a file's bytes; return their CRC-32. Raises OSError."""
    checksum = 0
    with source.open("rb") as read, target.open("wb") as write:
        while chunk := read.read(_CHUNK_BYTES):
            checksum = zlib.crc32(chunk, checksum)
            write.write(chunk)
    return checksum


def checksum(path: Path) -> int:
    """Return the CRC-32 of a file's bytes. Raises OSError."""
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            crc = zlib.crc32(chunk, crc)
    return crc


def free_bytes(folder: Path) -> int:
    """Return the room that is left on the disk of a folder."""
    return shutil.disk_usage(folder).free
