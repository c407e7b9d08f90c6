"""Volumes on disk: the competition's TIFFs in, masks out that the scorer reads back as they were written.

Every axis order is (z, y, x). What a file declares is read by `tiff` and judged here before anything is decoded. Plain
LZW, deflate and uncompressed strips are decoded here, bounded by what was declared; anything else and what is broken
by Pillow (`decoder`), as the competition's scorer does: it reads LZW wherever it is installed, while tifffile needs
imagecodecs for that, which Kaggle's image lacks.
"""

import io
import math
import mmap
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image, ImageSequence

from surface_kernel import disk
from surface_kernel.machine import machine_bytes
from surface_kernel.volumes import decoder, tiff

Volume = npt.NDArray[np.uint8]

WANTED = "a multi-page grey uint8 TIFF, (z, y, x)"
WANTED_NPY = "uint8 (z, y, x) in C order"
_ZLIB_LEVEL = 4  # a sixth more bytes than level 6, in a third of its time

# Decoded bytes to stored ones. Zeros make 116 with LZW and 355 with deflate, of a volume of the competition. Deflate
# ends at 1,032: 258 bytes for 2 bits. LZW ends at 2,559: its longest string, 3,839 bytes, for 12 bits.
MOST_RATIO = 2_600
# Nobody is to allocate by a file's word alone: 33 volumes of the competition. A larger one can be an .npy file or an
# uncompressed TIFF, which are mapped, and whose own size bears them out.
MOST_VOXELS = 1 << 30
MOST_SIDE = 1 << 16  # of a page, in pixels
DECODED_SHARE = 0.5  # of the machine's memory that one decoded volume may take; the network's is the rest
MOST_SPREAD = 4  # stored bytes to decoded ones, where strips share bytes: a code after every clear code takes 2.25

_NONE, _LZW, _DEFLATES = 1, 5, (8, 32946)
_BLACK_IS_ZERO = 1
_PHOTOMETRICS = ("MINISWHITE", "MINISBLACK", "RGB", "PALETTE", "MASK", "SEPARATED", "YCBCR")
_SAMPLE_FORMATS = {1: "uint", 2: "int", 3: "float", 5: "complex int", 6: "complex"}

Shape = tuple[int, int, int]
Strip = tuple[int, int, int]


class VolumeError(ValueError):
    """A volume that cannot be used; the message names the file, what was found and what was wanted.

    shape_zyx: what the file's header says of its shape, where that much can be known: its mask needs it all the same.
    None where the header is absurd.
    """

    def __init__(self, message: str, shape_zyx: Shape | None = None) -> None:
        super().__init__(message)
        self.shape_zyx = shape_zyx


@dataclass(frozen=True)
class Header:
    """What a file declares about itself, checked to be a grey uint8 volume.

    offset: the byte at which its voxels begin, where they lie there in one piece, as in memory; None where they don't.
    strips: where its pages are plain, first byte, bytes and decoded bytes of every strip, in order; else empty.
    compression: of the strips, as TIFF numbers it.
    """

    shape_zyx: Shape
    offset: int | None = None
    strips: tuple[Strip, ...] = ()
    compression: int = _NONE


def read_header(path: Path) -> Header:
    """Read the shape of a volume, a TIFF or an .npy file, without decoding it.

    Raises VolumeError when the file is missing, is no TIFF, holds something else than grey uint8 pages of one shape,
    is cut, or declares more than its bytes can hold or this machine can decode. What is broken within a page shows in
    `read` only.
    """
    try:
        if not path.is_file():  # nor a pipe, which would keep whoever opens it waiting
            raise VolumeError(f"{path}: found no such file, wanted {WANTED}")
        if path.suffix == ".npy":
            return _read_npy_header(path)
        pages, size_bytes = tiff.read_pages(path), path.stat().st_size
    except (OSError, tiff.TiffError) as error:
        raise VolumeError(f"{path}: found no readable TIFF ({_one_line(error)}), wanted {WANTED}") from error
    if not pages:
        raise VolumeError(f"{path}: found a TIFF without pages, wanted {WANTED}")
    _check_size(path, pages, size_bytes)
    shape_zyx = _check_pages(path, pages)
    header = _layout(shape_zyx, pages)
    voxels = math.prod(shape_zyx)
    if header.offset is None and voxels > MOST_VOXELS:
        raise VolumeError(f"{path}: found {voxels:,} voxels to decode, wanted {MOST_VOXELS:,} at the most")
    for page, declared in enumerate(pages):
        end = max(map(sum, zip(declared.offsets, declared.byte_counts, strict=False)), default=0)
        if end > size_bytes:
            found = f"page {page} undecodable (its data end at byte {end:,} of {size_bytes:,})"
            raise VolumeError(f"{path}: found {found}, wanted {WANTED}", _believable(shape_zyx))
    if header.offset is None and voxels > (most := machine_bytes() * DECODED_SHARE):
        found = f"{voxels:,} voxels to decode"
        raise VolumeError(f"{path}: found {found}, wanted {most:,.0f} at the most: half of the memory", shape_zyx)
    return header


