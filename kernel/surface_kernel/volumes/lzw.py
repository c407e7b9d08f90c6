"""TIFF's LZW, decoded at twice Pillow's speed: the competition's images come in it, and on two cores decoding a
volume took more of the CPU than all else beside the network.

A string of the code table is always a piece of what was decoded before: the previous string and the one byte after it.
So the table holds places and lengths, and no string is ever followed back to front. Source of the format: TIFF
revision 6.0, section 13 (codes from the most significant bit on, the width grows one code early).
"""

import numpy as np
import numpy.typing as npt

from surface_kernel.compiled import compiled

Bytes = npt.NDArray[np.uint8]
_CLEAR, _END, _FIRST, _CODES = 256, 257, 258, 4096


@compiled()
def decode(data: Bytes, out: Bytes) -> bool:
    """Decode one strip.

    Args:
        data: uint8, the strip's bytes.
        out: uint8, as long as the strip is when decoded; it is written to, and nothing beside it.

    Returns:
        Whether the strip filled `out` and was in order up to there. Where not, `out` holds anything, and a reader that
        knows older kinds of LZW should try.
    """
    if data.size == 0 or data[0] != _CLEAR >> 1:  # every strip begins with a clear code, but for an older kind
        return False
    starts, lengths = np.empty(_CODES + 1, np.int64), np.empty(_CODES + 1, np.int64)
    held, bits, place = np.uint64(0), 0, 0  # bits that were read and not used, their number, the next byte
    width, free = 9, _FIRST
    before, length_before = 0, 0  # where the previous string lies in `out`; no length right after a clear code
    filled = 0
    while filled < out.size:
        while bits < width:
            if place >= data.size:
                return False
            held = (held << np.uint64(8)) | np.uint64(data[place])
            place += 1
            bits += 8
        bits -= width
        code = np.int64((held >> np.uint64(bits)) & np.uint64((1 << width) - 1))
        if code == _CLEAR:
            width, free, length_before = 9, _FIRST, 0
            continue
        if code == _END:
            return False
        if length_before > 0:
            if free >= _CODES:
                return False
            # The new string runs on into the byte that is about to be written: it may be read before it is whole.
            starts[free], lengths[free] = before, length_before + 1
            free += 1
            # One code early: a quirk of the first writers that revision 6.0 made the rule.
            if free == (1 << width) - 1 and width < 12:
                width += 1
        if code < _CLEAR:
            out[filled] = code
            length = 1
        elif code < free:
            source, length = starts[code], lengths[code]
            if filled + length > out.size:
                return False
            for step in range(length):  # one by one: the last byte may be one that was just written
                out[filled + step] = out[source + step]
        else:
            return False
        before, length_before = filled, length
        filled += length
    return True
