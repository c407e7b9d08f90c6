"""Volumes on disk, found and read as the competition's scorer does it.

It globs every *.tif below the folder, takes the name up to its first dot as the id, and stacks the pages that Pillow
returns. So a stray .tif is a row of its own, and a mask in an unlucky encoding is read as Pillow has it, inverted
included. Here nothing is repaired: what would surprise its author is said instead.
"""

import glob
import io
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageSequence

Volume = npt.NDArray[np.generic]

_LISTED_IDS = 20
_LISTED_VALUES = 5


class MaskError(ValueError):
    """Files that cannot be scored; the message names the file or id, what was found and what was wanted."""


@dataclass(frozen=True)
class MaskFile:
    """A TIFF in a folder, or, where `archive` is set, the member `name` of that zip."""

    name: str
    archive: Path | None = None

    @property
    def id(self) -> str:
        """Return the file's name up to its first dot."""
        return PurePosixPath(self.name).name.split(".")[0]

    def __str__(self) -> str:
        return self.name if self.archive is None else f"{self.archive}:{self.name}"


def find_masks(path: Path) -> dict[str, MaskFile]:
    """Return id -> file for a folder (searched recursively), a zip, or a single TIFF; sorted by id.

    Hidden files are passed over, as glob does. Raises MaskError when `path` is missing, holds no .tif, is no readable
    zip, or has two files of one id.
    """
    if path.is_dir():
        names = glob.glob("**/*.tif", root_dir=path, recursive=True)  # noqa: PTH207 - Path.glob sees hidden files
        files = [MaskFile((path / name).as_posix()) for name in names]
    elif not path.is_file():
        raise MaskError(f"{path}: found no such file or folder, wanted .tif volumes")
    elif path.suffix == ".zip":
        files = [MaskFile(name, path) for name in _members(path)]
    else:
        files = [MaskFile(path.as_posix())]
    if not files:
        raise MaskError(f"{path}: found no *.tif in it, wanted one for each id")
    twice = sorted(id_ for id_, count in Counter(file.id for file in files).items() if count > 1)
    if twice:
        same = sorted(str(file) for file in files if file.id == twice[0])
        raise MaskError(f"{path}: found {len(same)} files of id {twice[0]} ({', '.join(same)}), wanted one")
    return {file.id: file for file in sorted(files, key=lambda file: file.id)}


def _members(archive: Path) -> list[str]:
    """Return the members that the scorer's glob would see once they were unpacked."""
    try:
        with zipfile.ZipFile(archive) as opened:
            names = [PurePosixPath(name) for name in opened.namelist() if name.endswith(".tif")]
    except (zipfile.BadZipFile, OSError) as error:
        raise MaskError(f"{archive}: found no readable zip ({_one_line(error)}), wanted a submission.zip") from error
    return [name.as_posix() for name in names if not any(part.startswith(".") for part in name.parts)]


def pair(predictions: dict[str, MaskFile], truths: dict[str, MaskFile]) -> list[tuple[MaskFile, MaskFile]]:
    """Return (prediction, truth) for each id, in the order of the truths.

    Raises MaskError naming the ids when a truth has no prediction or a prediction has no truth.
    """
    missing = [id_ for id_ in truths if id_ not in predictions]
    surplus = [id_ for id_ in predictions if id_ not in truths]
    faults = []
    if missing:
        faults.append(f"found no prediction for {_listed(missing)}")
    if surplus:
        faults.append(f"found a prediction without a truth for {_listed(surplus)}")
    if faults:
        raise MaskError(f"{'; '.join(faults)}; wanted one .tif an id on both sides, named up to its first dot alike")
    return [(predictions[id_], truth) for id_, truth in truths.items()]


def _listed(ids: list[str]) -> str:
    shown = ", ".join(ids[:_LISTED_IDS])
    more = f" and {len(ids) - _LISTED_IDS} more" if len(ids) > _LISTED_IDS else ""
    return f"{len(ids)} id{'s' if len(ids) > 1 else ''} ({shown}{more})"


def read(file: MaskFile) -> Volume:
    """Read a volume (z, y, x) with the values and the dtype that Pillow gives its pages.

    Raises MaskError when it cannot be read, when its pages differ in shape or have colours.
    """
    try:
        pages = _pages(file)
    except Exception as error:  # on broken files Pillow raises OSError, TypeError, KeyError, SyntaxError, struct.error
        raise MaskError(f"{file}: found no readable TIFF ({_one_line(error)}), wanted grey pages") from error
    shapes = sorted({page.shape for page in pages})
    if len(shapes) > 1 or len(shapes[0]) != 2:
        raise MaskError(
            f"{file}: found pages of shape {' and '.join(map(str, shapes))}, wanted grey pages of one (y, x)"
        )
    return np.stack(pages)


def _pages(file: MaskFile) -> list[Volume]:
    content: str | io.BytesIO = file.name
    if file.archive is not None:
        with zipfile.ZipFile(file.archive) as opened:
            content = io.BytesIO(opened.read(file.name))
    with Image.open(content, formats=["TIFF"]) as image:
        return [np.asarray(page) for page in ImageSequence.Iterator(image)]


def surprises(prediction: Volume) -> list[str]:
    """Say where the scorer's reading of a prediction, `!= 0`, may not be what its author meant."""
    values = _values(prediction)
    found = ["a predicted 2 counts as foreground"] if 2 in values else []
    return found + _strange(values, "0 and 1")


def surprises_of_truth(label: Volume) -> list[str]:
    """Say where the scorer's reading of a label, 2 ignored and else `!= 0`, may not be what its author meant."""
    return _strange(_values(label), "0, 1 and 2")


def _values(volume: Volume) -> Volume:
    seen: Volume = np.arange(2) if volume.max() <= 1 and volume.min() >= 0 else np.unique(volume)
    return seen


def _strange(values: Volume, known: str) -> list[str]:
    found = []
    others = [str(value) for value in values if value not in (0, 1, 2) and not np.isnan(value)]
    if others:
        shown = ", ".join(others[:_LISTED_VALUES]) + (", ..." if len(others) > _LISTED_VALUES else "")
        found.append(f"holds other values than {known} ({shown}): they count as foreground")
    if np.isnan(values).any():
        found.append("holds NaN: it counts as background")
    return found


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
