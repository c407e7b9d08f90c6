"""Volumes on disk: the competition's TIFFs in, masks out that the scorer reads back as they were written.

Every axis order is (z, y, x). Plain LZW is decoded here (`lzw`), anything else and what is broken by Pillow, page by
page, as the competition's scorer does: it reads LZW wherever it is installed, while tifffile needs imagecodecs for
that, which Kaggle's image lacks. Headers are read by tifffile, which says what a file declares without decoding it.
"""

import mmap
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

Volume = npt.NDArray[np.uint8]

WANTED = "a multi-page grey uint8 TIFF, (z, y, x)"
WANTED_NPY = "uint8 (z, y, x) in C order"
_ZLIB_LEVEL = 4  # a sixth more bytes than level 6, in a third of its time


Shape = tuple[int, int, int]


class VolumeError(ValueError):
    """A volume that cannot be used; the message names the file, what was found and what was wanted.

    shape_zyx: what the file's header says of its shape, where that much can be known: its mask needs it all the same.
    """

    def __init__(self, message: str, shape_zyx: Shape | None = None) -> None:
        super().__init__(message)
        self.shape_zyx = shape_zyx


@dataclass(frozen=True)
class Header:
    """What a file declares about itself, checked to be a grey uint8 volume.

    offset: the byte at which its voxels begin, where they lie there in one piece, as in memory; None where they don't.
    strips: where its pages are plain LZW, first byte, bytes and decoded bytes of every strip, in order; else empty.
    """

    shape_zyx: Shape
    offset: int | None = None
    strips: tuple[tuple[int, int, int], ...] = ()


def read_header(path: Path) -> Header:
    """Read the shape of a volume, a TIFF or an .npy file, without decoding it.

    Raises VolumeError when the file is missing, is no TIFF, or holds something else than grey uint8 pages of one
    shape. A truncated file may pass here and fail in `read`: its first pages are whole.
    """
    if path.suffix == ".npy":
        return _read_npy_header(path)
    try:
        if not path.is_file():
            raise VolumeError(f"{path}: found no such file, wanted {WANTED}")
        with tifffile.TiffFile(path) as tiff:
            pages = [page.aspage() for page in tiff.pages]
            if pages and (following := _next_page_offset(tiff, pages[-1])):
                raise VolumeError(f"{path}: found no page {len(pages)} at its byte {following}, wanted {WANTED}")
    except VolumeError:
        raise
    except Exception as error:  # tifffile raises whatever its parser trips over: struct.error, KeyError, ...
        raise VolumeError(f"{path}: found no readable TIFF ({_one_line(error)}), wanted {WANTED}") from error
    if not pages:
        raise VolumeError(f"{path}: found a TIFF without pages, wanted {WANTED}")
    sizes = {(int(page.imagelength), int(page.imagewidth)) for page in pages}
    # Pillow shows the scorer as many pages of this size, whatever their pixels are.
    shape_zyx = (len(pages), *sizes.pop()) if len(sizes) == 1 else None
    for index, page in enumerate(pages):
        dtype = "unknown" if page.dtype is None else str(page.dtype)
        layout = (dtype, page.bitspersample, page.samplesperpixel, page.photometric, page.ndim)
        if layout != ("uint8", 8, 1, tifffile.PHOTOMETRIC.MINISBLACK, 2):
            kind = page.photometric.name if hasattr(page.photometric, "name") else page.photometric
            found = f"{dtype} ({page.bitspersample} bits) {tuple(page.shape)} {kind}"
            raise VolumeError(f"{path}: found {found} on page {index}, wanted {WANTED}", shape_zyx)
        if page.shape != pages[0].shape:
            found = f"pages of {tuple(pages[0].shape)} and {tuple(page.shape)}"
            raise VolumeError(f"{path}: found {found}, wanted pages of one shape")
    assert shape_zyx is not None  # all pages have one shape
    if len(pages) == 1:
        raise VolumeError(f"{path}: found a single page of {shape_zyx[1:]}, wanted {WANTED}", shape_zyx)
    return Header(shape_zyx, _offset_of_one_piece(pages), tuple(_lzw_strips(pages)))


