"""The study of the losses: phantoms, trainings, ways of inference, one page and one picture.

python -m surface_study --work DIR --docs DIR [--quick] [--workers N]
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from surface_kernel.interrupts import status_of
from surface_kernel.machine import cores

DONE, FAILED = 0, 1
log = logging.getLogger("surface_study")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code. What already exists in --work is not computed again."""
    logging.basicConfig(format="%(message)s", stream=sys.stdout, force=True)
    log.setLevel(logging.INFO)
    parsed = _parser().parse_args(arguments)
    if parsed.core is not None:  # before torch and numba count the cores
        os.sched_setaffinity(0, {parsed.core})
    try:
        if parsed.piece:
            _run_piece(parsed)
        else:
            study(parsed.work, docs=parsed.docs, quick=parsed.quick, workers=parsed.workers)
    except (ValueError, RuntimeError, OSError) as error:
        log.error("error: %s", " ".join(str(error).split()))
        return FAILED
    except KeyboardInterrupt as interrupt:
        log.error("interrupted; run the same again to resume")
        return status_of(interrupt)
    return DONE


def study(work: Path, *, docs: Path, quick: bool, workers: int) -> None:
    """Run the whole study, and write bias_study.md and bias_study.png to `docs`.

    Args:
        work: The folder for phantoms and trainings; what it holds already is not computed again.
        docs: The folder for the page.
        quick: Tiny sizes, to test the pipeline.
        workers: Processes at a time; 0 runs everything in this process.
    """
    from surface_study import page, phantoms, plan
    from surface_study.work import pieces, run_pieces

    chosen = plan.QUICK if quick else plan.FULL
    log.info("== 1/4 phantoms")
    phantoms.make(work, chosen)
    log.info("%s", page.shares_line(phantoms.shares(work)))
    log.info("== 2/4 trainings")
    run_pieces(pieces(chosen, "train"), work=work, plan=chosen, workers=workers, quick=quick)
    log.info("== 3/4 the large phantom, five ways of inference")
    run_pieces(pieces(chosen, "read"), work=work, plan=chosen, workers=workers, quick=quick)
    log.info("== 4/4 the page")
    for path in page.write(work, docs, chosen):
        log.info("%s", path)


def _run_piece(parsed: argparse.Namespace) -> None:
    from surface_study import plan
    from surface_study.work import Piece

    logging.getLogger("surface_train").setLevel(logging.INFO)
    kind, preset, label_2, seed = parsed.piece
    chosen = plan.QUICK if parsed.quick else plan.FULL
    Piece(kind, plan.Arm(preset, label_2, int(seed))).run(parsed.work, chosen)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="surface_study", description="Compare the losses, and ways of inference, on phantoms."
    )
    parser.add_argument(
        "--work", type=Path, required=True, metavar="DIR", help="folder for phantoms and trainings (4 GB)"
    )
    parser.add_argument(
        "--docs", type=Path, default=Path("docs"), metavar="DIR", help="folder for the page (default: docs)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes: tests the pipeline, gives no meaningful result"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=cores(),
        metavar="N",
        help="processes at a time; 0 runs everything in this process (default: all cores)",
    )
    parser.add_argument("--core", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--piece", nargs=4, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
