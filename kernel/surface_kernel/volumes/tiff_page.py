"""What one directory of a TIFF declares: the tags that are read, their defaults, and the page that they describe.

Sources of the format: TIFF revision 6.0, sections 8, 14, 15 and 19; the tags of depth, which some writers of volumes
use, from SGI's extension.
"""

from dataclasses import dataclass
from typing import Self

_WIDTH, _HEIGHT, _DEPTH, _ROWS_PER_STRIP = 256, 257, 32997, 278
_BITS, _SAMPLES, _SAMPLE_FORMAT, _PHOTOMETRIC, _ORIENTATION = 258, 277, 339, 262, 274
_COMPRESSION, _PREDICTOR, _FILL_ORDER = 259, 317, 266
_STRIP_PLACES, _STRIP_BYTES, _TILE_PLACES, _TILE_BYTES = 273, 279, 324, 325
# What holds where a tag is missing; photometric has no default, and Pillow and tifffile both take 0.
_DEFAULTS = {
    _DEPTH: (1,),
    _ROWS_PER_STRIP: (2**32 - 1,),
    _BITS: (1,),
    _SAMPLES: (1,),
    _SAMPLE_FORMAT: (1,),
    _PHOTOMETRIC: (0,),
    _ORIENTATION: (1,),
    _COMPRESSION: (1,),
    _PREDICTOR: (1,),
    _FILL_ORDER: (1,),
    _STRIP_PLACES: (),
    _STRIP_BYTES: (),
    _TILE_PLACES: (),
    _TILE_BYTES: (),
}
NAMES = {
    _WIDTH: "ImageWidth",
    _HEIGHT: "ImageLength",
    _DEPTH: "ImageDepth",
    _ROWS_PER_STRIP: "RowsPerStrip",
    _BITS: "BitsPerSample",
    _SAMPLES: "SamplesPerPixel",
    _SAMPLE_FORMAT: "SampleFormat",
    _PHOTOMETRIC: "PhotometricInterpretation",
    _ORIENTATION: "Orientation",
    _COMPRESSION: "Compression",
    _PREDICTOR: "Predictor",
    _FILL_ORDER: "FillOrder",
    _STRIP_PLACES: "StripOffsets",
    _STRIP_BYTES: "StripByteCounts",
    _TILE_PLACES: "TileOffsets",
    _TILE_BYTES: "TileByteCounts",
}
LISTS = {_BITS, _SAMPLE_FORMAT, _STRIP_PLACES, _STRIP_BYTES, _TILE_PLACES, _TILE_BYTES}
_AT_LEAST_ONE = (_WIDTH, _HEIGHT, _DEPTH, _ROWS_PER_STRIP, _BITS, _SAMPLES)


class TiffError(ValueError):
    """A file that is no TIFF, or whose directories are not in order; the message does not name the file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """What one directory declares, the defaults of TIFF 6.0 in place of what it leaves out."""

    width: int
    """In pixels, as height and depth."""
    height: int
    depth: int
    """1 but for pages that are volumes themselves."""
    bits: int
    """Of a sample, the most where samples differ."""
    samples: int
    """Per pixel."""
    sample_format: int
    """1 unsigned, 2 signed, 3 floating point."""
    photometric: int
    """1 where 0 is black."""
    orientation: int
    """1 where there is nothing to undo, as of predictor and fill_order."""
    compression: int
    """1 none, 5 LZW, 8 and 32946 deflate."""
    predictor: int
    fill_order: int
    tiled: bool
    rows_per_strip: int
    """At most the page's height."""
    offsets: tuple[int, ...]
    """Where the strips or tiles begin, as the file says: they may lie beyond its end, or on one another."""
    byte_counts: tuple[int, ...]
    """How long they are, as the file says: they need not be as many as the offsets."""

    @classmethod
    def of(cls, values: dict[int, tuple[int, ...]], name: str) -> Self:
        """Return the page of a directory's values by tag. Raises TiffError, with `name` as the directory's."""
        for tag in (_WIDTH, _HEIGHT):
            if tag not in values:
                raise TiffError(f"expected {NAMES[tag]} in {name}, got none")
        values = _DEFAULTS | values
        for tag in _AT_LEAST_ONE:
            if min(values[tag]) < 1:
                raise TiffError(f"expected {NAMES[tag]} of at least 1 in {name}, got 0")
        tiled = bool(values[_TILE_PLACES])
        return cls(
            width=values[_WIDTH][0],
            height=values[_HEIGHT][0],
            depth=values[_DEPTH][0],
            bits=max(values[_BITS]),
            samples=values[_SAMPLES][0],
            sample_format=values[_SAMPLE_FORMAT][0],
            photometric=values[_PHOTOMETRIC][0],
            orientation=values[_ORIENTATION][0],
            compression=values[_COMPRESSION][0],
            predictor=values[_PREDICTOR][0],
            fill_order=values[_FILL_ORDER][0],
            tiled=tiled,
            rows_per_strip=min(values[_ROWS_PER_STRIP][0], values[_HEIGHT][0]),
            offsets=values[_TILE_PLACES if tiled else _STRIP_PLACES],
            byte_counts=values[_TILE_BYTES if tiled else _STRIP_BYTES],
        )

    @property
    def decoded_bytes(self) -> int:
        """Its pixels' size when decoded, every row beginning with a byte of its own."""
        return self.depth * self.height * -(-self.width * self.samples * self.bits // 8)
