"""Exact Euclidean distances to a kind of voxel, in compiled code that leaves Python's lock alone.

The loader's threads make two of them for every patch. The `edt` package is as exact and a little faster, but holds the
lock for as long as it runs, so that the threads wait for one another and the training for all of them.

Felzenszwalb and Huttenlocher 2012: along one axis after the other, the squared distance at q is the least of
(q − p)² + f(p) over all p, the lower envelope of parabolas that are rooted at p. The first axis is simpler: there f is
0 or infinite, and the nearest voxel of the kind is the last one passed in one direction or the other.
"""

import numpy as np
import numpy.typing as npt

from surface_kernel.compiled import compiled

_INFINITE = np.float32(1e12)  # of squared distances; no volume is a million voxels long


def distance_to(label: npt.NDArray[np.uint8], kind: int) -> npt.NDArray[np.float32]:
    """Return every voxel's distance in voxels to the nearest one whose label is `kind`, 1e6 where there is none.

    Args:
        label: uint8 (z, y, x).
        kind: the label to measure to.

    Returns:
        float32 of the same shape.
    """
    distance: npt.NDArray[np.float32] = np.sqrt(_squared_distance(label, kind))
    return distance


@compiled()
def _squared_distance(label: npt.NDArray[np.uint8], kind: int) -> npt.NDArray[np.float32]:
    size_z, size_y, size_x = label.shape
    squared = np.empty(label.shape, np.float32)
    for z in range(size_z):
        for y in range(size_y):
            _along_x(label[z, y], kind, squared[z, y])
    longest = max(size_z, size_y)
    values, roots = np.empty(longest, np.float32), np.empty(longest, np.int32)
    borders, nearest = np.empty(longest + 1, np.float32), np.empty(longest, np.float32)
    for z in range(size_z):
        for x in range(size_x):
            values[:size_y] = squared[z, :, x]
            _lower_envelope(values[:size_y], roots, borders, nearest)
            squared[z, :, x] = nearest[:size_y]
    for y in range(size_y):
        for x in range(size_x):
            values[:size_z] = squared[:, y, x]
            _lower_envelope(values[:size_z], roots, borders, nearest)
            squared[:, y, x] = nearest[:size_z]
    return squared


@compiled()
def _along_x(row: npt.NDArray[np.uint8], kind: int, squared: npt.NDArray[np.float32]) -> None:
    """Write the squared distances along a row to `squared`: once forth, once back."""
    size = len(row)
    last = -1
    for x in range(size):
        if row[x] == kind:
            last = x
        squared[x] = np.float32((x - last) ** 2) if last >= 0 else _INFINITE
    last = -1
    for x in range(size - 1, -1, -1):
        if row[x] == kind:
            last = x
        if last >= 0:
            squared[x] = min(squared[x], np.float32((last - x) ** 2))


@compiled()
def _lower_envelope(
    values: npt.NDArray[np.float32],
    roots: npt.NDArray[np.int32],
    borders: npt.NDArray[np.float32],
    lowest: npt.NDArray[np.float32],
) -> None:
    """Write the least of (q − p)² + values[p] over all p to lowest[q]. roots, borders: scratch memory.

    Parabola roots[k] is the lowest one from borders[k] to borders[k + 1].
    """
    size, top = len(values), -1
    for q in range(size):
        # A parabola that is rooted at infinity is nowhere the lowest, and would spoil the division below.
        if values[q] >= _INFINITE:
            continue
        meets = np.float32(-np.inf)
        while top >= 0:
            p = roots[top]
            # Where the parabola of q crosses that of p: beyond it q's is the lower one.
            meets = ((values[q] + q * q) - (values[p] + p * p)) / np.float32(2 * (q - p))
            if meets > borders[top]:
                break
            # It crosses before p's own stretch begins: p's is lowest nowhere.
            top -= 1
            meets = np.float32(-np.inf)
        top += 1
        roots[top], borders[top] = q, meets
    if top < 0:
        lowest[:size] = _INFINITE
        return
    k = 0
    for q in range(size):
        while k < top and borders[k + 1] < q:
            k += 1
        p = roots[k]
        lowest[q] = (q - p) * (q - p) + values[p]
