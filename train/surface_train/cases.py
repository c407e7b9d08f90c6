"""The cases of a competition folder: which volumes there are to learn from."""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from surface_kernel import volume

UNLABELLED = 2


class CasesError(ValueError):
    """A data folder without usable cases, or a case that is not usable."""


@dataclass(frozen=True)
class Case:
    """A volume with its label and the scroll it was cut from."""

    name: str
    scroll: str
    image: Path
    label: Path

    def load(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Read image and label, both uint8 (z, y, x). Raises VolumeError, and CasesError when they do not fit."""
        image, label = volume.read(self.image), volume.read(self.label)
        if image.shape != label.shape:
            raise CasesError(f"{self.label}: found a label of {label.shape}, wanted {image.shape} as its image has")
        if label.max() > UNLABELLED:
            raise CasesError(f"{self.label}: found label {label.max()}, wanted 0, 1 and 2 only")
        return image, label


def read(data: Path) -> tuple[list[Case], int]:
    """Give the cases of `data`, in the order of train.csv, and how many of its rows lack image or label.

    Such rows are no error: the competition lists volumes that it has withdrawn. Raises CasesError when the table
    cannot be read or no case is whole.
    """
    table = data / "train.csv"
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = [(row["id"], row["scroll_id"]) for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError) as error:
        raise CasesError(f"{table}: found no readable table ({error!r}), wanted columns id, scroll_id") from error
    listed = [
        Case(name, scroll, data / "train_images" / f"{name}.tif", data / "train_labels" / f"{name}.tif")
        for name, scroll in rows
    ]
    whole = [case for case in listed if case.image.is_file() and case.label.is_file()]
    if not whole:
        raise CasesError(f"{table}: found {len(listed)} rows and no image with its label, wanted at least one case")
    return whole, len(listed) - len(whole)


def sizes_by_scroll(cases: Iterable[Case]) -> dict[str, int]:
    """Count the cases of every scroll, largest first."""
    counts: dict[str, int] = {}
    for case in cases:
        counts[case.scroll] = counts.get(case.scroll, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
