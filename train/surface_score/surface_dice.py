"""Surface Dice: the share of two surfaces that lies close to the other one. Not the volumetric Dice.

The definition is that of google-deepmind/surface-distance 0.1, `compute_surface_dice_at_tolerance`, with spacing
(1, 1, 1). The surface lives on the corners between voxels. A corner sees 2×2×2 voxels, those outside the volume being
background; which of them are foreground is its *code*, 0 to 255. A corner that sees both kinds (code neither 0 nor
255) is a surface element: its weight is the area that marching cubes would put there, and it counts as matched if an
element of the other surface lies within the tolerance, measured from corner to corner.
"""

import itertools
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from surface_score.compiled import allowed_cores, compiled

TOLERANCE_VOXELS = 2.0

_Mask = npt.NDArray[np.bool_]
_Codes = npt.NDArray[np.uint8]
_Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class FarElements:
    """The elements of a surface that lie farther from the other surface than the tolerance."""

    area: float
    """Of the whole surface, in voxel faces."""
    voxels: _Counts
    """(n, 3): a foreground voxel (z, y, x) of each far element."""
    areas: npt.NDArray[np.float64]
    """(n,): their areas, in voxel faces."""
    corners: _Counts
    """(n, 3): where they are."""
    other_corners: _Counts
    """(m, 3): where all elements of the other surface are."""


_REACH = math.floor(TOLERANCE_VOXELS)
_CORNER_CUT = math.sqrt(3) / 8  # the triangle that cuts one corner off a unit cube, through the middles of three edges
_EDGE_CUT = math.sqrt(2) / 2  # the rectangle that cuts off an edge

# How many of the cube's voxels are foreground (at most half, else background is counted: the surface is the same), how
# many pairs of them share an edge, how many a face's diagonal: these three distinguish all cases of marching cubes.
_AREA_OF_CASE = {
    (0, 0, 0): 0.0,
    (1, 0, 0): _CORNER_CUT,
    (2, 1, 0): _EDGE_CUT,
    (2, 0, 1): 2 * _CORNER_CUT,
    (2, 0, 0): 2 * _CORNER_CUT,
    (3, 2, 1): 0.5 + 3 * _CORNER_CUT,
    (3, 1, 1): _EDGE_CUT + _CORNER_CUT,
    (3, 0, 3): 3 * _CORNER_CUT,
    (4, 4, 2): 1.0,
    (4, 3, 3): 6 * _CORNER_CUT,
    (4, 3, 2): _EDGE_CUT + 4 * _CORNER_CUT,
    (4, 2, 3): 0.5 + 4 * _CORNER_CUT,
    (4, 2, 2): 2 * _EDGE_CUT,
    (4, 0, 6): 4 * _CORNER_CUT,
}


def area_of_code() -> npt.NDArray[np.float64]:
    """Return the surface's area at a corner for each of the 256 codes, in voxel faces.

    The voxel at (z, y, x) of the 2×2×2 has the bit 128 >> (4z + 2y + x), as in surface-distance's
    ENCODE_NEIGHBOURHOOD_3D_KERNEL.
    """
    cube = list(itertools.product((0, 1), repeat=3))
    areas = np.empty(256)
    for code in range(256):
        inside = [voxel for bit, voxel in enumerate(cube) if code & (128 >> bit)]
        # Marching cubes draws the same surface for a cube and its inverse.
        smaller = inside if len(inside) <= 4 else [voxel for voxel in cube if voxel not in inside]
        steps = [sum(a != b for a, b in zip(*pair, strict=True)) for pair in itertools.combinations(smaller, 2)]
        areas[code] = _AREA_OF_CASE[len(smaller), steps.count(1), steps.count(2)]
    return areas


def surface_dice(prediction: _Mask, truth: _Mask, threads: int | None = None) -> float:
    """Return the surface Dice at a tolerance of 2 voxels, in [0, 1]: 1.0 if both masks are empty, 0.0 if one is.

    It is symmetric.

    Args:
        prediction: bool (z, y, x).
        truth: bool, the same shape.
        threads: All cores by default; they change no result, since only integers are summed in parallel.

    Raises:
        ValueError: If the shapes differ or are not three-dimensional.
    """
    if prediction.shape != truth.shape or truth.ndim != 3:
        raise ValueError(f"expected masks of one shape (z, y, x), got {prediction.shape} and {truth.shape}")
    with ThreadPoolExecutor(threads or allowed_cores()) as pool:
        predicted_codes = _encode(prediction, pool)
        true_codes = _encode(truth, pool)
        matched, total = _count(predicted_codes, true_codes, pool) + _count(true_codes, predicted_codes, pool)
    areas = area_of_code()
    total_area = math.fsum(total * areas)
    return math.fsum(matched * areas) / total_area if total_area else 1.0


