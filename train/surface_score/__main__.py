"""Score predictions against labels with the competition's metric.

Two tables are printed; JSON, CSV and a breakdown per case are written on request.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from surface_score.breakdown import worst_first
from surface_score.cases import FilePair, score_pairs
from surface_score.compiled import allowed_cores
from surface_score.leaderboard import CaseScore
from surface_score.masks import MaskError, find_masks, pair_by_id, passed_over
from surface_score.report import as_csv, as_json, as_tables, write_file

SCORED, FAILED, INTERRUPTED = 0, 1, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Return 0 if all cases were scored, 1 on an error; bad usage exits with 2."""
    arguments = _parse(argv)
    try:
        for path in (arguments.json, arguments.csv):
            _check_can_write(path)
        pairs = pair_by_id(find_masks(arguments.pred), find_masks(arguments.truth))
        with _folder_for(arguments.explain) as folder:
            scores, warnings = _score_all(pairs, min(arguments.workers, len(pairs)), folder)
            if folder:
                (folder / "worst_first.txt").write_text(worst_first(scores), encoding="utf-8")
        if arguments.json:
            write_file(arguments.json, as_json(scores))
        if arguments.csv:
            write_file(arguments.csv, as_csv(scores))
    except (MaskError, OSError) as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except BrokenProcessPool:
        return _fail(
            f"expected {arguments.workers} live worker processes, got a dead one; with fewer --workers, each has more "
            "memory"
        )
    for path in (arguments.pred, arguments.truth):
        if names := passed_over(path):
            shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            warnings.append(f"{path}: the competition's scorer reads *.tif alone: {shown} passed over")
    for warning in warnings:
        print(f"surface_score: warning: {warning}", file=sys.stderr)
    print(as_tables(scores))
    return SCORED


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="surface_score", description=__doc__)
    parser.add_argument(
        "--pred", type=Path, required=True, metavar="DIR|FILE|ZIP", help="predicted masks, one .tif per id"
    )
    parser.add_argument("--truth", type=Path, required=True, metavar="DIR|FILE", help="labels: 0, 1, and 2 for ignored")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the mean and all cases as JSON")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write a CSV table, one row per case")
    parser.add_argument(
        "--explain", type=Path, metavar="DIR", help="break the score down per case; write the report to DIR"
    )
    cores = allowed_cores()
    parser.add_argument(
        "--workers", type=_at_least_one, default=cores, metavar="N", help="processes (default: %(default)s)"
    )
    return parser.parse_args(argv)


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a number >= 1, got {number}")
    return number


def _check_can_write(path: Path | None) -> None:
    """Raise before the work is done where writing would fail after it."""
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise MaskError(f"{path}: expected a file in an existing folder, got a folder or a file in none")


@contextmanager
def _folder_for(path: Path | None) -> Iterator[Path | None]:
    """Yield a temporary folder that is renamed to `path` once it is complete, and removed if something fails."""
    if path is None:
        yield None
        return
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise MaskError(
            f"{path}: expected a new or empty folder, got one with content or a file; remove it or name another"
        )
    path.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{path.name}.", suffix=".partial", dir=path.absolute().parent) as scratch:
        folder = Path(scratch) / "report"
        folder.mkdir()
        yield folder
        folder.replace(path)


def _score_all(
    pairs: Sequence[FilePair], workers: int, explain_in: Path | None
) -> tuple[dict[str, CaseScore], list[str]]:
    scores: dict[str, CaseScore] = {}
    warnings: list[str] = []
    results = tqdm(score_pairs(pairs, workers, explain_in), "scoring", len(pairs), disable=None)
    for (_, truth), (score, of_case) in zip(pairs, results, strict=True):
        scores[truth.id] = score
        warnings += of_case
    return scores, warnings


def _fail(reason: str, code: int = FAILED) -> int:
    print(f"surface_score: {reason}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
