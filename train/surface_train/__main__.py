"""Commands of the training room.

python -m surface_train phantom --out DIR
python -m surface_train fit --settings FILE.toml --data DIR --fold K|all
python -m surface_train audit PATH...
python -m surface_train audit --data DIR
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from surface_kernel.interrupts import status_of, terminable

DONE, FAILED, BELOW_ITS_BAR = 0, 1, 4
log = logging.getLogger("surface_train")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return the exit code."""
    logging.basicConfig(format="%(message)s", stream=sys.stdout, force=True)
    log.setLevel(logging.INFO)  # ours alone: libraries log at this level too
    parser = _parser()
    parsed = parser.parse_args(arguments)
    if parsed.command == "audit" and not parsed.paths and parsed.data is None:
        parser.error("audit: expected a PATH, or --data alone for the cases of a data folder, got neither")
    commands = {"phantom": phantom, "fit": fit, "audit": audit}
    try:
        with terminable():
            return commands[parsed.command](parsed)
    except (ValueError, RuntimeError, OSError) as error:
        log.error("error: %s", " ".join(str(error).split()))
        return FAILED
    except KeyboardInterrupt as interrupt:
        log.error("%s", str(interrupt) or "interrupted")
        return status_of(interrupt)


def phantom(arguments: argparse.Namespace) -> int:
    """Generate a data set in the competition's layout: OUT/competition, and OUT/test_labels hidden from the kernel."""
    from surface_phantom import LOOKS, OTHER_LOOKS, write_dataset

    size = tuple(arguments.size)
    made = write_dataset(
        arguments.out,
        volumes=arguments.volumes,
        test_volumes=arguments.test_volumes,
        size_zyx=size,
        seed=arguments.seed,
        looks=OTHER_LOOKS if arguments.looks == "other" else LOOKS,
    )
    log.info(
        "%s: %d training volumes, %.1f %% of their voxels surface, and %d test volumes",
        made.competition,
        len(made.train_ids),
        100 * made.surface_share,
        len(made.test_ids),
    )
    return DONE


def fit(arguments: argparse.Namespace) -> int:
    """Train, average the weights, validate them, and write one weights file into OUT.

    Exit code 4 where the weights predict the same everywhere, 130 or 143 for a run that a signal stopped.
    """
    from surface_kernel.networks import weights
    from surface_kernel.runs.report import validation_fault
    from surface_train import settings
    from surface_train.loop.fit import Request, forecast
    from surface_train.loop.fit import fit as train

    request = Request(
        settings_file=arguments.settings,
        settings=settings.read(arguments.settings),
        data=arguments.data,
        fold=arguments.fold,
        out=arguments.out or Path("runs") / arguments.settings.stem / f"fold_{arguments.fold}",
        init=arguments.init,
        resume=arguments.resume,
        device=arguments.device,
        budget_s=arguments.budget_s,
        plan_s=arguments.plan_s,
        steps=arguments.steps,
        save_logits=arguments.save_logits,
    )
    if arguments.estimate:
        log.info("%s", forecast(request))
        return DONE
    shipped = train(request)
    log.info("weights: %s", shipped)
    if os.environ.get("RANK", "0") == "0":  # of several processes, one speaks for all
        _leave_page(request.out)
    return BELOW_ITS_BAR if validation_fault(weights.describe(shipped).provenance) else DONE


def _leave_page(run: Path) -> None:
    from surface_kernel.page import leave_page

    if said := leave_page(run / "page.html", run=run):
        log.info("%s", said)


def audit(arguments: argparse.Namespace) -> int:
    """Sanity-check masks, probabilities or weights, or with --data alone the cases of a data folder.

    Exit code 1 for a uniform prediction, a file that is none, or a case that cannot be trained on.
    """
    from surface_train.checks.audit import audit as check
    from surface_train.checks.audit import audit_data

    sound = True
    if not arguments.paths:
        result = audit_data(arguments.data)
        log.info("%s", result.text)
        return DONE if result.sound else FAILED
    for path in arguments.paths:
        try:
            result = check(path, arguments.data, arguments.device)
        except (ValueError, RuntimeError, OSError) as error:  # the other files are checked all the same
            log.error("error: %s", " ".join(str(error).split()))
            sound = False
        else:
            log.info("%s", result.text)
            sound = sound and result.sound
    return DONE if sound else FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="surface_train", description="Train a surface network and check it.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="phantom|fit|audit")
    _add_phantom(commands.add_parser("phantom", help="generate a data set of phantoms", description=phantom.__doc__))
    _add_fit(commands.add_parser("fit", help="train", description=fit.__doc__))
    _add_audit(commands.add_parser("audit", help="sanity-check predictions or weights", description=audit.__doc__))
    return parser


def _add_phantom(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    parser.add_argument("--volumes", type=int, default=8, metavar="N", help="training volumes (8)")
    parser.add_argument("--test-volumes", type=int, default=2, metavar="N", help="test volumes, labels hidden (2)")
    parser.add_argument(
        "--size",
        type=int,
        nargs=3,
        default=(320, 320, 320),
        metavar=("Z", "Y", "X"),
        help="shape of most volumes (320 320 320); every third is smaller or not a cube",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="same seed, same data set (0)")
    parser.add_argument(
        "--looks",
        choices=("usual", "other"),
        default="usual",
        help="which scrolls: 'other' look like none of the usual",
    )


def _add_fit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--settings", "--config", type=Path, required=True, metavar="FILE.toml", help="settings of the run"
    )
    parser.add_argument(
        "--data", "--data_dir", type=Path, required=True, metavar="DIR", help="the competition's folder, with train.csv"
    )
    parser.add_argument(
        "--fold",
        required=True,
        metavar="K|all",
        help="validation fold, 0 to one less than fold_count; or 'all' to train on every case without validation",
    )
    parser.add_argument("--out", type=Path, metavar="OUT", help="run folder (runs/<settings>/fold_<K>)")
    parser.add_argument(
        "--init", type=Path, metavar="WEIGHTS", help="initialise from a weights file of the same architecture"
    )
    parser.add_argument("--resume", action="store_true", help="resume the run in OUT")
    parser.add_argument("--device", metavar="D", help="cpu, cuda or cuda:N (default: a GPU if there is one, else CPU)")
    parser.add_argument(
        "--budget-s",
        type=float,
        default=float("inf"),
        metavar="S",
        help="time limit: save, validate and exit within S seconds; --resume continues",
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--plan-s",
        type=float,
        metavar="S",
        help="measure a few steps first, and lay the whole schedule out over S seconds; a resumed run keeps its plan",
    )
    length.add_argument("--steps", type=int, metavar="N", help="lay the schedule out over N steps")
    parser.add_argument(
        "--save-logits",
        action="store_true",
        help="at the end write the logits of the validation fold to OUT/logits, as surface_tune reads them",
    )
    parser.add_argument(
        "--estimate", action="store_true", help="run a few steps and print expected time and memory; write nothing"
    )


def _add_audit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", type=Path, nargs="*", metavar="PATH", help=".tif, .npy or .safetensors")
    parser.add_argument(
        "--data",
        type=Path,
        metavar="D",
        help="also run the weights on up to two volumes from here (folder or .tif); without a PATH, check its cases",
    )
    parser.add_argument("--device", metavar="D", help="for --data: cpu, cuda or cuda:N")


if __name__ == "__main__":
    sys.exit(main())
