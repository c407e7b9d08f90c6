"""What lies in a competition folder: the rows of its table, and the files of images and labels."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from surface_report.inputs import PageError
from surface_train.data.cases import CasesError, read_rows

TABLE, IMAGES, LABELS = "train.csv", "train_images", "train_labels"
WITHDRAWN = "deprecated_train_images"  # where the competition put images of rows that it left in its table


@dataclass(frozen=True, kw_only=True)
class CaseInFolder:
    """A case that a data folder has files of."""

    id: str
    scroll: str
    """Empty where the table has no row."""
    image: Path | None
    label: Path | None
    faults: tuple[str, ...] = ()
    """What is wrong with its row, or with which files there are."""


@dataclass(frozen=True, kw_only=True)
class FolderListing:
    """A data folder, as its table and its files' names tell."""

    cases: Sequence[CaseInFolder]
    """Sorted by scroll and id."""
    without_files: Sequence[str]
    """Ids of rows that have neither file."""
    withdrawn: Sequence[str]
    """Ids of such rows whose image lies in WITHDRAWN."""


def list_folder(data: Path) -> FolderListing:
    """Return every case of a data folder that has a file, and the rows without any.

    Raises:
        PageError: where there is no table with the columns id and scroll_id.
    """
    rows = _rows(data / TABLE)
    times, scrolls = Counter(id_ for id_, _ in rows), dict(rows)
    images, labels = ({path.stem: path for path in (data / name).glob("*.tif")} for name in (IMAGES, LABELS))
    ids = sorted(images.keys() | labels.keys(), key=lambda id_: (scrolls.get(id_, ""), id_))
    cases = [
        CaseInFolder(
            id=id_,
            scroll=scrolls.get(id_, ""),
            image=images.get(id_),
            label=labels.get(id_),
            faults=_faults(times[id_], scrolls.get(id_), {"image": id_ in images, "label": id_ in labels}),
        )
        for id_ in ids
    ]
    bare = [id_ for id_ in times if id_ not in images and id_ not in labels]
    withdrawn = {path.stem for path in (data / WITHDRAWN).glob("*.tif")}
    return FolderListing(
        cases=cases,
        without_files=[id_ for id_ in bare if id_ not in withdrawn],
        withdrawn=[id_ for id_ in bare if id_ in withdrawn],
    )


def _faults(rows: int, scroll: str | None, files: dict[str, bool]) -> tuple[str, ...]:
    said = []
    if rows != 1:
        said.append(f"{rows} rows in {TABLE}" if rows else f"files without a row in {TABLE}")
    if scroll == "":
        said.append(f"no scroll_id in {TABLE}")
    return (*said, *(f"no {kind}" for kind, there in files.items() if not there))


def _rows(table: Path) -> list[tuple[str, str]]:
    """Return ids and scrolls. Unlike a training's table, one that says something twice is read: the page names it."""
    try:
        return [row for row in read_rows(table) if row[0]]
    except CasesError as error:
        raise PageError(f"{error}; --data is a competition folder") from error
