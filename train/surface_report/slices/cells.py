"""Which voxels of a volume stand for which cell of its reduced copy: integers in, integers out.

voxels   0 1 2 3 4 5 6 7      length 8
cells    0 0 0 1 1 1 2 2      3 cells: voxel v lies in cell floor(v · cells / length)
"""

import numpy as np
import numpy.typing as npt

Indexes = npt.NDArray[np.int64]
Shape = tuple[int, int, int]


def cells_of(shape_zyx: Shape, most: int) -> Shape:
    """Return how many cells each axis has: one a voxel, and at most `most`."""
    z, y, x = (min(length, most) for length in shape_zyx)
    return z, y, x


def first_voxels(length: int, cells: int) -> Indexes:
    """Return the first voxel of each cell of an axis."""
    starts: Indexes = -(-np.arange(cells, dtype=np.int64) * length // cells)
    return starts


def middle_voxels(length: int, cells: int) -> Indexes:
    """Return the voxel in the middle of each cell of an axis."""
    ends = first_voxels(length, cells)[1:]
    middles: Indexes = (first_voxels(length, cells) + np.append(ends, length) - 1) // 2
    return middles


def cell_of(voxels: Indexes, *, shape_zyx: Shape, cells_zyx: Shape) -> Indexes:
    """Return the cells (n, 3) of voxels (n, 3)."""
    found: Indexes = voxels * np.array(cells_zyx) // np.array(shape_zyx)
    return found