def _check_size(path: Path, pages: Sequence[tiff.Page], size_bytes: int) -> None:
    """Refuse what the stored bytes cannot hold. A byte counts once, however many strips are said to lie on it."""
    for page in pages:
        if max(page.width, page.height) > MOST_SIDE:
            found = f"a page of {page.height:,} × {page.width:,} pixels"
            raise VolumeError(f"{path}: found {found}, wanted sides of {MOST_SIDE:,} at the most")
    declared_bytes = sum(page.decoded_bytes for page in pages)
    pieces = (piece for page in pages for piece in zip(page.offsets, page.byte_counts, strict=False))
    stored_bytes = named_bytes = end = 0
    for first, count in sorted(pieces):
        named_bytes += count
        after = min(first + count, size_bytes)
        stored_bytes += max(0, after - max(first, end))
        end = max(end, after)
    if declared_bytes > MOST_RATIO * stored_bytes:
        found = f"{declared_bytes:,} bytes declared in {stored_bytes:,} stored ones"
        raise VolumeError(f"{path}: found {found}, wanted {MOST_RATIO:,} times as many at the most")
    if stored_bytes < named_bytes > MOST_SPREAD * declared_bytes:  # a small file could keep a decoder at it for hours
        found = f"{named_bytes:,} bytes to decode, on one another, for {declared_bytes:,} declared ones"
        raise VolumeError(f"{path}: found {found}, wanted {MOST_SPREAD} times as many at the most")


def _check_pages(path: Path, pages: Sequence[tiff.Page]) -> Shape:
    """Refuse other kinds of pages, pages of several shapes, and a single one; give the volume's shape."""
    first, sizes = pages[0], {(page.height, page.width) for page in pages}
    # Pillow shows the scorer as many pages of this size, whatever their pixels are.
    shape_zyx = (len(pages), *sizes.pop()) if len(sizes) == 1 else None
    told = _believable(shape_zyx)
    for index, page in enumerate(pages):
        kind = page.bits, page.samples, page.sample_format, page.photometric, page.depth
        if kind != (8, 1, 1, _BLACK_IS_ZERO, 1):
            raise VolumeError(f"{path}: found {_described(page)} on page {index}, wanted {WANTED}", told)
        if _page_shape(page) != _page_shape(first):
            found = f"pages of {_page_shape(first)} and {_page_shape(page)}"
            raise VolumeError(f"{path}: found {found}, wanted pages of one shape")
    assert shape_zyx is not None  # all pages have one shape
    if len(pages) == 1:
        raise VolumeError(f"{path}: found a single page of {shape_zyx[1:]}, wanted {WANTED}", told)
    return shape_zyx


def _believable(shape_zyx: Shape | None) -> Shape | None:
    return shape_zyx if shape_zyx and math.prod(shape_zyx) <= MOST_VOXELS else None


def _page_shape(page: tiff.Page) -> tuple[int, ...]:
    deep, coloured = [page.depth] * (page.depth > 1), [page.samples] * (page.samples > 1)
    return (*deep, page.height, page.width, *coloured)


def _described(page: tiff.Page) -> str:
    kind = _SAMPLE_FORMATS.get(page.sample_format, "unknown ")
    dtype = "bool" if page.bits == 1 else f"{kind}{page.bits}"
    known = page.photometric < len(_PHOTOMETRICS)
    photometric = _PHOTOMETRICS[page.photometric] if known else f"photometric {page.photometric}"
    return f"{dtype} ({page.bits} bits) {_page_shape(page)} {photometric}"


