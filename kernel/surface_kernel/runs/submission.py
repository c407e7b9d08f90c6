"""The submission: valid from the first minute, and only ever better.

Masks wait in memory, a few hundred kilobytes each, as the bytes that Pillow was seen to read back. None lies in the
output: the scorer globs for *.tif and a stray one would be a row.
"""

import contextlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from surface_kernel import disk
from surface_kernel.volumes.mask_files import mask_bytes

NAME = "submission.zip"
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can say: the same masks give the same bytes on any day


class SubmissionError(RuntimeError):
    """A submission that would not be scored as it was meant."""


class Submission:
    """One mask for every id, and the zip that holds them.

    shapes_zyx: the wanted shape of every id's mask. Each begins as zeros. changed: whether a mask is not in the zip.
    """

    def __init__(self, shapes_zyx: Mapping[str, tuple[int, int, int]], output: Path) -> None:
        zeros = {shape_zyx: mask_bytes(np.zeros(shape_zyx, np.uint8)) for shape_zyx in set(shapes_zyx.values())}
        self._masks = {case: zeros[shapes_zyx[case]] for case in sorted(shapes_zyx)}
        self.path, self.changed = output / NAME, True
        output.mkdir(parents=True, exist_ok=True)
        for left in output.glob(f"{NAME}.*{disk.PARTIAL}"):  # of a start that was killed
            left.unlink()

    def put(self, case: str, tiff: bytes) -> None:
        """Take a better mask for an id, as `mask_bytes` gave it for a mask of the wanted shape."""
        if case not in self._masks:
            raise SubmissionError(f"found a mask for {case!r}, wanted one of the ids that the submission began with")
        self._masks[case] = tiff
        self.changed = True

    def stands(self) -> bool:
        """Say whether a zip of these ids lies there already, an earlier start's: it is no worse than zeros."""
        try:
            with zipfile.ZipFile(self.path) as archive:
                return archive.namelist() == [f"{case}.tif" for case in self._masks]
        except (OSError, zipfile.BadZipFile, EOFError, ValueError):
            return False

    def write(self) -> None:
        """Assemble the zip from the masks at hand; it appears complete or not at all. Raises OSError."""
        partial = disk.partial_of(self.path)
        self.changed = False
        try:
            with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
                for case, tiff in self._masks.items():
                    archive.writestr(zipfile.ZipInfo(f"{case}.tif", _DATE), tiff)
            partial.replace(self.path)
        except OSError:
            self.changed = True
            raise
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)

    def check(self) -> None:
        """Read the zip back whole: it must hold the masks at hand, byte by byte. Raises SubmissionError."""
        try:
            with zipfile.ZipFile(self.path) as archive:
                names = archive.namelist()
                if names != [f"{case}.tif" for case in self._masks]:
                    raise SubmissionError(
                        f"{self.path}: found {len(names)} members, wanted {len(self._masks)}, one an id"
                    )
                for case, tiff in self._masks.items():
                    if archive.read(f"{case}.tif") != tiff:
                        raise SubmissionError(f"{self.path}: found other bytes for {case}, wanted its mask")
        except (zipfile.BadZipFile, OSError, EOFError) as error:
            raise SubmissionError(f"{self.path}: found a zip that cannot be read ({error}), wanted masks") from error
