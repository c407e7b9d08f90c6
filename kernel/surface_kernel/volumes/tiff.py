"""What the pages of a TIFF declare of themselves, read before anything is decoded.

A file may be cut, broken or hostile: what it declares is believed only as far as its own bytes bear it out. No byte is
read that lies beyond its end, none is paid for twice, and a chain of directories that bites its tail ends. So reading
takes time and memory in proportion to the file, whatever it holds.

Sources of the format: TIFF revision 6.0, sections 2, 8, 14, 15 and 19; BigTIFF as libtiff describes it; the tags of
depth, which some writers of volumes use, from SGI's extension.
"""

import os
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MOST_PAGES = 1 << 16  # 200 volumes of the competition, one on the other
MOST_VALUES = 1 << 21  # places and lengths of strips: a volume of 1,000³ voxels has as many if every row is a strip

Read = Callable[[int, int], bytes]

_WIDTH, _HEIGHT, _DEPTH, _ROWS_PER_STRIP = 256, 257, 32997, 278
_BITS, _SAMPLES, _SAMPLE_FORMAT, _PHOTOMETRIC, _ORIENTATION = 258, 277, 339, 262, 274
_COMPRESSION, _PREDICTOR, _FILL_ORDER = 259, 317, 266
_STRIP_PLACES, _STRIP_BYTES, _TILE_PLACES, _TILE_BYTES = 273, 279, 324, 325
# What holds where a tag is missing; photometric has no default, and Pillow and tifffile both take 0.
_DEFAULTS = {
    **{_DEPTH: (1,), _ROWS_PER_STRIP: (2**32 - 1,)},
    **{_BITS: (1,), _SAMPLES: (1,), _SAMPLE_FORMAT: (1,), _PHOTOMETRIC: (0,), _ORIENTATION: (1,)},
    **{_COMPRESSION: (1,), _PREDICTOR: (1,), _FILL_ORDER: (1,)},
    **{_STRIP_PLACES: (), _STRIP_BYTES: (), _TILE_PLACES: (), _TILE_BYTES: ()},
}
_NAMES = {
    **{_WIDTH: "ImageWidth", _HEIGHT: "ImageLength", _DEPTH: "ImageDepth", _ROWS_PER_STRIP: "RowsPerStrip"},
    **{_BITS: "BitsPerSample", _SAMPLES: "SamplesPerPixel", _SAMPLE_FORMAT: "SampleFormat"},
    **{_PHOTOMETRIC: "PhotometricInterpretation", _ORIENTATION: "Orientation"},
    **{_COMPRESSION: "Compression", _PREDICTOR: "Predictor", _FILL_ORDER: "FillOrder"},
    **{_STRIP_PLACES: "StripOffsets", _STRIP_BYTES: "StripByteCounts"},
    **{_TILE_PLACES: "TileOffsets", _TILE_BYTES: "TileByteCounts"},
}
_LISTS = {_BITS, _SAMPLE_FORMAT, _STRIP_PLACES, _STRIP_BYTES, _TILE_PLACES, _TILE_BYTES}
_AT_LEAST_ONE = (_WIDTH, _HEIGHT, _DEPTH, _ROWS_PER_STRIP, _BITS, _SAMPLES)
_UNSIGNED = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}  # the types of tags that count or point, for struct
_BLOCK_BYTES = 4096  # read at a time: a directory, and mostly the lists that lie behind it


class TiffError(ValueError):
    """A file that is no TIFF, or whose directories are not in order; one line of what was found and wanted."""


