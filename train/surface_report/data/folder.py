"""The cases of a competition folder: the rows of its table, and the files that lie in it."""

import csv
from pathlib import Path

from surface_report.data.case_facts import CaseInFolder
from surface_report.inputs import PageError

TABLE, IMAGES, LABELS = "train.csv", "train_images", "train_labels"


def cases_in(data: Path) -> tuple[list[CaseInFolder], list[str]]:
    """Return every case of a data folder that has a file, sorted by scroll and id, and the ids of rows without any.

    Raises:
        PageError: where there is no table with the columns id and scroll_id.
    """
    scrolls = _rows(data / TABLE)
    files = [{path.stem: path for path in (data / name).glob("*.tif")} for name in (IMAGES, LABELS)]
    images, labels = files
    ids = sorted(images.keys() | labels.keys(), key=lambda id_: (scrolls.get(id_, ""), id_))
    cases = [
        CaseInFolder(id=id_, scroll=scrolls.get(id_, ""), image=images.get(id_), label=labels.get(id_)) for id_ in ids
    ]
    return cases, [id_ for id_ in scrolls if id_ not in images and id_ not in labels]


def _rows(table: Path) -> dict[str, str]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            return {row["id"]: row["scroll_id"] for row in csv.DictReader(file)}
    except (OSError, KeyError, UnicodeDecodeError, csv.Error) as error:
        expected = "expected a table with the columns id and scroll_id"
        raise PageError(f"{table}: {expected}, got {error!r}; --data is a competition folder") from error
