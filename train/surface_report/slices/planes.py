"""Which planes of a case are kept at full resolution: those through the places that the breakdown names."""

from collections.abc import Sequence

import numpy as np

from surface_report.slices.kinds import Mask, Voxel

Plane = tuple[int, int]
_WINDOW_VOXELS = 72  # as large as the close-ups of surface_score.picture


def exact_planes(errors: Mask, places: Sequence[Voxel], most: int) -> list[Plane]:
    """Return (axis, index) of at most `most` planes, the first being the slice along z with the most errors.

    Args:
        errors: Where prediction and truth differ, bool (z, y, x).
        places: Of each, the plane is kept that shows the most errors around it.
        most: More places come without one.
    """
    in_slice = np.count_nonzero(errors, axis=(1, 2))
    planes = [(0, int(in_slice.argmax()))] if in_slice.any() else []
    for at in places:
        if len(planes) >= most:
            break
        planes.append(_plane_through(errors, at))
    return list(dict.fromkeys(planes))[:most]


def _plane_through(errors: Mask, at: Voxel) -> Plane:
    half = _WINDOW_VOXELS // 2
    starts = [max(middle - half, 0) for middle in at]
    window = errors[tuple(slice(start, middle + half) for start, middle in zip(starts, at, strict=True))]
    counts = [np.count_nonzero(np.take(window, at[axis] - starts[axis], axis)) for axis in range(3)]
    axis = int(np.argmax(counts))
    return axis, at[axis]
