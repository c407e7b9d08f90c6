"""The page of a run or a rehearsal, left by whoever made it: a process of its own, where `surface_report` is installed.

Its room may be imported by none, and nothing that goes wrong in it is the matter of what it reports on.
"""

import importlib.util
import subprocess
import sys
from pathlib import Path

from surface_kernel.message import printable

MODULE = "surface_report"
PATIENCE_S = 900.0  # many times what 120 volumes take


def leave_page(out: Path, patience_s: float = PATIENCE_S, **inputs: Path) -> str:
    """Make a page by `python -m surface_report`.

    Args:
        out: The page; one of before stays where no new one is made.
        patience_s: When to give it up.
        inputs: Its options by name, such as `run` for --run.

    Returns:
        One line for the log: where the page is, or why there is none; empty where surface_report is not installed.
    """
    if importlib.util.find_spec(MODULE) is None:
        return ""
    options = [word for name, path in inputs.items() for word in (f"--{name}", str(path))]
    command = [sys.executable, "-m", MODULE, *options, "--out", str(out)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=patience_s
        )
    except subprocess.TimeoutExpired:
        return f"no page: surface_report was stopped after {patience_s:.0f} s"
    except OSError as error:
        return f"no page: surface_report could not be started ({error})"
    said = (done.stdout + done.stderr).strip().splitlines()
    if not out.is_file() or done.returncode not in (0, 3):
        return f"no page: surface_report exited with {done.returncode}: {printable(said[-1]) if said else 'no output'}"
    return f"page: {out}"
