"""Which scroll a case was cut from, as far as the tables beside the inputs say."""

import csv
from pathlib import Path

from surface_report.inputs import Inputs

UNKNOWN = "unknown"


def scroll_by_id(inputs: Inputs) -> dict[str, str]:
    """Return the scroll of each case that a train.csv or test.csv lists: of the data folder, or beside the images."""
    beside = [path.parent for path in (inputs.images, inputs.truth) if path is not None]
    folders = [inputs.data, *beside] if inputs.data is not None else beside
    found: dict[str, str] = {}
    for folder in folders:
        for name in ("train.csv", "test.csv"):
            found |= _read(folder / name)
    return found


def _read(table: Path) -> dict[str, str]:
    """Return the table's rows; nothing where there is none, or another: a page without scrolls is a page."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            return {row["id"]: row["scroll_id"] for row in csv.DictReader(file)}
    except (OSError, KeyError, UnicodeDecodeError, csv.Error):
        return {}
