"""Masks written: TIFFs that the scorer was seen to read back as they were written."""

import io
import zlib
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image, ImageSequence

from surface_kernel import disk
from surface_kernel.message import one_line
from surface_kernel.volumes.header import VolumeError
from surface_kernel.volumes.image_files import check_voxels
from surface_kernel.volumes.volume import Volume

_ZLIB_LEVEL = 4  # a sixth more bytes than level 6, in a third of its time


def write_mask(path: Path, mask: Volume) -> None:
    """Write a mask as `mask_bytes` makes it; it appears complete under `path` or not at all.

    Raises:
        VolumeError: as `mask_bytes` does, with the file's name.
        OSError: when it cannot be written.
    """
    try:
        content = mask_bytes(mask)
    except VolumeError as error:
        raise VolumeError(f"{path}: {error}") from error
    disk.put(path, content)


def mask_bytes(mask: Volume) -> bytes:
    """Return a mask as a TIFF that Pillow was seen to read back.

    The pages are deflated by the standard library's zlib: tifffile's own choice of codec depends on what else is
    installed, and would make the file's bytes depend on it too.

    Args:
        mask: uint8 {0, 1}, (z, y, x).

    Raises:
        VolumeError: for another dtype, rank or value, and when the file does not read back.
    """
    check_voxels(mask)
    if mask.max() > 1:
        raise VolumeError(f"expected a mask of 0 and 1 only, got the value {mask.max()}")
    file = io.BytesIO()
    _write_pages(file, mask)
    if not all(np.array_equal(page, plane) for page, plane in zip_longest(_pages_of(file), mask)):
        raise VolumeError("expected the mask that was written, got other voxels on reading it back")
    return file.getvalue()


def _pages_of(file: io.BytesIO) -> Iterator[Volume]:
    """Yield the pages of a TIFF in memory that we wrote, as the scorer reads them."""
    try:
        with Image.open(file) as image:
            for page in ImageSequence.Iterator(image):
                yield np.asarray(page)
    except Exception as error:  # whatever Pillow raises on a file that was written wrongly
        raise VolumeError(f"expected the mask that was written, got no TIFF ({one_line(error)})") from error


def _write_pages(file: io.BytesIO, mask: Volume) -> None:
    """Write one deflated strip a page. Without `photometric`, three or four pages would be taken for colours."""
    strips = (zlib.compress(page.tobytes(), _ZLIB_LEVEL) for page in mask)
    tifffile.imwrite(
        file,
        strips,
        shape=mask.shape,
        dtype=np.uint8,
        photometric="minisblack",
        compression="zlib",
        rowsperstrip=mask.shape[1],
        metadata=None,
    )
