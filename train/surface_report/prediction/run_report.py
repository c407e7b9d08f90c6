"""What the kernel's run_report.json says, if it lies beside the submission."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from surface_report.table import Cell, Column, Table, number, share

NAME = "run_report.json"


def read_report(submission: Path) -> Mapping[str, Any] | None:
    """Return the report of the run that made a submission; None where there is none that can be read."""
    try:
        content = json.loads((submission.parent / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) and isinstance(content.get("volumes"), list) else None


def volumes_table(report: Mapping[str, Any]) -> Table:
    """Return what became of each volume, those with warnings first."""
    volumes = [one for one in report["volumes"] if isinstance(one, dict)]
    ranked = sorted(volumes, key=lambda one: (not _said(one), -float(_number(one, "seconds") or 0)))
    columns = ("seconds", "stages", "foreground", "unscanned, removed", "variance")
    return Table(
        id="prediction-volumes",
        caption="What the run says of each volume, warnings first",
        columns=[
            Column(title="volume", numeric=False),
            Column(title="status", numeric=False),
            *(Column(title=title) for title in columns),
            Column(title="warnings and notes", numeric=False),
        ],
        rows=[
            [
                Cell(str(one.get("case"))),
                Cell(str(one.get("status"))),
                number(_number(one, "seconds"), 1),
                Cell(f"{one.get('stages')} of {one.get('wanted')}", _number(one, "stages")),
                share(_number(one, "foreground"), 2),
                share(_number(one, "unscanned"), 2),
                number(_number(one, "variance"), 4),
                Cell(_said(one) or "–"),
            ]
            for one in ranked
        ],
    )


def _number(volume: Mapping[str, Any], name: str) -> float | None:
    value = volume.get(name)
    return float(value) if isinstance(value, int | float) else None


def _said(volume: Mapping[str, Any]) -> str:
    notes: Sequence[object] = volume["notes"] if isinstance(volume.get("notes"), list) else ()
    return "; ".join(str(part) for part in (volume.get("warning"), volume.get("reason"), *notes) if part)
