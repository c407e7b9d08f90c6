"""Decode the pages of an unusual TIFF with Pillow, in a process of its own that ends when it takes too much.

Pillow leaves the decoding to libtiff and its codecs: C code that a broken file may bring to hang, crash or eat all
memory. So `python decoder.py FILE MEMORY_BYTES CPU_S` decodes under limits and writes what it makes of every page to
its standard output: a line "page MODE WIDTH HEIGHT" and the page's bytes; a line "error PAGE WHY" where one fails. It
imports Pillow only, to be there soon. `decode` starts it and believes nothing of what it sends.
"""

import os
import resource
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

CPU_FLOOR_S = 10.0  # loading Pillow takes a tenth of a second, on a busy machine a second
_BYTES_PER_S = 10_000_000  # decoded; libtiff's slowest codecs make more
_WALL_PER_CPU = 6  # a slow disk or a busy machine is no fault of the file's
_MEMORY_FLOOR_BYTES = 1 << 29  # Python and Pillow take half of it, most of that without touching it
_PAGES_IN_MEMORY = 8  # libtiff's page, Pillow's, its bytes, and what a codec works in
_LINE_BYTES = 4096


class DecodeError(ValueError):
    """Pages that could not be decoded as declared; the message does not name the file."""


@dataclass(frozen=True, kw_only=True)
class DecodingLimits:
    """What decoding may take."""

    memory_bytes: int
    """Of address space."""
    cpu_s: float
    """Of the CPU's time."""
    wall_s: float
    """By the clock."""

    @classmethod
    def of(cls, *, page_bytes: int, pages: int, file_bytes: int) -> "DecodingLimits":
        """Return what pages of this decoded size may take; libtiff maps the whole file."""
        cpu_s = CPU_FLOOR_S + page_bytes * pages / _BYTES_PER_S
        memory_bytes = _MEMORY_FLOOR_BYTES + file_bytes + _PAGES_IN_MEMORY * page_bytes
        return cls(memory_bytes=memory_bytes, cpu_s=cpu_s, wall_s=_WALL_PER_CPU * cpu_s)


def decode(path: Path, out: "npt.NDArray[np.uint8]") -> None:
    """Decode a file's pages.

    Args:
        path: a TIFF of any codec that Pillow has.
        out: uint8 (z, y, x), C-contiguous, of the shape that the pages declare; they are written into it.

    Raises:
        DecodeError: where they are not what was declared, or take too much; `out` holds anything then.
        OSError: where no process can be started.
    """
    limits = DecodingLimits.of(page_bytes=out[0].nbytes, pages=len(out), file_bytes=path.stat().st_size)
    # -P and the path: it finds Pillow where we do, and nothing in the folder that this file lies in.
    command = [sys.executable, "-P", __file__, str(path), str(limits.memory_bytes), f"{limits.cpu_s:.0f}"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    late = threading.Event()

    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ) as child:

        def stop() -> None:
            late.set()
            child.kill()

        timer = threading.Timer(limits.wall_s, stop)
        timer.start()
        try:
            assert child.stdout is not None
            pages = _receive(child.stdout, out)
            child.stdout.close()
            code = child.wait()
        finally:
            timer.cancel()
            child.kill()
    if late.is_set():
        raise DecodeError(f"expected {len(out)} pages within {limits.wall_s:.0f} s, got no further than page {pages}")
    if code == -signal.SIGXCPU:
        within = f"{limits.cpu_s:.0f} s of CPU time"
        raise DecodeError(f"expected {len(out)} pages within {within}, got no further than page {pages}")
    if code:
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        raise DecodeError(f"expected {len(out)} pages, got the decoder ended by {how} on page {pages}")
    if pages != len(out):
        raise DecodeError(f"expected {len(out)} pages as the header says, got {pages}")


def _receive(stream: IO[bytes], out: "npt.NDArray[np.uint8]") -> int:
    """Read pages into `out`; return how many came complete. Raises DecodeError when one is not what was declared."""
    pages = 0
    while line := stream.readline(_LINE_BYTES).decode(errors="replace"):
        kind, _, rest = line.strip().partition(" ")
        if kind == "error":
            page, _, why = rest.partition(" ")
            raise DecodeError(f"expected {len(out)} pages that decode, got an error on page {page} ({why})")
        declared = f"L {out.shape[2]} {out.shape[1]}"
        if pages == len(out) or rest != declared:
            expected = f"{len(out)} pages of {declared} (mode, width, height) as the header says"
            got = f"page {pages} of {rest}" if kind == "page" else f"{line[:80]!r} from the decoder"
            raise DecodeError(f"expected {expected}, got {got}")
        if stream.readinto(out[pages].data) != out[pages].nbytes:  # type: ignore[attr-defined]
            break
        pages += 1
    return pages


def main(path: str, memory_bytes: int, cpu_s: int) -> None:
    """Run as the process that decodes: take the limits, then write every page to standard output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever started this process, who ends it
    for kind, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_s),
    ):
        _, hard = resource.getrlimit(kind)
        # Only the soft one: where both are equal, the process is killed, and nobody learns that it was for its time.
        resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    page, out = 0, sys.stdout.buffer
    try:
        from PIL import Image

        Image.MAX_IMAGE_PIXELS = None  # whoever started us has judged the size
        with Image.open(path, formats=["TIFF"]) as image:
            for page in range(getattr(image, "n_frames", 1)):
                image.seek(page)
                content = image.tobytes()
                out.write(f"page {image.mode} {image.width} {image.height}\n".encode())
                out.write(content)
                out.flush()
    except Exception as error:  # on broken files Pillow raises OSError, TypeError, KeyError, SyntaxError, struct.error
        why = " ".join(f"{type(error).__name__}: {error}".split())
        out.write(f"error {page} {why}"[: _LINE_BYTES // 4].encode(errors="replace") + b"\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
