"""Which voxels of a volume were scanned: where nothing was, there is no surface.

Scans come with margins and masks of exact zeros. A network says something about constant zeros too, and in published
predictions of whole scrolls much of the surface lay there: the one kind of false positive that can be proven. A single
dark voxel inside a scan is data, though, and clearing it would punch a tunnel. So a voxel is *unscanned* if it lies in
some box of 5×5×5 zeros; what is outside the whole array counts as zero. In the words of morphology: the zeros, opened
by the box. The rule is local, it looks 4 voxels far, so blocks with that much around them agree with the whole.

    zeros along an axis     0000.0.....00|outside      the last two zeros and three voxels outside make a box
    unscanned               ????      ####             a run of four is none, but where it reaches the outside

The result is packed to bits along x, as numpy.packbits(axis=-1) does: 1 for scanned, 1/8 byte a voxel.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from surface_kernel.compiled import compiled
from surface_kernel.volumes.volume import forget_planes

Bytes = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]

BOX_VOXELS = 5  # a side of the box
REACH_VOXELS = BOX_VOXELS - 1  # how far a voxel's answer depends on others
UNSCANNED_LOGIT = np.float32(-20)  # in every field of logits: probability 2e-9. 0 would be 0.5, a surface to some
_HALF = BOX_VOXELS // 2
_PLANES = 64  # at a time: a volume that lies on disk is not held whole


def bits_shape(shape_zyx: Sequence[int]) -> tuple[int, int, int]:
    """Return the shape of the bits of a volume: a byte for 8 voxels along x."""
    z, y, x = shape_zyx
    return z, y, -(-x // 8)


def scanned_bits(volume: Bytes, out: Bytes | None = None) -> Bytes:
    """Return which voxels of a volume were scanned.

    Args:
        volume: uint8 (z, y, x), an array or a memory map.
        out: uint8 of `bits_shape`, where the bits go; None: a new array.

    Returns:
        The bits: uint8 (z, y, ceil(x / 8)), 1 for scanned.
    """
    if out is None:
        out = np.empty(bits_shape(volume.shape), np.uint8)
    for first in range(0, len(volume), _PLANES):
        last = min(first + _PLANES, len(volume))
        _mark(volume, first, last, out)
        forget_planes(volume, max(0, first - REACH_VOXELS))
        forget_planes(out, last)
    return out


def unpacked(bits: Bytes, width: int) -> Flags:
    """Return bits as bool (z, y, x). width: the volume's, along x."""
    return np.unpackbits(bits, axis=-1, count=width).view(np.bool_)


@compiled()
def _mark(volume: Bytes, first: int, last: int, out: Bytes) -> None:
    """Fill the bits of planes `first` to `last`: erode the zeros by the box, dilate them by it, both plane by plane.

    A ring of five planes holds what the erosion made within each plane, a second one what the dilation did. Planes
    without any zero, of which a scan has most, are passed over: `eroded_any`, `grown_any`.
    """
    depth, height, width = volume.shape
    # A box's centre may lie 2 voxels outside, and it reaches 2 further: margins of 4, and of 2.
    zeros = np.ones((height + 8, width + 8), np.uint8)
    rows = np.empty((height + 8, width + 4), np.uint8)
    eroded, eroded_any = np.zeros((5, height + 4, width + 4), np.uint8), np.zeros(5, np.bool_)
    centres = np.empty((height + 4, width + 4), np.uint8)
    grown_rows = np.empty((height + 4, width), np.uint8)
    grown, grown_any = np.zeros((5, height, width), np.uint8), np.zeros(5, np.bool_)
    for plane in range(first - 4, last + 4):
        slot = plane % 5
        if plane < 0 or plane >= depth:
            # Outside the volume everything counts as zeros.
            eroded[slot] = 1
            eroded_any[slot] = True
        else:
            eroded_any[slot] = _erode(volume[plane], zeros, rows, eroded[slot])
        if plane < first:  # the ring is not full yet
            continue
        centre = (plane - 2) % 5
        grown_any[centre] = False
        # A box reaches over five planes: one without zeros ends it.
        if eroded_any.all():
            for y in range(height + 4):
                a, b, c, d, e = eroded[0, y], eroded[1, y], eroded[2, y], eroded[3, y], eroded[4, y]
                target = centres[y]
                for x in range(width + 4):
                    target[x] = a[x] & b[x] & c[x] & d[x] & e[x]
            _dilate(centres, grown_rows, grown[centre])
            grown_any[centre] = True
        if plane - 4 >= first:
            _pack(grown, grown_any, out[plane - 4])