def _layout(shape_zyx: Shape, pages: Sequence[tiff.Page]) -> Header:
    """Say how pages of one shape lie in their file."""
    compression, strips = pages[0].compression, []
    for page in pages:
        plain = page.predictor == page.fill_order == page.orientation == 1 and not page.tiled
        if not plain or page.compression != compression or compression not in (_NONE, _LZW, *_DEFLATES):
            return Header(shape_zyx)
        if not len(page.offsets) == len(page.byte_counts) == -(-page.height // page.rows_per_strip):
            return Header(shape_zyx)
        rows = range(0, page.height, page.rows_per_strip)
        sizes = [min(page.rows_per_strip, page.height - row) * page.width for row in rows]
        strips += list(zip(page.offsets, page.byte_counts, sizes, strict=True))
    offset = _offset_of_one_piece(strips) if compression == _NONE else None
    return Header(shape_zyx, offset, tuple(strips), compression)


def _offset_of_one_piece(strips: Sequence[Strip]) -> int | None:
    """Give where uncompressed strips begin that follow one another without gaps."""
    following = offset = strips[0][0]
    for first, count, size in strips:
        if first != following or count != size:
            return None
        following += size
    return offset


def _read_npy_header(path: Path) -> Header:
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        with path.open("rb") as file:
            shape, fortran_order, dtype = readers[np.lib.format.read_magic(file)](file)
            offset = file.tell()
    except Exception as error:  # numpy's parser of headers raises what it trips over: SyntaxError, TokenError, ...
        raise VolumeError(f"{path}: found no readable .npy file ({_one_line(error)}), wanted {WANTED_NPY}") from error
    if dtype != np.uint8 or len(shape) != 3 or min(shape) < 1 or fortran_order:
        order = "Fortran" if fortran_order else "C"
        raise VolumeError(f"{path}: found {dtype} of shape {shape} in {order} order, wanted {WANTED_NPY}")
    if (held := path.stat().st_size - offset) < (voxels := math.prod(shape)):
        raise VolumeError(f"{path}: found no readable .npy file ({held:,} bytes of voxels), wanted {voxels:,}")
    return Header(shape, offset)


def open_volume(path: Path) -> Volume:
    """Give a volume as uint8 (z, y, x): a memory map where the file allows it, else decoded as `read` does.

    Changes to a memory map stay in memory. Raises as `read` does.
    """
    header = read_header(path)
    if header.offset is None:
        return _decode(path, header)
    return np.memmap(path, np.uint8, "c", header.offset, header.shape_zyx)


def read(path: Path) -> Volume:
    """Read a TIFF: uint8 (z, y, x), C-contiguous.

    Raises VolumeError as `read_header` does, and when a page cannot be decoded; OSError when the disk fails meanwhile,
    or no process can be started for an odd file.
    """
    return _decode(path, read_header(path))


def _decode(path: Path, header: Header) -> Volume:
    volume = np.empty(header.shape_zyx, np.uint8)
    if header.strips and _read_strips(path, header, volume):
        return volume
    try:
        decoder.decode(path, volume)
    except decoder.DecodeError as error:
        raise VolumeError(f"{path}: {error}", header.shape_zyx) from error
    return volume


def _read_strips(path: Path, header: Header, out: Volume) -> bool:
    """Decode a volume's strips into it; say whether all were in order. Pillow tells of what is not."""
    into, flat, first = _decoder_of(header.compression), out.reshape(-1), 0
    with path.open("rb", buffering=0) as file:
        for offset, count, size in header.strips:
            data = np.empty(count, np.uint8)
            if os.preadv(file.fileno(), [data.data], offset) < data.size or not into(data, flat[first : first + size]):
                return False
            first += size
    return first == flat.size


def _decoder_of(compression: int) -> Callable[[Volume, Volume], bool]:
    """Give what decodes a strip into its place and says whether it filled it."""
    if compression == _LZW:
        from surface_kernel.volumes import lzw  # numba: headers are read, and zeros written, without it

        return lzw.decode
    return _copy if compression == _NONE else _inflate


def _copy(data: Volume, out: Volume) -> bool:
    if data.size < out.size:
        return False
    out[:] = data[: out.size]
    return True


def _inflate(data: Volume, out: Volume) -> bool:
    try:
        decoded = zlib.decompressobj().decompress(data.data, out.size)
    except zlib.error:
        return False
    if len(decoded) < out.size:
        return False
    out[:] = np.frombuffer(decoded, np.uint8)
    return True


def forget_planes(volume: npt.NDArray[Any], end: int) -> None:
    """Let go of the planes before `end` of a volume that lies on disk; they are read again where they are wanted."""
    if isinstance(volume, np.memmap):
        bytes_ = volume.offset + min(end, len(volume)) * volume.strides[0]
        volume._mmap.madvise(mmap.MADV_DONTNEED, 0, bytes_ - bytes_ % mmap.PAGESIZE)  # type: ignore[attr-defined]


def write_mask(path: Path, mask: Volume) -> None:
    """Write a mask as `mask_bytes` gives it; it appears complete under `path` or not at all.

    Raises VolumeError as that does, OSError.
    """
    try:
        content = mask_bytes(mask)
    except VolumeError as error:
        raise VolumeError(f"{path}: {error}") from error
    disk.put(path, content)


def mask_bytes(mask: Volume) -> bytes:
    """Give a mask, uint8 {0, 1} (z, y, x), as a TIFF that Pillow was seen to read back.

    The bytes are deflated by the standard library's zlib: tifffile's own choice of codec depends on what else is
    installed, and would make the file's bytes depend on it too. Raises VolumeError for another dtype, rank or value,
    and when the file does not read back.
    """
    _check_array(mask)
    if mask.max() > 1:
        raise VolumeError(f"found the value {mask.max()} in a mask, wanted 0 and 1 only")
    file = io.BytesIO()
    _write_pages(file, mask)
    if not all(np.array_equal(page, plane) for page, plane in zip_longest(_pages_of(file), mask)):
        raise VolumeError("found other voxels on reading back, wanted the mask that was written")
    return file.getvalue()


def _pages_of(file: io.BytesIO) -> Iterator[Volume]:
    """Yield the pages of a TIFF in memory that we wrote, as the scorer reads them."""
    try:
        with Image.open(file) as image:
            for page in ImageSequence.Iterator(image):
                yield np.asarray(page)
    except Exception as error:  # whatever Pillow raises on a file that was written wrongly
        raise VolumeError(f"found no TIFF on reading back ({_one_line(error)}), wanted the mask") from error


def _write_pages(file: io.BytesIO, volume: Volume) -> None:
    """Write one deflated strip a page. Without `photometric`, three or four pages would be taken for colours."""
    strips = (zlib.compress(page.tobytes(), _ZLIB_LEVEL) for page in volume)
    tifffile.imwrite(
        file,
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
    described = {"descr": "<f4", "fortran_order": False, "shape": shape_zyx}
    total, count = 0.0, 0

    def parts() -> Iterator[bytes | memoryview]:
        nonlocal total, count
        head = io.BytesIO()
        np.lib.format.write_array_header_1_0(head, described)
        yield head.getvalue()
        for plane in planes:
            yield np.ascontiguousarray(plane, "<f4").data
            total += float(plane.mean(dtype=np.float64))
            count += 1
        if count != shape_zyx[0]:
            raise VolumeError(f"{path}: found {count} planes, wanted {shape_zyx[0]}")

    disk.put_parts(path, parts())
    return total / count


def write_lzw(path: Path, volume: Volume) -> None:
    """Write uint8 (z, y, x) grey values as the competition does: LZW, one page a slice. Raises VolumeError."""
    try:
        _check_array(volume)
    except VolumeError as error:
        raise VolumeError(f"{path}: {error}") from error
    first, *rest = (Image.fromarray(page) for page in volume)
    file = io.BytesIO()
    first.save(file, format="TIFF", compression="tiff_lzw", save_all=True, append_images=rest)
    disk.put(path, file.getbuffer())


def _check_array(array: Volume) -> None:
    if array.dtype != np.uint8 or array.ndim != 3 or array.size == 0:
        raise VolumeError(f"found a {array.dtype} array of shape {array.shape}, wanted uint8 (z, y, x) voxels")


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
