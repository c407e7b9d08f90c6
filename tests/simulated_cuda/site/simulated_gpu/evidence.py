"""What the simulation saw, a JSON object a line in the file that the wishes name."""

import json
import os
import sys
import threading
from collections import Counter
from pathlib import Path

_seen: Counter[str] = Counter()
_MOST = 4  # of the same hazard: a loop repeats it


def note(kind: str, **entries) -> None:
    """Write down what was seen."""
    from simulated_gpu import wishes

    if wishes.now.evidence:
        line = {"kind": kind, "process": os.getpid(), "thread": threading.current_thread().name, **entries}
        with Path(wishes.now.evidence).open("a") as file:
            file.write(json.dumps(line) + "\n")


def hazard(text: str, at: str = "") -> None:
    """Write down code that may go wrong on a real GPU."""
    _seen[text] += 1
    if _seen[text] <= _MOST:
        note("hazard", text=text, at=at or where())


def where() -> str:
    """Return the lines of the project's code that led here, the innermost first."""
    frame, found = sys._getframe(1), []
    while frame and len(found) < 4:
        file = frame.f_code.co_filename
        if "/surface_" in file or "/test_" in file:
            found.append(f"{file.rsplit('/', 1)[-1]}:{frame.f_lineno}")
        frame = frame.f_back
    return " < ".join(found)
