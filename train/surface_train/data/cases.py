"""The cases of a competition folder: ids with their image, label and scroll."""

import csv
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from surface_kernel.message import some_of
from surface_kernel.volumes import volume

UNLABELLED = 2
Label2 = Literal["ignored", "surface"]


class CasesError(ValueError):
    """A data folder without usable cases, or a case that cannot be used."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A volume with its label and the scroll it was cut from."""

    name: str
    """Its id."""

    scroll: str
    """Id of the scroll."""

    image: Path
    """TIFF of grey values."""

    label: Path
    """TIFF of labels {0, 1, 2}."""

    repaired_in: str = ""
    """Name of the folder that the label comes from instead of the competition's; empty where it does not."""

    def load(self, label_2: Label2 = "ignored") -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Read image and label.

        Args:
            label_2: "ignored" leaves unlabelled voxels 2; "surface" returns them as 1, as the reference counted them.

        Returns:
            Image and label, both uint8 (z, y, x).

        Raises:
            VolumeError: for a file that cannot be read.
            CasesError: for a label that does not fit its image, or holds other values than 0, 1 and 2.
        """
        image, label = volume.read(self.image), volume.read(self.label)
        if image.shape != label.shape:
            raise CasesError(f"{self.label}: expected a label of {image.shape} as its image, got {label.shape}")
        if label.max() > UNLABELLED:
            raise CasesError(f"{self.label}: expected labels 0, 1 and 2 only, got {label.max()}")
        if label_2 == "surface":
            label[label == UNLABELLED] = 1
        return image, label


def read(data: Path, exclude: Collection[str] = (), labels_dir: str = "") -> tuple[list[Case], int]:
    """Return the cases of a data folder, in the order of its train.csv, and the number of its rows without files.

    Rows without image or label are no error: the competition lists volumes that it has withdrawn.

    Args:
        data: the folder.
        exclude: ids to leave out; they count as neither.
        labels_dir: a folder, relative to `data` or absolute, whose {id}.tif replace the competition's labels wherever
            there is one; or empty.

    Raises:
        CasesError: when the table cannot be read, no case is complete, the table has no row for an id of `exclude`, or
            labels_dir is no folder or holds no case's label.
    """
    table = data / "train.csv"
    rows = _read_table(table)
    if unknown := sorted(set(exclude) - {name for name, _ in rows}):
        raise CasesError(f"exclude: expected ids that {table} lists, got {', '.join(unknown)}")
    images, labels = data / "train_images", data / "train_labels"
    listed = [
        Case(name=name, scroll=scroll, image=images / f"{name}.tif", label=labels / f"{name}.tif")
        for name, scroll in rows
        if name not in exclude
    ]
    if labels_dir:
        listed = _repaired(listed, data / labels_dir)
    complete = [case for case in listed if case.image.is_file() and case.label.is_file()]
    if not complete:
        got = f"none of {len(listed)} rows{' that are not excluded' if exclude else ''}"
        raise CasesError(f"{table}: expected at least one row whose image and label are in {data}, got {got}")
    return complete, len(listed) - len(complete)


def read_rows(table: Path) -> list[tuple[str, str]]:
    """Return the ids and scrolls of train.csv or test.csv as they stand, without spaces; either may be empty.

    Raises:
        CasesError: where there is no table with these columns.
    """
    expected = "expected a table with the columns id and scroll_id"
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            return [(_entry(row["id"]), _entry(row["scroll_id"])) for row in csv.DictReader(file)]
    except FileNotFoundError as error:
        raise CasesError(f"{table}: no such file; {expected}") from error
    except KeyError as error:
        raise CasesError(f"{table}: {expected}, got none named {error}") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CasesError(f"{table}: {expected}, got {error}") from error


def _read_table(table: Path) -> list[tuple[str, str]]:
    rows = [row for row in read_rows(table) if any(row)]
    counts = Counter(name for name, _ in rows)
    # Twice in the table is twice in every mean, or with two scrolls on both sides of a split.
    for wrong, got in (
        ([name for name, count in counts.items() if count > 1], "twice"),
        ([name for name, scroll in rows if not scroll], "without a scroll_id"),
        ([f"a row of scroll {scroll}" for name, scroll in rows if not name], "without an id"),
    ):
        if wrong:
            raise CasesError(f"{table}: expected every id once, with its scroll_id, got {some_of(wrong)} {got}")
    return rows


def _entry(text: str | None) -> str:
    """Return a cell as it is compared, like those of test.csv; None: the row is cut short."""
    return (text or "").strip()


def _repaired(listed: list[Case], folder: Path) -> list[Case]:
    if not folder.is_dir():
        raise CasesError(f"labels_dir: no such folder {folder}; expected one of repaired labels")
    cases = [
        replace(case, label=label, repaired_in=folder.name)
        if (label := folder / f"{case.name}.tif").is_file()
        else case
        for case in listed
    ]
    if cases == listed:
        expected = f"labels named as {listed[0].name}.tif" if listed else "a case that is not excluded"
        raise CasesError(f"labels_dir: expected {expected}, got no case's label in {folder}")
    return cases


def sizes_by_scroll(cases: Iterable[Case]) -> dict[str, int]:
    """Return the number of cases of every scroll, largest first."""
    counts: dict[str, int] = {}
    for case in cases:
        counts[case.scroll] = counts.get(case.scroll, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
