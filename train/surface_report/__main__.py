"""Make one self-contained HTML page from a run folder, a submission, its truth, a data folder, or any of them together.

python -m surface_report [--run RUN] [--submission ZIP] [--truth DIR] [--images DIR] [--data DIR] --out page.html
"""

import argparse
import importlib.util
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from surface_kernel.interrupts import status_of

DONE, FAILED, USAGE, INCOMPLETE = 0, 1, 2, 3
log = logging.getLogger("surface_report")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return the exit code: 3 where something that was asked for could not be shown."""
    logging.basicConfig(format="%(message)s", stream=sys.stdout, force=True)
    log.setLevel(logging.INFO)
    parser = _parser()
    parsed = parser.parse_args(arguments)
    if not any((parsed.run, parsed.submission, parsed.data, parsed.score)):
        parser.error("expected at least one of --run, --submission, --data and --score, got none")
    if importlib.util.find_spec("jinja2") is None:
        log.error("error: expected jinja2 to make the page with, got none; pip install 'vesuvius-surface[report]'")
        return FAILED
    os.environ["MPLBACKEND"] = "agg"  # a notebook asks the commands it starts for a backend that they may not have
    try:
        return _make(parsed)
    except (ValueError, RuntimeError, OSError) as error:
        log.error("error: %s", " ".join(str(error).split()))
        return FAILED
    except KeyboardInterrupt as interrupt:
        log.error("interrupted")
        return status_of(interrupt)


def _make(parsed: argparse.Namespace) -> int:
    from surface_kernel import disk
    from surface_report.inputs import Inputs
    from surface_report.page import page

    wanted = {name: value for name, value in vars(parsed).items() if name != "out"}
    several = {name: tuple(wanted[name]) for name in ("score", "explain", "fields")}
    made, faults = page(Inputs(**wanted | several))
    content = made.encode()
    disk.put(parsed.out, content)
    for fault in faults:
        log.warning("not shown: %s", fault)
    log.info("%s: %.1f MB", parsed.out, len(content) / 1e6)
    return INCOMPLETE if faults else DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="surface_report", description=__doc__)
    for name, metavar, text in (
        ("run", "RUN", "a run folder of `surface_train fit`"),
        ("submission", "ZIP", "predicted masks: a submission.zip, a folder or one .tif"),
        ("compare", "ZIP", "masks to compare with those of --submission"),
        ("truth", "DIR", "labels of --submission: a folder or one .tif"),
        ("images", "DIR", "CT of --submission: a folder or one .tif"),
        ("data", "DIR", "a competition folder, with train.csv"),
    ):
        parser.add_argument(f"--{name}", type=Path, metavar=metavar, help=text)
    for name, metavar, text in (
        ("score", "JSON", "what `surface_score --json` wrote; a second one of --compare"),
        ("explain", "DIR", "what `surface_score --explain` wrote; a second one of --compare"),
        ("fields", "DIR", "logits of --submission's cases, a folder for each member or view: where they disagree"),
    ):
        parser.add_argument(f"--{name}", type=Path, nargs="+", default=[], metavar=metavar, help=text)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the page to write, an .html file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
