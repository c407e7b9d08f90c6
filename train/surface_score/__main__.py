"""Score predictions against labels: read, compare, print tables, and leave JSON, CSV and reasons where asked."""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from surface_score.cases import FilePair, score_pairs
from surface_score.leaderboard import CaseScore
from surface_score.masks import MaskError, find_masks, pair
from surface_score.reasons import worst_first
from surface_score.report import as_csv, as_json, as_tables, write_whole

SCORED, REFUSED = 0, 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Return 0 when all was scored, 1 when something was refused; bad usage exits with 2."""
    arguments = _parse(argv)
    try:
        for path in (arguments.json, arguments.csv):
            _check_can_write(path)
        pairs = pair(find_masks(arguments.pred), find_masks(arguments.truth))
        with _folder_for(arguments.explain) as folder:
            scores, warnings = _score_all(pairs, min(arguments.workers, len(pairs)), folder)
            if folder:
                (folder / "worst_first.txt").write_text(worst_first(scores), encoding="utf-8")
        if arguments.json:
            write_whole(arguments.json, as_json(scores))
        if arguments.csv:
            write_whole(arguments.csv, as_csv(scores))
    except (MaskError, OSError) as error:
        return _refuse(str(error))
    except BrokenProcessPool:
        return _refuse(
            f"found a dead worker among {arguments.workers}, wanted all alive: give fewer --workers more memory"
        )
    for warning in warnings:
        print(f"surface_score: warning: {warning}", file=sys.stderr)
    print(as_tables(scores))
    return SCORED


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="surface_score", description=__doc__)
    parser.add_argument("--pred", type=Path, required=True, metavar="DIR|FILE|ZIP", help="masks, one .tif an id")
    parser.add_argument("--truth", type=Path, required=True, metavar="DIR|FILE", help="labels 0, 1 and 2 = ignored")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the mean and all cases here")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write a line a case here")
    parser.add_argument("--explain", type=Path, metavar="DIR", help="say here, case by case, where the points went")
    cores = os.cpu_count() or 1
    parser.add_argument("--workers", type=_at_least_one, default=cores, metavar="N", help="processes: %(default)s")
    return parser.parse_args(argv)


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"found {number}, wanted at least 1")
    return number


def _check_can_write(path: Path | None) -> None:
    """Refuse before the work is done what would fail after it."""
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise MaskError(f"{path}: found no folder to write this file in, or a folder of its name; wanted a file's path")


@contextmanager
def _folder_for(path: Path | None) -> Iterator[Path | None]:
    """Give a folder to write to that gets its name once all is in it, and goes if something fails."""
    if path is None:
        yield None
        return
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise MaskError(f"{path}: found something there already, wanted a new or empty folder for the explanations")
    path.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{path.name}.", suffix=".partial", dir=path.absolute().parent) as scratch:
        folder = Path(scratch) / "whole"
        folder.mkdir()
        yield folder
        folder.replace(path)


def _score_all(
    pairs: Sequence[FilePair], workers: int, explain_in: Path | None
) -> tuple[dict[str, CaseScore], list[str]]:
    scores: dict[str, CaseScore] = {}
    warnings: list[str] = []
    results = tqdm(score_pairs(pairs, workers, explain_in), "scoring", len(pairs), disable=None)
    for (_, truth), (score, said) in zip(pairs, results, strict=True):
        scores[truth.id] = score
        warnings += said
    return scores, warnings


def _refuse(reason: str) -> int:
    print(f"surface_score: {reason}", file=sys.stderr)
    return REFUSED


if __name__ == "__main__":
    sys.exit(main())
