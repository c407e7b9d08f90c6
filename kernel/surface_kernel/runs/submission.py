"""The submission: valid from the first minute, and only ever better.

Masks wait in memory, a few hundred kilobytes each, as the bytes that Pillow was seen to read back. None lies in the
output folder: the scorer globs for *.tif and a stray one would be a row.
"""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from surface_kernel import disk
from surface_kernel.inference.tiles import Shape
from surface_kernel.volumes.mask_files import mask_bytes

NAME = "submission.zip"
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can say: the same masks give the same bytes on any day


class SubmissionError(RuntimeError):
    """A submission that would not be scored as it was meant."""


class Submission:
    """One mask for every id, and the zip that holds them.

    changed: whether a mask is not in the zip yet.
    """

    def __init__(self, shapes_zyx: Mapping[str, Shape], folder: Path) -> None:
        """Begin with zeros. shapes_zyx: of every id's mask; folder: of the zip, made where it does not exist."""
        zeros = {shape_zyx: mask_bytes(np.zeros(shape_zyx, np.uint8)) for shape_zyx in set(shapes_zyx.values())}
        self._masks = {case: zeros[shapes_zyx[case]] for case in sorted(shapes_zyx)}
        self.path, self.changed = folder / NAME, True
        folder.mkdir(parents=True, exist_ok=True)
        for partial in folder.glob(f"{NAME}.*{disk.PARTIAL}"):  # of a start that was killed
            partial.unlink()

    def put(self, case: str, tiff: bytes) -> None:
        """Take a better mask for an id: the bytes of a TIFF of its shape. Raises SubmissionError."""
        if case not in self._masks:
            raise SubmissionError(f"{self.path}: expected masks for the ids of test.csv only, got one for {case!r}")
        self._masks[case] = tiff
        self.changed = True

    def exists(self) -> bool:
        """Whether there is a zip of these ids already, an earlier start's: it is no worse than zeros."""
        try:
            with zipfile.ZipFile(self.path) as archive:
                return archive.namelist() == [f"{case}.tif" for case in self._masks]
        except (OSError, zipfile.BadZipFile, EOFError, ValueError):
            return False

    def write(self) -> None:
        """Write the zip of the masks at hand; it appears complete or not at all. Raises OSError."""
        self.changed = False  # first: a mask that comes meanwhile may miss this zip
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
            for case, tiff in self._masks.items():
                archive.writestr(zipfile.ZipInfo(f"{case}.tif", _DATE), tiff)
        try:
            disk.put_parts(self.path, [content.getbuffer()])
        except OSError:
            self.changed = True
            raise

    def check(self) -> None:
        """Read the zip back: it must hold the masks at hand, byte by byte. Raises SubmissionError."""
        try:
            with zipfile.ZipFile(self.path) as archive:
                names = archive.namelist()
                if names != [f"{case}.tif" for case in self._masks]:
                    raise SubmissionError(
                        f"{self.path}: expected {len(self._masks)} members, one per id, got {len(names)}"
                    )
                for case, tiff in self._masks.items():
                    if archive.read(f"{case}.tif") != tiff:
                        raise SubmissionError(f"{self.path}: expected the mask of {case}, got other bytes")
        except (zipfile.BadZipFile, OSError, EOFError) as error:
            raise SubmissionError(f"{self.path}: expected a readable zip of masks, got {error}") from error
