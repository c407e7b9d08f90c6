"""What the command leaves behind: a table for people, JSON and CSV for machines."""

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path

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


def as_table(scores: Mapping[str, CaseScore]) -> str:
    """Return one line a case and the mean under them."""
    rows = [("id", *_COLUMNS.values())]
    for id_, case in [*scores.items(), ("mean", mean_score(list(scores.values())))]:
        row = case.as_dict()
        rows.append((id_, *(f"{row[name]:.4f}" for name in _COLUMNS)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    rule = "-" * len(lines[0])
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def as_json(scores: Mapping[str, CaseScore]) -> str:
    """Return {"mean": row, "cases": {id: row}}."""
    mean = mean_score(list(scores.values())).as_dict()
    cases = {id_: case.as_dict() for id_, case in scores.items()}
    return json.dumps({"mean": mean, "cases": cases}, indent=2, allow_nan=False) + "\n"


def as_csv(scores: Mapping[str, CaseScore]) -> str:
    """Return one line a case, without the mean."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", *_COLUMNS])
    for id_, case in scores.items():
        row = case.as_dict()
        writer.writerow([id_, *(row[name] for name in _COLUMNS)])
    return text.getvalue()


def write_whole(path: Path, text: str) -> None:
    """Write a file that appears complete under its name or not at all. Raises OSError."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