def _lzw_strips(pages: Sequence[tifffile.TiffPage]) -> list[tuple[int, int, int]]:
    """Give first byte, bytes and decoded bytes of the strips of pages that hold nothing but LZW; none for any other."""
    strips = []
    for page in pages:
        rows = range(0, page.imagelength, max(1, page.rowsperstrip))
        sizes = [min(page.rowsperstrip, page.imagelength - row) * page.imagewidth for row in rows]
        plain = page.compression == 5 and page.predictor == 1 and page.fillorder == 1 and not page.is_tiled
        if not plain or not len(sizes) == len(page.dataoffsets) == len(page.databytecounts):
            return []
        strips += list(zip(page.dataoffsets, page.databytecounts, sizes, strict=True))
    return strips


def _read_lzw(path: Path, strips: Sequence[tuple[int, int, int]], out: Volume) -> bool:
    """Decode a volume's strips into it; say whether all were in order. Pillow tells of what is not."""
    from surface_kernel import lzw  # numba: headers are read, and zeros written, without it

    try:
        content = np.memmap(path, np.uint8, "r")
    except (OSError, ValueError):
        return False
    flat, first = out.reshape(-1), 0
    for offset, count, size in strips:
        if offset + count > content.size or not lzw.decode(
            np.array(content[offset : offset + count]), flat[first : first + size]
        ):
            return False
        first += size
    return first == flat.size


def _offset_of_one_piece(pages: Sequence[tifffile.TiffPage]) -> int | None:
    """Give where uncompressed pages begin that follow one another without gaps."""
    following: int | None = None
    for page in pages:
        plain = page.compression == 1 and page.fillorder == 1 and page.is_contiguous
        if not plain or following not in (None, page.dataoffsets[0]):
            return None
        following = int(page.dataoffsets[0]) + page.nbytes
    return int(pages[0].dataoffsets[0])


def _read_npy_header(path: Path) -> Header:
    try:
        voxels = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise VolumeError(f"{path}: found no readable .npy file ({_one_line(error)}), wanted {WANTED_NPY}") from error
    if (
        not isinstance(voxels, np.memmap)
        or voxels.dtype != np.uint8
        or voxels.ndim != 3
        or not voxels.flags.c_contiguous
    ):
        raise VolumeError(f"{path}: found {voxels.dtype} of shape {voxels.shape}, wanted {WANTED_NPY}")
    return Header(voxels.shape, voxels.offset)


def _next_page_offset(tiff: tifffile.TiffFile, page: tifffile.TiffPage) -> int:
    """Give the byte at which a page says that the next one lies: 0 for the last page of a whole file.

    Where a file is cut between two pages, tifffile and Pillow both take those before the cut for all there are.
    """
    layout, handle = tiff.tiff, tiff.filehandle
    handle.seek(page.offset)
    (tags,) = struct.unpack(layout.tagnoformat, handle.read(layout.tagnosize))
    handle.seek(page.offset + layout.tagnosize + tags * layout.tagsize)
    return int(struct.unpack(layout.offsetformat, handle.read(layout.offsetsize))[0])


def open_volume(path: Path) -> Volume:
    """Give a volume as uint8 (z, y, x): a memory map where the file allows it, else decoded as `read` does.

    Changes to a memory map stay in memory. Raises VolumeError.
    """
    header = read_header(path)
    if header.offset is None:
        return read(path)
    return np.memmap(path, np.uint8, "c", header.offset, header.shape_zyx)


def read(path: Path) -> Volume:
    """Read a TIFF: uint8 (z, y, x), C-contiguous.

    Raises VolumeError as `read_header` does, and when a page cannot be decoded.
    """
    header = read_header(path)
    shape_zyx = header.shape_zyx
    volume = np.empty(shape_zyx, np.uint8)
    if header.strips and _read_lzw(path, header.strips, volume):
        return volume
    pages = 0
    for page in _pages(path):
        if pages >= shape_zyx[0] or page.shape != shape_zyx[1:]:
            raise VolumeError(f"{path}: found page {pages} of {page.shape}, wanted {shape_zyx} as its header says")
        volume[pages] = page
        pages += 1
    if pages != shape_zyx[0]:
        raise VolumeError(f"{path}: found {pages} pages, wanted {shape_zyx[0]} as its header says")
    return volume


