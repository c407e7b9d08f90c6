"""Plug: fill what lies between voxels that touch across an edge or a corner only.

A mask's components are counted across faces, so two voxels that touch diagonally are two pieces, and a diagonal row of
them is a fence full of tunnels. In every 2×2×2 block the set voxels are joined by as few more as it takes; afterwards
it makes no difference whether components are counted across faces or across corners too.

     #.      ##
     .#      .#      one of the two is set: the first in scan order, in a block taken for itself
"""

import numpy as np
import numpy.typing as npt

from surface_kernel.compiled import compiled

Mask = npt.NDArray[np.uint8]
_CORNERS = 8  # of a block: bit 4 z + 2 y + x


def plug(mask: Mask) -> None:
    """Set voxels until the set voxels of every 2×2×2 block are joined across faces within it, in place.

    Blocks are visited in scan order, and all of them again until none needs a voxel: voxels are only added, so it ends.

    Args:
        mask: uint8 {0, 1}, (z, y, x), an array or a memory map.
    """
    while _plug_once(mask, _JOINED):
        pass


def _is_joined(block: int) -> bool:
    """Whether the set corners of a block are one piece across its faces; an empty block is."""
    piece, grown = 0, block & -block
    while grown != piece:
        piece = grown
        for bit in range(_CORNERS):
            if piece >> bit & 1:
                grown |= (1 << (bit ^ 1) | 1 << (bit ^ 2) | 1 << (bit ^ 4)) & block
    return piece == block


def _joined(block: int) -> int:
    """Return a block with as few corners more as join what is set in it, the first ones in scan order."""
    more = [other for other in range(1 << _CORNERS) if other & block == block and _is_joined(other)]
    return min(more, key=lambda other: (other.bit_count(), other))


_JOINED = np.array([_joined(block) for block in range(1 << _CORNERS)], np.uint8)


@compiled()
def _plug_once(mask: Mask, joined: Mask) -> bool:
    """Visit every block once; return whether a voxel was set."""
    depth, height, width = mask.shape
    changed = False
    for z in range(depth - 1):
        for y in range(height - 1):
            for x in range(width - 1):
                block = np.int64(0)
                for bit in range(8):
                    block |= np.int64(mask[z + (bit >> 2), y + (bit >> 1 & 1), x + (bit & 1)]) << bit
                added = joined[block] & ~block
                if added:
                    changed = True
                    for bit in range(8):
                        if added >> bit & 1:
                            mask[z + (bit >> 2), y + (bit >> 1 & 1), x + (bit & 1)] = 1
    return changed
