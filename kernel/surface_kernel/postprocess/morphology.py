"""Closing and opening by an ellipsoid: gaps that it cannot enter are filled, parts that cannot hold it are removed.

An ellipsoid of radii (r_z, r, r) has the voxels with (z / (r_z + ½))² + (y² + x²) / (r + ½)² ≤ 1: a single one for
radii of 0. Outside the mask its edge is repeated.
"""

import math

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.uint8]


def close_gaps(mask: Mask, radius_z: int, radius_yx: int) -> None:
    """Set what lies in gaps that the ellipsoid does not fit into, in place: dilated, then eroded.

    Args:
        mask: uint8 {0, 1}, (z, y, x).
        radius_z: of the ellipsoid along z, in voxels.
        radius_yx: along y and x.
    """
    if mask.size:
        dilated = _dilate(_padded(mask, radius_z, radius_yx), radius_z, radius_yx)
        mask |= _within(_erode(dilated, radius_z, radius_yx), radius_z, radius_yx)


def open_gaps(mask: Mask, radius_z: int, radius_yx: int) -> None:
    """Remove what the ellipsoid does not reach from inside the mask, in place: eroded, then dilated.

    Args:
        mask: uint8 {0, 1}, (z, y, x).
        radius_z: of the ellipsoid along z, in voxels.
        radius_yx: along y and x.
    """
    if mask.size:
        eroded = _erode(_padded(mask, radius_z, radius_yx), radius_z, radius_yx)
        mask &= _within(_dilate(eroded, radius_z, radius_yx), radius_z, radius_yx)


def _padded(mask: Mask, radius_z: int, radius_yx: int) -> Mask:
    """Return a mask with its edge repeated so far that what is beyond changes nothing within."""
    return np.pad(mask, [(2 * radius, 2 * radius) for radius in (radius_z, radius_yx, radius_yx)], mode="edge")


def _within(padded: Mask, radius_z: int, radius_yx: int) -> Mask:
    """Return the part of a padded mask that it was padded around."""
    depth, height, width = padded.shape
    z, yx = 2 * radius_z, 2 * radius_yx
    return padded[z : depth - z, yx : height - yx, yx : width - yx]


def _erode(mask: Mask, radius_z: int, radius_yx: int) -> Mask:
    """Return where the ellipsoid around a voxel lies in the mask; what is outside is no hindrance."""
    return 1 - _dilate(1 - mask, radius_z, radius_yx)


def _dilate(mask: Mask, radius_z: int, radius_yx: int) -> Mask:
    """Return where the ellipsoid around a voxel meets the mask; what is outside is background.

    Plane by plane: the mask's rows are widened by every half-width that the ellipsoid has, and shifted along y and z.
    """
    dilated = np.zeros_like(mask)
    height, depth = mask.shape[1], len(mask)
    for z, plane in enumerate(mask):
        if not plane.any():
            continue
        widened = _widened(plane, radius_yx)
        for dz in range(max(-radius_z, -z), min(radius_z, depth - 1 - z) + 1):
            target = dilated[z + dz]
            for dy in range(-radius_yx, radius_yx + 1):
                half = _half_width(dz, dy, radius_z=radius_z, radius_yx=radius_yx)
                if half >= 0 and abs(dy) < height:
                    target[max(0, dy) : height + min(0, dy)] |= widened[half][max(0, -dy) : height - max(0, dy)]
    return dilated


def _widened(plane: Mask, most: int) -> list[Mask]:
    """Return a plane dilated along x by 0, 1, … `most` voxels."""
    widened = [plane]
    for _ in range(most):
        wider = widened[-1].copy()
        wider[:, 1:] |= widened[-1][:, :-1]
        wider[:, :-1] |= widened[-1][:, 1:]
        widened.append(wider)
    return widened


def _half_width(dz: int, dy: int, *, radius_z: int, radius_yx: int) -> int:
    """Return how far the ellipsoid reaches along x at an offset from its centre; -1 where it does not reach at all."""
    left = 1 - (dz / (radius_z + 0.5)) ** 2 - (dy / (radius_yx + 0.5)) ** 2
    return math.floor((radius_yx + 0.5) * math.sqrt(left)) if left >= 0 else -1
