"""What the file of a volume declares, judged before anything is decoded.

Every axis order is (z, y, x). What a TIFF declares is read by `tiff`; here it is checked to be a grey uint8 volume
that its own bytes bear out and that this machine can decode.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from surface_kernel.machine import machine_bytes
from surface_kernel.message import one_line
from surface_kernel.volumes.names import ARRAYS
from surface_kernel.volumes.tiff import read_pages
from surface_kernel.volumes.tiff_page import Page, TiffError

EXPECTED = "a multi-page grey uint8 TIFF, (z, y, x)"
EXPECTED_NPY = "a .npy file of uint8 (z, y, x) in C order"

# Decoded bytes per stored byte. Zeros make 116 with LZW and 355 with deflate, of a volume of the competition. Deflate
# ends at 1,032: 258 bytes for 2 bits. LZW ends at 2,559: its longest string, 3,839 bytes, for 12 bits.
MAX_RATIO = 2_600
# No memory is allocated on a file's word alone beyond 33 volumes of the competition. A larger volume can be an .npy
# file or an uncompressed TIFF, which are memory-mapped, and whose own size bears them out.
MAX_VOXELS = 1 << 30
MAX_SIDE = 1 << 16  # of a page, in pixels
DECODED_SHARE = 0.5  # of the machine's memory that one decoded volume may take; the network's is the rest
MAX_OVERLAP = 4  # stored bytes per decoded byte, where strips share bytes: a code after every clear code takes 2.25

NONE, LZW, DEFLATES = 1, 5, (8, 32946)  # compressions, as TIFF numbers them
_BLACK_IS_ZERO = 1
_PHOTOMETRICS = ("MINISWHITE", "MINISBLACK", "RGB", "PALETTE", "MASK", "SEPARATED", "YCBCR")
_SAMPLE_FORMATS = {1: "uint", 2: "int", 3: "float", 5: "complex int", 6: "complex"}
_MAPPED = "store it as .npy or as an uncompressed TIFF, which are memory-mapped"

Shape = tuple[int, int, int]
Strip = tuple[int, int, int]


class VolumeError(ValueError):
    """A volume that cannot be used; the message names the file, what was expected and what it is.

    shape_zyx: the shape that the file's header declares, where it can be known: an unreadable volume needs a mask of
    this shape all the same. None where the header is absurd.
    """

    def __init__(self, message: str, shape_zyx: Shape | None = None) -> None:
        super().__init__(message)
        self.shape_zyx = shape_zyx


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a file declares about itself, checked to be a grey uint8 volume."""

    shape_zyx: Shape
    offset: int | None = None
    """The byte at which its voxels begin where they lie in one piece, as in memory; else None."""
    strips: tuple[Strip, ...] = ()
    """Where its pages are plain: first byte, bytes and decoded bytes of every strip, in order; else empty."""
    compression: int = NONE
    """Of the strips, as TIFF numbers it."""


def read_header(path: Path) -> Header:
    """Read the shape of a volume, a TIFF or an .npy file, without decoding it.

    What is broken within a page shows only when it is decoded.

    Raises:
        VolumeError: when the file is missing, is no TIFF, holds something else than grey uint8 pages of one shape,
            is cut, or declares more than its bytes can hold or this machine can decode.
    """
    try:
        if not path.is_file():  # a pipe would keep whoever opens it waiting
            raise VolumeError(f"{path}: no such file; expected {EXPECTED}")
        if path.suffix.lower() in ARRAYS:
            return _read_npy_header(path)
        pages, size_bytes = read_pages(path), path.stat().st_size
    except (OSError, TiffError) as error:
        raise VolumeError(f"{path}: expected {EXPECTED}, got no readable TIFF ({one_line(error)})") from error
    if not pages:
        raise VolumeError(f"{path}: expected {EXPECTED}, got a TIFF without pages")
    return _judge(path, pages, size_bytes)


def _judge(path: Path, pages: Sequence[Page], size_bytes: int) -> Header:
    """Return how the pages lie in their file, or raise VolumeError for what cannot be decoded from it."""
    _check_size(path, pages, size_bytes)
    shape_zyx = _check_pages(path, pages)
    header = _layout(shape_zyx, pages)
    voxels = math.prod(shape_zyx)
    if header.offset is None and voxels > MAX_VOXELS:
        raise VolumeError(f"{path}: expected at most {MAX_VOXELS:,} voxels to decode, got {voxels:,}; {_MAPPED}")
    for page, declared in enumerate(pages):
        end = max(map(sum, zip(declared.offsets, declared.byte_counts, strict=False)), default=0)
        if end > size_bytes:
            got = f"a cut file (the data of page {page} end at byte {end:,} of {size_bytes:,}); copy it again"
            raise VolumeError(f"{path}: expected {EXPECTED}, got {got}", _believable(shape_zyx))
    if header.offset is None and voxels > (most := machine_bytes() * DECODED_SHARE):
        expected = f"at most {most:,.0f} voxels to decode, half of the memory"
        raise VolumeError(f"{path}: expected {expected}, got {voxels:,}; {_MAPPED}", shape_zyx)
    return header