@compiled()
def _erode(plane: Bytes, zeros: Bytes, rows: Bytes, out: Bytes) -> bool:
    """Set `out` where the 5×5 box around a place, 2 voxels of margin included, is all zeros; say whether any may be."""
    height, width = plane.shape
    some = False
    for y in range(height):
        source, target = plane[y], zeros[y + 4]
        least = np.uint8(255)
        for x in range(width):
            target[x + 4] = source[x] == 0
            least = min(least, source[x])
        some = some or least == 0
    if not some:
        return False
    for y in range(height + 8):
        source, target = zeros[y], rows[y]
        for x in range(width + 4):
            target[x] = source[x] & source[x + 1] & source[x + 2] & source[x + 3] & source[x + 4]
    for y in range(height + 4):
        a, b, c, d, e = rows[y], rows[y + 1], rows[y + 2], rows[y + 3], rows[y + 4]
        target = out[y]
        for x in range(width + 4):
            target[x] = a[x] & b[x] & c[x] & d[x] & e[x]
    return True


@compiled()
def _dilate(centres: Bytes, rows: Bytes, out: Bytes) -> None:
    """Set `out` where a centre lies in the 5×5 box around a voxel."""
    height, width = out.shape
    for y in range(height + 4):
        source, target = centres[y], rows[y]
        for x in range(width):
            target[x] = source[x] | source[x + 1] | source[x + 2] | source[x + 3] | source[x + 4]
    for y in range(height):
        a, b, c, d, e = rows[y], rows[y + 1], rows[y + 2], rows[y + 3], rows[y + 4]
        target = out[y]
        for x in range(width):
            target[x] = a[x] | b[x] | c[x] | d[x] | e[x]


@compiled()
def _pack(grown: Bytes, grown_any: Flags, out: Bytes) -> None:
    """Write a plane's bits: scanned is what none of five planes around has grown over."""
    height, width = grown.shape[1:]
    if not grown_any.any():
        out[:] = 255
        if width % 8:
            out[:, -1] = (255 << (8 - width % 8)) & 255
        return
    unscanned = np.empty(width, np.uint8)
    for y in range(height):
        unscanned[:] = 0
        for slot in range(5):
            if grown_any[slot]:
                source = grown[slot, y]
                for x in range(width):
                    unscanned[x] |= source[x]
        target = out[y]
        target[:] = 0
        for x in range(width):
            if not unscanned[x]:
                target[x >> 3] |= 128 >> (x & 7)


@compiled()
def any_scanned(bits: Bytes, z: int, y: int, x: int, tile_z: int, tile_y: int, tile_x: int) -> bool:
    """Whether any voxel of a tile's box was scanned. The box may reach beyond the volume's far ends."""
    depth, height, bytes_ = bits.shape
    begin, end = x >> 3, min((x + tile_x + 7) >> 3, bytes_)
    # The outer bytes hold voxels beside the box too.
    head, tail = 255 >> (x & 7), (255 << ((8 - (x + tile_x) % 8) % 8)) & 255
    for plane in range(z, min(z + tile_z, depth)):
        for row in range(y, min(y + tile_y, height)):
            for place in range(begin, end):
                held = bits[plane, row, place]
                if place == begin:
                    held &= head
                if place == (x + tile_x - 1) >> 3:
                    held &= tail
                if held:
                    return True
    return False


@compiled()
def clear_unscanned(mask: Bytes, bits: Bytes) -> tuple[int, int]:
    """Set a mask's unscanned voxels to 0, in place; return how many voxels it had set, and how many of them are gone.

    mask: uint8 {0, 1} (z, y, x). bits: of `scanned_bits`.
    """
    depth, height, width = mask.shape
    before = gone = 0
    for z in range(depth):
        for y in range(height):
            row, held = mask[z, y], bits[z, y]
            for x in range(width):
                seen = (held[x >> 3] >> (7 - (x & 7))) & 1
                before += row[x]
                gone += row[x] & (1 - seen)
                row[x] &= seen
    return before, gone


@compiled()
def fill_unscanned(field: npt.NDArray[Any], bits: Bytes) -> None:
    """Set the logits of unscanned voxels to UNSCANNED_LOGIT, in place. field: float32 (z, y, x)."""
    depth, height, width = field.shape
    for z in range(depth):
        for y in range(height):
            row, held = field[z, y], bits[z, y]
            for x in range(width):
                if not (held[x >> 3] >> (7 - (x & 7))) & 1:
                    row[x] = UNSCANNED_LOGIT
