"""The submission: valid from the first minute, and only ever better.

Masks wait in a scratch folder, never in the output: the scorer globs for *.tif and a stray one would be a row.
"""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence

from surface_kernel.volume import Volume, write_mask

NAME = "submission.zip"
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can say: the same masks give the same bytes on any day


class SubmissionError(RuntimeError):
    """A submission that would not be scored as it was meant."""


class Submission:
    """One mask for every id, and the zip that holds them.

    shapes_zyx: the wanted shape of every id's mask. Each begins as zeros, and the zip stands from the start.
    """

    def __init__(self, shapes_zyx: Mapping[str, tuple[int, int, int]], output: Path, scratch: Path) -> None:
        self._shapes_zyx = dict(shapes_zyx)
        self._masks = scratch / "masks"
        self.path = output / NAME
        output.mkdir(parents=True, exist_ok=True)
        self._masks.mkdir(parents=True, exist_ok=True)
        zeros: dict[tuple[int, int, int], bytes] = {}
        for case, shape_zyx in self._shapes_zyx.items():
            if shape_zyx not in zeros:
                write_mask(self._file(case), np.zeros(shape_zyx, np.uint8))
                zeros[shape_zyx] = self._file(case).read_bytes()
            self._file(case).write_bytes(zeros[shape_zyx])
        self.write()

    def put(self, case: str, mask: Volume) -> None:
        """Take a better mask for an id: uint8 {0, 1}, of the wanted shape. Raises SubmissionError, VolumeError."""
        if mask.shape != self._shapes_zyx[case]:
            raise SubmissionError(f"{case}: found a mask of {mask.shape}, wanted {self._shapes_zyx[case]}")
        write_mask(self._file(case), mask)

    def write(self) -> None:
        """Assemble the zip from the masks at hand; it appears complete or not at all."""
        partial = self.path.with_name(NAME + ".partial")
        try:
            with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
                for case in sorted(self._shapes_zyx):
                    archive.writestr(zipfile.ZipInfo(f"{case}.tif", _DATE), self._file(case).read_bytes())
            partial.replace(self.path)
        finally:
            partial.unlink(missing_ok=True)

    def check(self) -> None:
        """Read the zip back as the scorer does. Raises SubmissionError when a mask is not what it should be."""
        try:
            self._check()
        except (zipfile.BadZipFile, OSError) as error:  # Pillow's errors are OSErrors
            raise SubmissionError(f"{self.path}: found a zip that cannot be read ({error}), wanted masks") from error

    def _check(self) -> None:
        with zipfile.ZipFile(self.path) as archive:
            names = archive.namelist()
            wanted = [f"{case}.tif" for case in sorted(self._shapes_zyx)]
            if names != wanted:
                raise SubmissionError(f"{self.path}: found {len(names)} members, wanted {len(wanted)}, one an id")
            for case in sorted(self._shapes_zyx):
                _check_mask(case, archive.read(f"{case}.tif"), self._shapes_zyx[case])

    def _file(self, case: str) -> Path:
        return self._masks / f"{case}.tif"


def _check_mask(case: str, content: bytes, shape_zyx: tuple[int, int, int]) -> None:
    with Image.open(io.BytesIO(content)) as image:
        depth = 0
        for page in ImageSequence.Iterator(image):
            grey = np.asarray(page)
            depth += 1
            if grey.dtype != np.uint8 or grey.shape != shape_zyx[1:] or grey.max() > 1:
                raise SubmissionError(
                    f"{case}: found a page of {grey.dtype} {grey.shape}, wanted {shape_zyx[1:]} of 0, 1"
                )
    if depth != shape_zyx[0]:
        raise SubmissionError(f"{case}: found {depth} pages, wanted {shape_zyx[0]}")
