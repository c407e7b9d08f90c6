"""Choose the steps of post-processing on held-out volumes.

python -m surface_tune --logits DIR --data DIR --out DIR [--settings BASE.toml] [--grid GRID.toml] [--by scroll|case]
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from surface_kernel.interrupts import status_of, terminable
from surface_kernel.machine import cores

if TYPE_CHECKING:
    from surface_tune.scored import Volume

DONE, FAILED = 0, 1
log = logging.getLogger("surface_tune")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code. What --out holds already is not computed again."""
    logging.basicConfig(format="%(message)s", stream=sys.stdout, force=True)
    log.setLevel(logging.INFO)
    parsed = _parser().parse_args(arguments)
    try:
        with terminable():
            tune(parsed)
    except (ValueError, RuntimeError, OSError) as error:
        log.error("error: %s", " ".join(str(error).split()))
        return FAILED
    except KeyboardInterrupt as interrupt:
        log.error("interrupted; run the same again to resume")
        return status_of(interrupt)
    return DONE


def tune(parsed: argparse.Namespace) -> None:
    """Score every chain on every volume, choose one, and write what came of it."""
    from surface_tune import choice, grid, results, scored

    volumes = _volumes(parsed.logits, parsed.data)
    groups = [volume.case.scroll if parsed.by == "scroll" else volume.case.name for volume in volumes]
    if len(set(groups)) < 2:
        advice = "by case volumes of one scroll vouch for one another, which says little of another scroll"
        raise ValueError(
            f"{parsed.logits}: expected volumes of two scrolls, got one; --by case goes on without: {advice}"
        )
    candidates = grid.read_grid(parsed.grid) if parsed.grid else grid.default_grid()
    rows = parsed.out / "rows"
    scored.score_all(volumes, candidates, rows, workers=parsed.workers)
    scores, sizes = scored.read_scores(volumes, candidates, rows), [each.size for each in candidates]
    result = results.Choice(
        candidates=candidates,
        scores=scores,
        groups=groups,
        left_out=choice.leave_out(scores, sizes, groups),
        chosen=choice.choose(scores, sizes),
        by=parsed.by,
    )
    results.write(result, parsed.out, parsed.settings)
    for line in results.summary(result):
        log.info("%s", line)
    if parsed.by == "case":
        log.info("by case: volumes of one scroll vouch for one another; on another scroll it may do worse")
    log.info("next: python -m surface_package build --settings %s ...", parsed.out / "chain.toml")


def _volumes(logits: Path, data: Path) -> "list[Volume]":
    """Return the volumes that have logits and a label. Raises ValueError where there are none."""
    from surface_train.data import cases
    from surface_tune.scored import Volume

    found = [
        Volume(case=case, logits=path)
        for case in cases.read(data)[0]
        if (path := logits / f"{case.name}.npy").is_file()
    ]
    if not found:
        raise ValueError(f"{logits}: expected {{id}}.npy of logits for cases of {data}, got none")
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="surface_tune", description="Choose post-processing on held-out volumes.")
    parser.add_argument("--logits", type=Path, required=True, metavar="DIR", help="{id}.npy, of `predict --save logit`")
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="the competition's folder, with train.csv"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="for rows, table.md, chain.toml, picture.png"
    )
    parser.add_argument("--settings", type=Path, metavar="BASE.toml", help="copied into chain.toml, its steps replaced")
    parser.add_argument("--grid", type=Path, metavar="GRID.toml", help="thresholds and chains (default: built in)")
    parser.add_argument("--by", choices=("scroll", "case"), default="scroll", help="what is left out (default: scroll)")
    parser.add_argument("--workers", type=int, default=cores(), metavar="N", help="volumes at a time (default: cores)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
