"""Which planes of a case are kept at full resolution: those through the places that the breakdown names."""

from collections.abc import Sequence

import numpy as np

from surface_report.slices.kinds import Mask, Voxel

Plane = tuple[int, int]
_WINDOW_VOXELS = 72  # as large as the close-ups of surface_score.picture


def exact_planes(errors: Mask, places: Sequence[Voxel], most: int) -> list[Plane]:
    """Return (axis, index) of at most `most` planes, those worth most first.

    That is the slice along z with the most errors, then of each place the plane that shows the most errors around it,
    then the other two of each.

    Args:
        errors: Where prediction and truth differ, bool (z, y, x).
        places: The voxels to look at, the worst first.
        most: How many planes there is room for.
    """
    in_slice = np.count_nonzero(errors, axis=(1, 2))
    planes = [(0, int(in_slice.argmax()))] if in_slice.any() else []
    through = [_planes_through(errors, at) for at in places]
    planes += [best for best, *_ in through]
    planes += [other for _, *others in through for other in others]
    return list(dict.fromkeys(planes))[:most]


def _planes_through(errors: Mask, at: Voxel) -> list[Plane]:
    """Return the three planes through a place, that with the most errors around it first."""
    half = _WINDOW_VOXELS // 2
    starts = [max(middle - half, 0) for middle in at]
    window = errors[tuple(slice(start, middle + half) for start, middle in zip(starts, at, strict=True))]
    counts = [int(np.count_nonzero(np.take(window, at[axis] - starts[axis], axis))) for axis in range(3)]
    return [(axis, at[axis]) for axis in sorted(range(3), key=lambda axis: -counts[axis])]
