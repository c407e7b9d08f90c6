"""The cases of a competition folder: which volumes there are to learn from."""

import csv
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from surface_kernel.volumes import volume

UNLABELLED = 2
Label2 = Literal["ignored", "surface"]


class CasesError(ValueError):
    """A data folder without usable cases, or a case that is not usable."""


@dataclass(frozen=True)
class Case:
    """A volume with its label and the scroll it was cut from.

    repaired_in: the name of the folder whose label stands in for the competition's; empty where none does.
    """

    name: str
    scroll: str
    image: Path
    label: Path
    repaired_in: str = ""

    def load(self, label_2: Label2 = "ignored") -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Read image and label, both uint8 (z, y, x). Raises VolumeError, and CasesError when they do not fit.

        label_2: "ignored" leaves unlabelled voxels 2; "surface" gives them as 1, as the reference counted them.
        """
        image, label = volume.read(self.image), volume.read(self.label)
        if image.shape != label.shape:
            raise CasesError(f"{self.label}: found a label of {label.shape}, wanted {image.shape} as its image has")
        if label.max() > UNLABELLED:
            raise CasesError(f"{self.label}: found label {label.max()}, wanted 0, 1 and 2 only")
        if label_2 == "surface":
            label[label == UNLABELLED] = 1
        return image, label


def read(data: Path, exclude: Collection[str] = (), labels_dir: str = "") -> tuple[list[Case], int]:
    """Give the cases of `data`, in the order of train.csv, and how many of its rows lack image or label.

    Such rows are no error: the competition lists volumes that it has withdrawn. exclude: ids to leave out; they count
    as neither. labels_dir: a folder, relative to `data` or absolute, whose {id}.tif stand in for the competition's
    labels wherever there is one. Raises CasesError when the table cannot be read, no case is whole, the table has no
    row for an id of `exclude`, or labels_dir is no folder or holds no case's label.
    """
    table = data / "train.csv"
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = [(row["id"], row["scroll_id"]) for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError) as error:
        raise CasesError(f"{table}: found no readable table ({error!r}), wanted columns id, scroll_id") from error
    if unknown := sorted(set(exclude) - {name for name, _ in rows}):
        raise CasesError(f"exclude: found {', '.join(unknown)}, wanted ids of {table} only")
    listed = [
        Case(name, scroll, data / "train_images" / f"{name}.tif", data / "train_labels" / f"{name}.tif")
        for name, scroll in rows
        if name not in exclude
    ]
    if labels_dir:
        listed = _repaired(listed, data / labels_dir)
    whole = [case for case in listed if case.image.is_file() and case.label.is_file()]
    if not whole:
        found = f"{len(listed)} rows{' that are not excluded' if exclude else ''} and no image with its label"
        raise CasesError(f"{table}: found {found}, wanted at least one case")
    return whole, len(listed) - len(whole)


def _repaired(listed: list[Case], folder: Path) -> list[Case]:
    if not folder.is_dir():
        raise CasesError(f"labels_dir: found no folder {folder}, wanted one of repaired labels")
    cases = [
        replace(case, label=label, repaired_in=folder.name)
        if (label := folder / f"{case.name}.tif").is_file()
        else case
        for case in listed
    ]
    if cases == listed:
        wanted = f"files as {listed[0].name}.tif" if listed else "a case that is not excluded"
        raise CasesError(f"labels_dir: found no case's label in {folder}, wanted {wanted}")
    return cases


def sizes_by_scroll(cases: Iterable[Case]) -> dict[str, int]:
    """Count the cases of every scroll, largest first."""
    counts: dict[str, int] = {}
    for case in cases:
        counts[case.scroll] = counts.get(case.scroll, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
