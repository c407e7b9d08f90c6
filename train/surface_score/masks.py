"""Volumes on disk, located and read as the competition's scorer does it.

It globs every *.tif below the folder, takes the name up to its first dot as the id, and stacks the pages that Pillow
returns. So a stray .tif is a row of its own, and a mask in an unlucky encoding is read as Pillow has it, inverted
included. Nothing is repaired here: what its author may not have meant is reported as a warning.
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


_SUFFIXES = (".tif", ".tiff", ".npy")  # of what others of our commands call a volume; the scorer reads .tif alone


class MaskError(ValueError):
    """Files that cannot be scored; the message names the file or id, what was expected and what it is."""


@dataclass(frozen=True)
class MaskFile:
    """A TIFF in a folder, or, where `archive` is set, the member `name` of that zip."""

    name: str
    archive: Path | None = None

    @property
    def id(self) -> str:
        """Return the file's name up to its first dot."""
        return _path_of(self.name).name.split(".")[0] if self.archive else PurePosixPath(self.name).name.split(".")[0]

    def __str__(self) -> str:
        return self.name if self.archive is None else f"{self.archive}:{self.name}"


def find_masks(path: Path) -> dict[str, MaskFile]:
    """Return id -> file, sorted by id.

    Args:
        path: A folder (searched recursively), a zip, or a single TIFF. Hidden files are skipped, as glob does.

    Raises:
        MaskError: If `path` is missing, holds no .tif, is no readable zip, or has two files of one id.
    """
    if path.is_dir():
        names = glob.glob("**/*.tif", root_dir=path, recursive=True)  # noqa: PTH207 - Path.glob sees hidden files
        files = [MaskFile((path / name).as_posix()) for name in names]
    elif not path.is_file():
        raise MaskError(f"{path}: no such file or folder; expected a folder of .tif volumes, a zip or one .tif")
    elif path.suffix.lower() == ".zip":
        files = [MaskFile(name, path) for name in _members(path)]
    else:
        files = [MaskFile(path.as_posix())]
    if not files:
        raise MaskError(f"{path}: expected one *.tif per id, got none")
    repeated = sorted(id_ for id_, count in Counter(file.id for file in files).items() if count > 1)
    if repeated:
        same = sorted(str(file) for file in files if file.id == repeated[0])
        raise MaskError(f"{path}: expected one file of id {repeated[0]}, got {len(same)} ({', '.join(same)})")
    return {file.id: file for file in sorted(files, key=lambda file: file.id)}


def passed_over(path: Path) -> list[str]:
    """Return the files of a folder or zip that are volumes by their names elsewhere, and that the scorer does not read.

    Hidden files are not among them.
    """
    if path.is_dir():
        names = glob.glob("**/*", root_dir=path, recursive=True)  # noqa: PTH207 - as in find_masks
    else:
        names = _names(path) if path.suffix.lower() == ".zip" else []
    return sorted(name for name in names if _path_of(name).suffix.lower() in _SUFFIXES and not name.endswith(".tif"))


def _members(archive: Path) -> list[str]:
    """Return the members that the scorer's glob would see once they were unpacked."""
    return [name for name in _names(archive) if name.endswith(".tif")]


def _names(archive: Path) -> list[str]:
    """Return the names in a zip that are not hidden."""
    try:
        with zipfile.ZipFile(archive) as opened:
            names = opened.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise MaskError(f"{archive}: expected a submission.zip, got an unreadable zip ({one_line(error)})") from error
    return [name for name in names if not any(part.startswith(".") for part in _path_of(name).parts)]


def _path_of(name: str) -> PurePosixPath:
    """Return a member's name as a path: the standard of zips has forward slashes, some that write them do not."""
    return PurePosixPath(name.replace("\\", "/"))


def pair_by_id(predictions: dict[str, MaskFile], truths: dict[str, MaskFile]) -> list[tuple[MaskFile, MaskFile]]:
    """Return (prediction, truth) for each id, in the order of the truths.

    Raises:
        MaskError: If a truth has no prediction or a prediction has no truth; the message names the ids.
    """
    missing = [id_ for id_ in truths if id_ not in predictions]
    surplus = [id_ for id_ in predictions if id_ not in truths]
    faults = []
    if missing:
        faults.append(f"no prediction for {_listed(missing)}")
    if surplus:
        faults.append(f"no truth for {_listed(surplus)}")
    if faults:
        raise MaskError(
            f"expected one .tif per id in both predictions and truths (the id is the name up to its first dot), got "
            f"{' and '.join(faults)}"
        )
    return [(predictions[id_], truth) for id_, truth in truths.items()]


def _listed(ids: list[str]) -> str:
    shown = ", ".join(ids[:_LISTED_IDS])
    more = f" and {len(ids) - _LISTED_IDS} more" if len(ids) > _LISTED_IDS else ""
    return f"{len(ids)} id{'s' if len(ids) > 1 else ''} ({shown}{more})"


def read(file: MaskFile) -> Volume:
    """Return a volume (z, y, x) with the values and the dtype that Pillow gives its pages.

    Raises:
        MaskError: If it cannot be read, or its pages differ in shape or have colours.
    """
    try:
        pages = _pages(file)
    except Exception as error:  # on broken files Pillow raises OSError, TypeError, KeyError, SyntaxError, struct.error
        raise MaskError(
            f"{file}: expected a TIFF of greyscale pages, got an unreadable one ({one_line(error)})"
        ) from error
    shapes = sorted({page.shape for page in pages})
    if len(shapes) > 1 or len(shapes[0]) != 2:
        raise MaskError(
            f"{file}: expected greyscale pages of one shape (y, x), got pages of shape {' and '.join(map(str, shapes))}"
        )
    return np.stack(pages)


def _pages(file: MaskFile) -> list[Volume]:
    content: str | io.BytesIO = file.name
    if file.archive is not None:
        with zipfile.ZipFile(file.archive) as opened:
            content = io.BytesIO(opened.read(file.name))
    with Image.open(content, formats=["TIFF"]) as image:
        return [np.asarray(page) for page in ImageSequence.Iterator(image)]


def prediction_warnings(prediction: Volume) -> list[str]:
    """Return a warning for each value that the scorer's reading, `!= 0`, may take for what its author did not mean."""
    values = _values(prediction)
    warnings = ["a predicted 2 counts as foreground"] if 2 in values else []
    return warnings + _value_warnings(values, "0 and 1")


def label_warnings(label: Volume) -> list[str]:
    """Return the same for a label, of which the scorer ignores 2 and reads everything else as `!= 0`."""
    return _value_warnings(_values(label), "0, 1 and 2")


def _values(volume: Volume) -> Volume:
    seen: Volume = np.arange(2) if volume.max() <= 1 and volume.min() >= 0 else np.unique(volume)
    return seen


def _value_warnings(values: Volume, known: str) -> list[str]:
    warnings = []
    others = [str(value) for value in values if value not in (0, 1, 2) and not np.isnan(value)]
    if others:
        shown = ", ".join(others[:_LISTED_VALUES]) + (", ..." if len(others) > _LISTED_VALUES else "")
        warnings.append(f"holds values other than {known} ({shown}): they count as foreground")
    if np.isnan(values).any():
        warnings.append("holds NaN: it counts as background")
    return warnings


def one_line(error: BaseException) -> str:
    """Return an error's kind and message on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
