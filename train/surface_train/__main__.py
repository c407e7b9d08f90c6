"""Commands of the training room.

python -m surface_train phantom --out DIR
python -m surface_train fit --settings FILE.toml --data DIR --fold K|all
python -m surface_train audit PATH...
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

DONE, FAILED = 0, 1
log = logging.getLogger("surface_train")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; give the exit code."""
    logging.basicConfig(format="%(message)s", stream=sys.stdout, force=True)
    log.setLevel(logging.INFO)  # ours alone: libraries tell what they do at this level too
    parsed = _parser().parse_args(arguments)
    commands = {"phantom": phantom, "fit": fit, "audit": audit}
    try:
        return commands[parsed.command](parsed)
    except (ValueError, RuntimeError, OSError) as error:
        log.error("error: %s", " ".join(str(error).split()))
        return FAILED


def phantom(arguments: argparse.Namespace) -> int:
    """Make a competition-shaped data set: OUT/competition, and OUT/test_labels where the kernel cannot see them."""
    from surface_phantom import write_dataset

    size = tuple(arguments.size)
    made = write_dataset(
        arguments.out,
        volumes=arguments.volumes,
        test_volumes=arguments.test_volumes,
        size_zyx=size,
        seed=arguments.seed,
    )
    log.info(
        "%s: %d volumes to learn from, %.1f %% of their voxels surface, and %d to predict",
        *(made.competition, len(made.train_ids), 100 * made.surface_share, len(made.test_ids)),
    )
    return DONE


def fit(arguments: argparse.Namespace) -> int:
    """Train, average the weights, check them, and leave one weights file in OUT."""
    from surface_train import settings
    from surface_train.loop.fit import Request, forecast
    from surface_train.loop.fit import fit as train

    chosen = settings.read(arguments.settings)
    out = arguments.out or Path("runs") / arguments.settings.stem / f"fold_{arguments.fold}"
    request = Request(
        *(arguments.settings, chosen, arguments.data, arguments.fold, out, arguments.init),
        *(arguments.resume, arguments.device, arguments.budget_s),
    )
    if arguments.estimate:
        log.info("%s", forecast(request))
        return DONE
    log.info("weights: %s", train(request))
    return DONE


def audit(arguments: argparse.Namespace) -> int:
    """Tell foreground share and spread of masks, probabilities or weights; exit 1 on a uniform prediction."""
    from surface_train.checks.audit import audit as look

    sound = True
    for path in arguments.paths:
        try:
            found = look(path, arguments.data, arguments.device)
        except (ValueError, RuntimeError, OSError) as error:  # the other files are looked at all the same
            log.error("error: %s", " ".join(str(error).split()))
            sound = False
        else:
            log.info("%s", found.text)
            sound = sound and found.sound
    return DONE if sound else FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="surface_train", description="Train a surface network and check it.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="phantom|fit|audit")
    made = commands.add_parser("phantom", help="make a competition-shaped data set", description=phantom.__doc__)
    made.add_argument("--out", type=Path, required=True, metavar="DIR")
    made.add_argument("--volumes", type=int, default=8, metavar="N", help="for training (8)")
    made.add_argument("--test-volumes", type=int, default=2, metavar="N", help="with hidden labels (2)")
    made.add_argument("--size", type=int, nargs=3, default=(320, 320, 320), metavar=("Z", "Y", "X"))
    made.add_argument("--seed", type=int, default=0, metavar="S")
    fitted = commands.add_parser("fit", help="train", description=fit.__doc__)
    fitted.add_argument("--settings", "--config", type=Path, required=True, metavar="FILE.toml")
    fitted.add_argument("--data", "--data_dir", type=Path, required=True, metavar="DIR", help="holds train.csv")
    fitted.add_argument("--fold", required=True, metavar="K|all", help="the fold to check on, or none")
    fitted.add_argument("--out", type=Path, metavar="RUN", help="runs/<settings>/fold_<K> by default")
    fitted.add_argument("--init", type=Path, metavar="WEIGHTS", help="start from these")
    fitted.add_argument("--resume", action="store_true", help="go on with the run in OUT")
    fitted.add_argument("--device", metavar="D", help="cpu, cuda or cuda:N; a GPU where there is one")
    fitted.add_argument(
        "--budget-s",
        type=float,
        default=float("inf"),
        metavar="S",
        help="save, check and stop within S seconds",
    )
    fitted.add_argument("--estimate", action="store_true", help="only measure a few steps: time and memory")
    audited = commands.add_parser("audit", help="look for a uniform prediction", description=audit.__doc__)
    audited.add_argument("paths", type=Path, nargs="+", metavar="PATH")
    audited.add_argument(
        "--data", type=Path, metavar="D", help="weights predict volumes of this folder, or this volume"
    )
    audited.add_argument("--device", metavar="D", help="for --data: cpu, cuda or cuda:N")
    return parser


if __name__ == "__main__":
    sys.exit(main())