def forget_planes(volume: npt.NDArray[Any], end: int) -> None:
    """Let go of the planes before `end` of a volume that lies on disk; they are read again where they are wanted."""
    if isinstance(volume, np.memmap):
        bytes_ = volume.offset + min(end, len(volume)) * volume.strides[0]
        volume._mmap.madvise(mmap.MADV_DONTNEED, 0, bytes_ - bytes_ % mmap.PAGESIZE)  # type: ignore[attr-defined]


def _pages(path: Path) -> Iterator[Volume]:
    z = 0
    try:
        with Image.open(path) as image:
            for z in range(getattr(image, "n_frames", 1)):
                image.seek(z)
                yield np.asarray(image)
    except Exception as error:  # on broken files Pillow raises OSError, TypeError, KeyError, SyntaxError, struct.error
        raise VolumeError(f"{path}: found page {z} undecodable ({_one_line(error)}), wanted {WANTED}") from error


def write_mask(path: Path, mask: Volume) -> None:
    """Write a mask, uint8 {0, 1} (z, y, x), so that it appears complete under `path` or not at all.

    The bytes are deflated by the standard library's zlib: tifffile's own choice of codec depends on what else is
    installed, and would make the file's bytes depend on it too. The file is read back by Pillow before it gets its
    name. Raises VolumeError for another dtype, rank or value, and when the file does not read back.
    """
    _check_array(path, mask)
    if mask.max() > 1:
        raise VolumeError(f"{path}: found the value {mask.max()} in a mask, wanted 0 and 1 only")
    partial = path.with_name(path.name + ".partial")
    try:
        _write_pages(partial, mask)
        if not all(np.array_equal(page, plane) for page, plane in zip_longest(_pages(partial), mask)):
            raise VolumeError(f"{path}: found other voxels on reading back, wanted the mask that was written")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _write_pages(path: Path, volume: Volume) -> None:
    """Write one deflated strip a page. Without `photometric`, three or four pages would be taken for colours."""
    strips = (zlib.compress(page.tobytes(), _ZLIB_LEVEL) for page in volume)
    tifffile.imwrite(
        path,
        strips,
        shape=volume.shape,
        dtype=np.uint8,
        photometric="minisblack",
        compression="zlib",
        rowsperstrip=volume.shape[1],
        metadata=None,
    )


def write_npy(path: Path, planes: Iterable[npt.NDArray[np.float32]], shape_zyx: Shape) -> float:
    """Write float32 planes, one after the other, as an .npy file of this shape; give their mean.

    The file appears complete under `path` or not at all. Raises VolumeError when there are more or fewer planes.
    """
    partial = path.with_name(path.name + ".partial")
    described = {"descr": "<f4", "fortran_order": False, "shape": shape_zyx}
    total, count = 0.0, 0
    try:
        with partial.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, described)
            for plane in planes:
                file.write(np.ascontiguousarray(plane, "<f4").data)
                total += float(plane.mean(dtype=np.float64))
                count += 1
        if count != shape_zyx[0]:
            raise VolumeError(f"{path}: found {count} planes, wanted {shape_zyx[0]}")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return total / count


def write_lzw(path: Path, volume: Volume) -> None:
    """Write uint8 (z, y, x) grey values as the competition does: LZW, one page a slice. Raises VolumeError."""
    _check_array(path, volume)
    first, *rest = (Image.fromarray(page) for page in volume)
    partial = path.with_name(path.name + ".partial")
    try:
        first.save(partial, format="TIFF", compression="tiff_lzw", save_all=True, append_images=rest)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _check_array(path: Path, array: Volume) -> None:
    if array.dtype != np.uint8 or array.ndim != 3 or array.size == 0:
        raise VolumeError(f"{path}: found a {array.dtype} array of shape {array.shape}, wanted uint8 (z, y, x) voxels")


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