def _check_size(path: Path, pages: Sequence[Page], size_bytes: int) -> None:
    """Refuse what the stored bytes cannot hold. A byte counts once, however many strips are said to lie on it."""
    for page in pages:
        if max(page.width, page.height) > MAX_SIDE:
            got = f"a page of {page.height:,} × {page.width:,} pixels"
            raise VolumeError(f"{path}: expected pages of at most {MAX_SIDE:,} pixels a side, got {got}")
    declared_bytes = sum(page.decoded_bytes for page in pages)
    pieces = (piece for page in pages for piece in zip(page.offsets, page.byte_counts, strict=False))
    stored_bytes = named_bytes = end = 0
    for first, count in sorted(pieces):
        named_bytes += count
        after = min(first + count, size_bytes)
        stored_bytes += max(0, after - max(first, end))
        end = max(end, after)
    if declared_bytes > MAX_RATIO * stored_bytes:
        got = f"{declared_bytes:,} declared in {stored_bytes:,} stored"
        raise VolumeError(f"{path}: expected at most {MAX_RATIO:,} declared bytes per stored byte, got {got}")
    if stored_bytes < named_bytes > MAX_OVERLAP * declared_bytes:  # a small file could keep a decoder at it for hours
        got = f"strips on one another with {named_bytes:,} for {declared_bytes:,} declared"
        raise VolumeError(f"{path}: expected at most {MAX_OVERLAP} bytes to decode per declared byte, got {got}")


def _check_pages(path: Path, pages: Sequence[Page]) -> Shape:
    """Return the volume's shape; refuse other kinds of pages, pages of several shapes, and a single one."""
    first, sizes = pages[0], {(page.height, page.width) for page in pages}
    # Pillow shows the scorer as many pages of this size, whatever their pixels are.
    shape_zyx = (len(pages), *sizes.pop()) if len(sizes) == 1 else None
    believable = _believable(shape_zyx)
    for index, page in enumerate(pages):
        kind = page.bits, page.samples, page.sample_format, page.photometric, page.depth
        if kind != (8, 1, 1, _BLACK_IS_ZERO, 1):
            raise VolumeError(f"{path}: expected {EXPECTED}, got {_described(page)} on page {index}", believable)
        if _page_shape(page) != _page_shape(first):
            raise VolumeError(f"{path}: expected pages of one shape, got {_page_shape(first)} and {_page_shape(page)}")
    assert shape_zyx is not None  # all pages have one shape
    if len(pages) == 1:
        raise VolumeError(f"{path}: expected {EXPECTED}, got a single page of {shape_zyx[1:]}", believable)
    return shape_zyx


def _believable(shape_zyx: Shape | None) -> Shape | None:
    return shape_zyx if shape_zyx and math.prod(shape_zyx) <= MAX_VOXELS else None


def _page_shape(page: Page) -> tuple[int, ...]:
    deep, coloured = [page.depth] * (page.depth > 1), [page.samples] * (page.samples > 1)
    return (*deep, page.height, page.width, *coloured)


def _described(page: Page) -> str:
    kind = _SAMPLE_FORMATS.get(page.sample_format, "unknown ")
    dtype = "bool" if page.bits == 1 else f"{kind}{page.bits}"
    known = page.photometric < len(_PHOTOMETRICS)
    photometric = _PHOTOMETRICS[page.photometric] if known else f"photometric {page.photometric}"
    return f"{dtype} ({page.bits} bits) {_page_shape(page)} {photometric}"


def _layout(shape_zyx: Shape, pages: Sequence[Page]) -> Header:
    """Return how pages of one shape lie in their file; without strips where only Pillow can decode them."""
    compression, strips = pages[0].compression, []
    for page in pages:
        plain = page.predictor == page.fill_order == page.orientation == 1 and not page.tiled
        if not plain or page.compression != compression or compression not in (NONE, LZW, *DEFLATES):
            return Header(shape_zyx=shape_zyx)
        if not len(page.offsets) == len(page.byte_counts) == -(-page.height // page.rows_per_strip):
            return Header(shape_zyx=shape_zyx)
        rows = range(0, page.height, page.rows_per_strip)
        sizes = [min(page.rows_per_strip, page.height - row) * page.width for row in rows]
        strips += list(zip(page.offsets, page.byte_counts, sizes, strict=True))
    offset = _offset_of_one_piece(strips) if compression == NONE else None
    return Header(shape_zyx=shape_zyx, offset=offset, strips=tuple(strips), compression=compression)


def _offset_of_one_piece(strips: Sequence[Strip]) -> int | None:
    """Return where uncompressed strips begin that follow one another without gaps, else None."""
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
        raise VolumeError(f"{path}: expected {EXPECTED_NPY}, got no readable one ({one_line(error)})") from error
    if dtype != np.uint8 or len(shape) != 3 or min(shape) < 1 or fortran_order:
        got = f"{dtype} of shape {shape} in {'Fortran' if fortran_order else 'C'} order"
        raise VolumeError(f"{path}: expected {EXPECTED_NPY}, got {got}")
    if (held := path.stat().st_size - offset) < (voxels := math.prod(shape)):
        raise VolumeError(f"{path}: expected {voxels:,} bytes of voxels, got a cut file of {held:,}; copy it again")
    return Header(shape_zyx=shape, offset=offset)
