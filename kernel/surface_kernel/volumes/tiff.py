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
from functools import lru_cache
from pathlib import Path

from surface_kernel.volumes.tiff_page import LISTS, NAMES, Page, TiffError

MAX_PAGES = 1 << 16  # 200 volumes of the competition, one on the other
MAX_VALUES = 1 << 21  # places and lengths of strips: a volume of 1,000³ voxels has as many if every row is a strip

Read = Callable[[int, int], bytes]

_UNSIGNED = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}  # the types of tags that count or point, for struct
_BLOCK_BYTES = 4096  # read at a time: a directory, and mostly the lists that lie behind it


def read_pages(path: Path) -> list[Page]:
    """Read what all pages of a file declare. Raises TiffError, OSError."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe of this name must not keep us waiting
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise TiffError("expected a regular file, got a folder, pipe or device")
        return parse(lambda place, size_bytes: os.pread(file, size_bytes, place), status.st_size)
    finally:
        os.close(file)


def parse(read: Read, size_bytes: int) -> list[Page]:
    """Read what all pages of a file declare.

    Args:
        read: returns as many bytes of the file, from a place on, as it is asked for; fewer at the file's end.
        size_bytes: the file's.

    Raises:
        TiffError: where its directories are not in order; and what `read` raises.
    """
    file = _File(read, size_bytes)
    layout, place = _begin(file)
    pages: list[Page] = []
    seen: set[int] = set()
    while place:
        name = f"directory {len(pages)}"
        if place in seen:
            raise TiffError(f"expected {name} in a place of its own, got it at byte {place:,}, where another one lies")
        if len(pages) == MAX_PAGES:
            raise TiffError(f"expected at most {MAX_PAGES:,} pages, got more")
        seen.add(place)
        directory = _Directory(file=file, layout=layout, name=name)
        page, place = directory.read(place)
        pages.append(page)
    return pages


class _File:
    """The bytes of a file, of which no more are given out in all than it has."""

    def __init__(self, read: Read, size_bytes: int) -> None:
        self._read, self._size_bytes = read, size_bytes
        self._left_bytes, self._left_values = size_bytes, MAX_VALUES
        self._block, self._first = b"", 0

    def take(self, place: int, count: int, what: str) -> bytes:
        """Return `count` bytes from a place on. Raises TiffError, with `what` as their name."""
        if place + count > self._size_bytes:
            raise TiffError(f"expected {what} within {self._size_bytes:,} bytes, got it up to byte {place + count:,}")
        self._left_bytes -= count
        if self._left_bytes < 0:  # or a small file could name its bytes time and again, and keep us at it for hours
            raise TiffError(f"expected directories apart from each other, got {what} on bytes of something else")
        start = place - self._first
        if start < 0 or start + count > len(self._block):
            self._block, self._first, start = self._read(place, max(count, _BLOCK_BYTES)), place, 0
            if len(self._block) < count:
                raise TiffError(f"expected {count:,} bytes of {what}, got {len(self._block):,}")
        return self._block[start : start + count]

    def count(self, values: int) -> None:
        """Count values that were read, of any tag. Raises TiffError when they are too many."""
        self._left_values -= values
        if self._left_values < 0:
            raise TiffError(f"expected at most {MAX_VALUES:,} values in the directories, got more")


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """How numbers are written."""

    order: str
    """Of their bytes, for struct: "<" or ">"."""
    entries: struct.Struct
    """How many entries a directory has."""
    entry: struct.Struct
    """Tag, type, number of values, and the values or their place."""
    place: struct.Struct
    """A byte of the file."""

    @classmethod
    def of(cls, order: str, *, entries: str, entry: str, place: str) -> "_Layout":
        """Return the layout of these codes of struct."""
        structs = {"entries": entries, "entry": entry, "place": place}
        return cls(order=order, **{name: struct.Struct(order + code) for name, code in structs.items()})


_CLASSIC = {order: _Layout.of(order, entries="H", entry="HHI4s", place="I") for order in "<>"}
_BIG = {order: _Layout.of(order, entries="Q", entry="HHQ8s", place="Q") for order in "<>"}


def _begin(file: _File) -> tuple[_Layout, int]:
    """Return how the file's numbers are written, and where its first directory lies, as its head says."""
    head = file.take(0, 8, "a head")
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    kind = struct.unpack(f"{order}H", head[2:4])[0] if order else None
    if order and kind == 42:
        layout, place = _CLASSIC[order], head[4:]
    elif order and kind == 43 and struct.unpack(f"{order}HH", head[4:]) == (8, 0):
        layout, place = _BIG[order], file.take(8, 8, "a head")
    else:
        raise TiffError(f"expected a TIFF, got a file that begins with {head!r}")
    return layout, layout.place.unpack(place)[0]


@dataclass(kw_only=True, slots=True)
class _Directory:
    """Reads one directory of a file, whose numbers are written in one layout."""

    file: _File
    layout: _Layout
    name: str
    """In messages."""

    def read(self, place: int) -> tuple[Page, int]:
        """Read the directory at this place; return its page and the place of the next one, 0 after the last."""
        layout = self.layout
        (entries,) = layout.entries.unpack(self.file.take(place, layout.entries.size, self.name))
        place += layout.entries.size
        content = self.file.take(place, entries * layout.entry.size + layout.place.size, self.name)
        values: dict[int, tuple[int, ...]] = {}
        for tag, kind, count, inline in layout.entry.iter_unpack(content[: -layout.place.size]):
            if tag not in NAMES:
                continue
            if tag in values:  # readers differ in which one they believe
                raise TiffError(f"expected {NAMES[tag]} once in {self.name}, got it twice")
            values[tag] = self._values(tag, kind=kind, count=count, inline=inline)
        return Page.of(values, self.name), layout.place.unpack(content[-layout.place.size :])[0]

    def _values(self, tag: int, *, kind: int, count: int, inline: bytes) -> tuple[int, ...]:
        """Return the values of an entry: they stand in it, or behind the place that stands in it."""
        if kind not in _UNSIGNED:
            kinds = ", ".join(map(str, _UNSIGNED))
            raise TiffError(f"expected {self._named(tag)} of whole numbers, type {kinds}, got type {kind}")
        if count != 1 and (count == 0 or tag not in LISTS):
            expected = "values" if tag in LISTS else "one value"
            raise TiffError(f"expected {expected} of {self._named(tag)}, got {count:,}")
        self.file.count(count)
        numbers = _numbers(f"{self.layout.order}{count}{_UNSIGNED[kind]}")
        if numbers.size > len(inline):
            inline = self.file.take(self.layout.place.unpack(inline)[0], numbers.size, self._named(tag))
        return numbers.unpack(inline[: numbers.size])

    def _named(self, tag: int) -> str:
        return f"{NAMES[tag]} in {self.name}"


@lru_cache(maxsize=64)
def _numbers(code: str) -> struct.Struct:
    """Return struct's reader of these numbers: the entries of all pages are mostly of a few kinds."""
    return struct.Struct(code)
