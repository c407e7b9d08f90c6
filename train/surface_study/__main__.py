"""The study of the losses: phantoms, trainings, readings, one page and one picture.

python -m surface_study --work DIR --docs DIR [--quick] [--workers N]
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

DONE, FAILED = 0, 1
log = logging.getLogger("surface_study")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; give the exit code. What is done in DIR already is not done again."""
    logging.basicConfig(format="%(message)s", stream=sys.stdout, force=True)
    log.setLevel(logging.INFO)
    parsed = _parser().parse_args(arguments)
    if parsed.core is not None:  # before torch and numba count the cores
        os.sched_setaffinity(0, {parsed.core})
    try:
        if parsed.piece:
            _piece(parsed)
        else:
            study(parsed.work, parsed.docs, parsed.quick, parsed.workers)
    except (ValueError, RuntimeError, OSError) as error:
        log.error("error: %s", " ".join(str(error).split()))
        return FAILED
    return DONE


def study(work: Path, docs: Path, quick: bool, workers: int) -> None:
    """Do the whole study, and leave DOCS/bias_study.md and DOCS/bias_study.png."""
    from surface_study import page, plan, worlds
    from surface_study.work import do, pieces

    chosen = plan.QUICK if quick else plan.FULL
    log.info("== 1/4 phantoms")
    worlds.make(work, chosen)
    log.info("%s", page.shares_line(worlds.shares(work)))
    log.info("== 2/4 trainings")
    do(work, chosen, pieces(chosen, "train"), workers, quick)
    log.info("== 3/4 the large phantom, read in five ways")
    do(work, chosen, pieces(chosen, "read"), workers, quick)
    log.info("== 4/4 the page")
    for path in page.write(work, docs, chosen):
        log.info("%s", path)


def _piece(parsed: argparse.Namespace) -> None:
    from surface_study import plan
    from surface_study.work import Piece

    logging.getLogger("surface_train").setLevel(logging.INFO)
    verb, preset, label_2, seed = parsed.piece
    chosen = plan.QUICK if parsed.quick else plan.FULL
    Piece(verb, plan.Arm(preset, label_2, int(seed))).do(parsed.work, chosen)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="surface_study", description="Compare the losses, and readings of networks.")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="for data and trainings; 4 GB")
    parser.add_argument("--docs", type=Path, default=Path("docs"), metavar="DIR", help="for the page (docs)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that the way works, no result")
    parser.add_argument(
        "--workers",
        type=int,
        default=len(os.sched_getaffinity(0)),
        metavar="N",
        help="processes at a time, 0 for none but this one (all cores)",
    )
    parser.add_argument("--core", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--piece", nargs=4, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
