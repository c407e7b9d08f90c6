"""What the command writes: tables for people, JSON and CSV for machines."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from surface_score.betti import total
from surface_score.leaderboard import CaseScore, mean_score

_COLUMNS = {
    "score": "score",
    "topo_score": "topo",
    "surface_dice": "surface dice",
    "voi_score": "VOI score",
    "voi_split": "split bits",
    "voi_merge": "merge bits",
    "dice": "dice",
    "predicted_share": "predicted",
    "truth_share": "truth",
}
_FEATURES = ("components", "tunnels", "cavities")
_COUNTS = ("matched", "predicted", "true")


def as_tables(scores: Mapping[str, CaseScore]) -> str:
    """Return two tables, the worst case first: the scores with their mean, and the counts of topological features."""
    worst_first = sorted(scores.items(), key=lambda item: item[1].score)
    parts = [("id", *_COLUMNS.values(), "largest loss")]
    for id_, case in [*worst_first, ("mean", mean_score(list(scores.values())))]:
        row = case.as_dict()
        part, points = max(case.lost.items(), key=lambda item: item[1])
        parts.append((id_, *(f"{row[name]:.4f}" for name in _COLUMNS), f"{part} {points:.4f}" if points else "-"))
    features = [("id", *(f"{name}: matched/predicted/true F1" for name in _FEATURES))]
    for id_, case in worst_first:
        cells = [(f"{m.matched}/{m.predicted}/{m.true}", m.f1) for m in total(case.octants)]
        features.append((id_, *(f"{counts} {'-' if f1 is None else f'{f1:.4f}'}" for counts, f1 in cells)))
    ruled = _aligned(parts)
    rule = ruled[1]
    return "\n".join([*ruled[:-1], rule, ruled[-1], "", *_aligned(features)])


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the rows as aligned lines, a rule under the first; the first column is left-aligned, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]


def as_json(scores: Mapping[str, CaseScore]) -> str:
    """Return {"mean": row, "cases": {id: row}}."""
    mean = mean_score(list(scores.values())).as_dict()
    cases = {id_: case.as_dict() for id_, case in scores.items()}
    return json.dumps({"mean": mean, "cases": cases}, indent=2, allow_nan=False) + "\n"


def as_csv(scores: Mapping[str, CaseScore]) -> str:
    """Return one row per case, without the mean; the F1 of a dimension without features is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    counts = [f"{feature}_{count}" for feature in _FEATURES for count in (*_COUNTS, "f1")]
    writer.writerow(["id", *_COLUMNS, *counts])
    for id_, case in scores.items():
        row = case.as_dict()
        cells = [cell for m in total(case.octants) for cell in (m.matched, m.predicted, m.true, m.f1)]
        writer.writerow([id_, *(row[name] for name in _COLUMNS), *cells])
    return text.getvalue()


def write_file(path: Path, text: str) -> None:
    """Write a file that appears complete under its name or not at all. Raises OSError.

    The one writer of this package, which may not import the kernel's.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