@dataclass(frozen=True, slots=True)
class Page:
    """What one directory declares, the defaults of TIFF 6.0 in place of what it leaves out.

    width, height, depth: in pixels; depth is 1 but for pages that are volumes themselves. bits: of a sample, the most
    where samples differ. samples: a pixel. sample_format: 1 unsigned, 2 signed, 3 floating point. photometric: 1 where
    0 is black; compression: 1 none, 5 LZW, 8 and 32946 deflate; predictor, fill_order, orientation: 1 where there is
    nothing to undo. rows_per_strip: the page's height at the most. offsets, byte_counts: where the strips or tiles lie
    and how long they are, as the file has them: nothing says that they lie within it, or are as many.
    """

    width: int
    height: int
    depth: int
    bits: int
    samples: int
    sample_format: int
    photometric: int
    orientation: int
    compression: int
    predictor: int
    fill_order: int
    tiled: bool
    rows_per_strip: int
    offsets: tuple[int, ...]
    byte_counts: tuple[int, ...]

    @property
    def decoded_bytes(self) -> int:
        """Count the bytes of its pixels when decoded, every row beginning with a byte of its own."""
        return self.depth * self.height * -(-self.width * self.samples * self.bits // 8)


def read_pages(path: Path) -> list[Page]:
    """Read what all pages of a file declare. Raises TiffError, OSError."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe of this name must not keep us waiting
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise TiffError("found no regular file, wanted a TIFF")
        return parse(lambda place, size_bytes: os.pread(file, size_bytes, place), status.st_size)
    finally:
        os.close(file)


def parse(read: Read, size_bytes: int) -> list[Page]:
    """Read what all pages declare of a file of this size; `read` gives bytes of it from a place on, fewer at its end.

    Raises TiffError, and what `read` does.
    """
    file = _File(read, size_bytes)
    layout, place = _begin(file)
    pages: list[Page] = []
    seen: set[int] = set()
    while place:
        if place in seen:
            raise TiffError(f"found directory {len(pages)} where an earlier one lies, at byte {place:,}, wanted an end")
        if len(pages) == MOST_PAGES:
            raise TiffError(f"found more than {MOST_PAGES:,} pages, wanted no more")
        seen.add(place)
        page, place = _read_page(file, layout, place, f"directory {len(pages)}")
        pages.append(page)
    return pages


class _File:
    """The bytes of a file, of which no more are given out in all than it has."""

    def __init__(self, read: Read, size_bytes: int) -> None:
        self._read, self._size_bytes = read, size_bytes
        self._left_bytes, self._left_values = size_bytes, MOST_VALUES
        self._block, self._first = b"", 0

    def take(self, place: int, count: int, what: str) -> bytes:
        """Give `count` bytes from a place on."""
        if place + count > self._size_bytes:
            raise TiffError(f"found {what} up to byte {place + count:,} of {self._size_bytes:,}, wanted it in the file")
        self._left_bytes -= count
        if self._left_bytes < 0:  # or a small file could name its bytes time and again, and keep us at it for hours
            raise TiffError(f"found {what} on bytes of something else, wanted directories apart from each other")
        start = place - self._first
        if start < 0 or start + count > len(self._block):
            self._block, self._first, start = self._read(place, max(count, _BLOCK_BYTES)), place, 0
            if len(self._block) < count:
                raise TiffError(f"found {len(self._block):,} bytes of {what}, wanted {count:,}")
        return self._block[start : start + count]

    def count(self, values: int) -> None:
        """Count values that were found, of any tag."""
        self._left_values -= values
        if self._left_values < 0:
            raise TiffError(f"found more than {MOST_VALUES:,} values in the directories, wanted no more")


@dataclass(frozen=True)
class _Layout:
    """How numbers are written: the order of their bytes, a directory's number of entries, an entry, a place."""

    order: str
    entries: struct.Struct
    entry: struct.Struct
    place: struct.Struct

    @classmethod
    def of(cls, order: str, entries: str, entry: str, place: str) -> "_Layout":
        return cls(order, *(struct.Struct(order + code) for code in (entries, entry, place)))


_CLASSIC = {order: _Layout.of(order, "H", "HHI4s", "I") for order in "<>"}
_BIG = {order: _Layout.of(order, "Q", "HHQ8s", "Q") for order in "<>"}


def _begin(file: _File) -> tuple[_Layout, int]:
    """Read the file's head: how its numbers are written, and where the first directory lies."""
    head = file.take(0, 8, "a head")
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    kind = struct.unpack(f"{order}H", head[2:4])[0] if order else None
    if order and kind == 42:
        layout, place = _CLASSIC[order], head[4:]
    elif order and kind == 43 and struct.unpack(f"{order}HH", head[4:]) == (8, 0):
        layout, place = _BIG[order], file.take(8, 8, "a head")
    else:
        raise TiffError(f"found a file that begins with {head!r}, wanted a TIFF")
    return layout, layout.place.unpack(place)[0]


def _read_page(file: _File, layout: _Layout, place: int, what: str) -> tuple[Page, int]:
    """Read a directory; give also the place of the next one, 0 after the last."""
    (count,) = layout.entries.unpack(file.take(place, layout.entries.size, what))
    place += layout.entries.size
    content = file.take(place, count * layout.entry.size + layout.place.size, what)
    found = {}
    for tag, kind, values, inline in layout.entry.iter_unpack(content[: -layout.place.size]):
        if tag not in _NAMES:
            continue
        if tag in found:  # readers differ in which one they believe
            raise TiffError(f"found {_NAMES[tag]} twice in {what}, wanted it once")
        found[tag] = _values(file, layout, tag, kind, values, inline, f"{_NAMES[tag]} in {what}")
    return _page(found, what), layout.place.unpack(content[-layout.place.size :])[0]


def _values(file: _File, layout: _Layout, tag: int, kind: int, count: int, inline: bytes, what: str) -> tuple[int, ...]:
    if kind not in _UNSIGNED:
        raise TiffError(f"found {what} of type {kind}, wanted whole numbers of type {', '.join(map(str, _UNSIGNED))}")
    if count != 1 and (count == 0 or tag not in _LISTS):
        raise TiffError(f"found {count:,} values of {what}, wanted {'some' if tag in _LISTS else 'one'}")
    file.count(count)
    numbers = struct.Struct(f"{layout.order}{count}{_UNSIGNED[kind]}")
    if numbers.size > len(inline):
        inline = file.take(layout.place.unpack(inline)[0], numbers.size, what)
    return numbers.unpack(inline[: numbers.size])


def _page(found: dict[int, tuple[int, ...]], what: str) -> Page:
    for tag in (_WIDTH, _HEIGHT):
        if tag not in found:
            raise TiffError(f"found no {_NAMES[tag]} in {what}, wanted one")
    found = _DEFAULTS | found
    for tag in _AT_LEAST_ONE:
        if min(found[tag]) < 1:
            raise TiffError(f"found {_NAMES[tag]} 0 in {what}, wanted at least 1")
    tiled = bool(found[_TILE_PLACES])
    return Page(
        width=found[_WIDTH][0],
        height=found[_HEIGHT][0],
        depth=found[_DEPTH][0],
        bits=max(found[_BITS]),
        samples=found[_SAMPLES][0],
        sample_format=found[_SAMPLE_FORMAT][0],
        photometric=found[_PHOTOMETRIC][0],
        orientation=found[_ORIENTATION][0],
        compression=found[_COMPRESSION][0],
        predictor=found[_PREDICTOR][0],
        fill_order=found[_FILL_ORDER][0],
        tiled=tiled,
        rows_per_strip=min(found[_ROWS_PER_STRIP][0], found[_HEIGHT][0]),
        offsets=found[_TILE_PLACES if tiled else _STRIP_PLACES],
        byte_counts=found[_TILE_BYTES if tiled else _STRIP_BYTES],
    )