def far_elements(prediction: _Mask, truth: _Mask, threads: int | None = None) -> tuple[FarElements, FarElements]:
    """Return the elements beyond the tolerance: of the predicted surface and of the true one.

    The arguments are those of `surface_dice`.
    """
    with ThreadPoolExecutor(threads or allowed_cores()) as pool:
        predicted_codes, true_codes = _encode(prediction, pool), _encode(truth, pool)
    return _far_elements(predicted_codes, true_codes), _far_elements(true_codes, predicted_codes)


def _far_elements(own: _Codes, other: _Codes) -> FarElements:
    offsets = _offsets_within_tolerance(own.shape)
    flat = own.reshape(-1)
    areas = area_of_code()
    at = _far_corners(flat, other.reshape(-1), offsets)
    corners = np.stack(np.unravel_index(at, own.shape), axis=-1) - _REACH
    # The first foreground voxel of the eight that a corner sees: its place among them is its bit's, from the highest.
    bit = 7 - np.floor(np.log2(flat[at])).astype(np.int64)
    voxels = corners - 1 + np.stack([bit >> 2 & 1, bit >> 1 & 1, bit & 1], axis=-1)
    area = areas @ np.bincount(flat, minlength=256)
    others = np.stack(np.nonzero(other), axis=-1) - _REACH
    return FarElements(area=float(area), voxels=voxels, areas=areas[flat[at]], corners=corners, other_corners=others)


def _encode(mask: _Mask, pool: ThreadPoolExecutor) -> _Codes:
    """Return the code of each corner, uint8, 0 in the interior too, padded with zeros as wide as the tolerance."""
    padded = np.pad(mask, 1)
    corners = tuple(length + 1 for length in mask.shape)
    framed = np.zeros([length + 2 * _REACH for length in corners], np.uint8)
    # The frame is as wide as the tolerance, so no step from a corner leaves the flat array.
    inner = framed[tuple(slice(_REACH, _REACH + length) for length in corners)]
    list(pool.map(lambda part: _encode_slab(padded, inner, part.start, part.stop), _slabs(0, corners[0])))
    return framed


def _count(own: _Codes, other: _Codes, pool: ThreadPoolExecutor) -> _Counts:
    """Return how often each code occurs in `own`: row 0 where `other` is near, row 1 anywhere. Shape (2, 256)."""
    offsets = _offsets_within_tolerance(own.shape)
    parts = _slabs(_REACH, own.shape[0] - _REACH)
    counts = pool.map(lambda part: _count_slab(own, other.reshape(-1), offsets, part.start, part.stop), parts)
    summed: _Counts = np.sum(list(counts), axis=0)
    return summed


def _offsets_within_tolerance(shape_zyx: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Return the steps from a corner to all corners within the tolerance, in the flat array, nearest first."""
    steps = itertools.product(range(-_REACH, _REACH + 1), repeat=3)
    # Most elements have their counterpart close by: with the nearest first, few steps are tried.
    near = sorted((step for step in steps if math.hypot(*step) <= TOLERANCE_VOXELS), key=lambda step: math.hypot(*step))
    return np.array([(z * shape_zyx[1] + y) * shape_zyx[2] + x for z, y, x in near], np.int64)


def _slabs(start: int, stop: int, planes: int = 16) -> Iterator[range]:
    return (range(z, min(z + planes, stop)) for z in range(start, stop, planes))


@compiled
def _encode_slab(padded: _Mask, codes: _Codes, z_start: int, z_stop: int) -> None:
    for z in range(z_start, z_stop):
        for y in range(codes.shape[1]):
            left = 0
            for x in range(codes.shape[2] + 1):
                right = (
                    (padded[z, y, x] << 6)
                    | (padded[z, y + 1, x] << 4)
                    | (padded[z + 1, y, x] << 2)
                    | padded[z + 1, y + 1, x]
                )
                code = left << 1 | right
                if x > 0:
                    # All foreground is no surface either; one value for both makes the later tests one comparison.
                    codes[z, y, x - 1] = 0 if code == 255 else code
                # The next corner sees this one's right half as its left.
                left = right


@compiled
def _count_slab(own: _Codes, other_flat: _Codes, offsets: npt.NDArray[np.int64], z_start: int, z_stop: int) -> _Counts:
    counts = np.zeros((2, 256), np.int64)
    for z in range(z_start, z_stop):
        for y in range(own.shape[1]):
            row = (z * own.shape[1] + y) * own.shape[2]
            for x in range(own.shape[2]):
                code = own[z, y, x]
                if code == 0:
                    continue
                counts[1, code] += 1
                for offset in offsets:
                    if other_flat[row + x + offset]:
                        counts[0, code] += 1
                        break
    return counts


@compiled
def _far_corners(own_flat: _Codes, other_flat: _Codes, offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    far = [0 for _ in range(0)]
    for at in range(own_flat.size):
        if own_flat[at] == 0:
            continue
        near = False
        for offset in offsets:
            if other_flat[at + offset]:
                near = True
                break
        if not near:
            far.append(at)
    return np.array(far, np.int64)
