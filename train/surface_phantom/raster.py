"""From sheets to voxels: how much papyrus each one holds, and how far it is from the next recto face."""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from surface_kernel import machine
from surface_kernel.compiled import compiled
from surface_phantom.fields import Field
from surface_phantom.geometry import STEP, Frame, Sheets

_NEAR = 5.0  # voxels from a recto face within which its distance is measured along its own normal
_SLAB = 8  # slices that a thread takes at once


@dataclass(frozen=True, kw_only=True)
class Solid:
    """What a volume is made of, before any scan. All arrays are (z, y, x)."""

    density: Field
    """float32, 0 for air and about 1 for papyrus."""
    nearest: npt.NDArray[np.int16]
    """The sheet whose recto face is nearest."""
    depth: npt.NDArray[np.float16]
    """Signed distance to that face in voxels, positive into the sheet."""


class _Numbers(NamedTuple):
    """The numbers of a `Frame` and its `Sheets` as numba takes them; all are float."""

    centre_y: float
    centre_x: float
    heading_y: float
    heading_x: float
    lean_y: float
    lean_x: float
    half_spine: float
    ring: float
    climb: float
    along_start: float


def rasterise(*, frame: Frame, sheets: Sheets, fibres: Field, shape_zyx: tuple[int, int, int]) -> Solid:
    """Return a volume filled with sheets.

    Args:
        frame: The coordinates of the scroll.
        sheets: Where the sheets are in these coordinates.
        fibres: The texture that `fields.draw_fibres` makes.
        shape_zyx: Of the volume, in voxels.

    Returns:
        The solid, the same for any number of threads, since voxels are independent.
    """
    density = np.zeros(shape_zyx, np.float32)
    nearest = np.zeros(shape_zyx, np.int16)
    depth = np.zeros(shape_zyx, np.float16)
    numbers = _Numbers(
        centre_y=frame.centre_yx[0],
        centre_x=frame.centre_yx[1],
        heading_y=frame.heading_yx[0],
        heading_x=frame.heading_yx[1],
        lean_y=frame.lean_yx[0],
        lean_x=frame.lean_yx[1],
        half_spine=frame.half_spine,
        ring=frame.ring,
        climb=frame.climb,
        along_start=sheets.along_start,
    )
    arrays = (numbers, frame.warp, sheets.face, sheets.drawn, sheets.maps, fibres)

    def fill(start: int) -> None:
        slab = slice(start, min(start + _SLAB, shape_zyx[0]))
        # float16 is no numba type: a slab's depths are made in float32 and rounded here.
        depths = np.empty(density[slab].shape, np.float32)
        _fill(start, *arrays, density[slab], nearest[slab], depths)
        depth[slab] = depths

    starts = range(0, shape_zyx[0], _SLAB)
    with ThreadPoolExecutor(min(machine.cores(), 8)) as pool:
        list(pool.map(fill, starts))
    return Solid(density=density, nearest=nearest, depth=depth)


@compiled()
def _place(z, y, x, numbers, warp):  # type: ignore[no-untyped-def]
    """Return r, along, the straight part of along and the angle, of one point; `geometry.coordinates` and the warp."""
    dy = y - numbers.centre_y - numbers.lean_y * z
    dx = x - numbers.centre_x - numbers.lean_x * z
    half, ring = numbers.half_spine, numbers.ring
    ahead = dy * numbers.heading_y + dx * numbers.heading_x
    aside = dx * numbers.heading_y - dy * numbers.heading_x
    beyond = max(abs(ahead) - half, 0.0)
    turn = math.atan2(abs(aside), beyond)
    if ahead < -half:
        turn = math.pi - turn
    straight = min(max(half - ahead, 0.0), 2 * half)
    sign = 1.0 if aside >= 0 else -1.0
    along = sign * (straight + ring * turn)
    r = math.sqrt(beyond * beyond + aside * aside) - numbers.climb * along + _warp_at(warp, z, y, x)
    return r, along, sign * straight, sign * turn


@compiled()
def _warp_at(warp, z, y, x):  # type: ignore[no-untyped-def]
    """Return the warp at a point, interpolated linearly between its nodes."""
    z, y, x = z / STEP, y / STEP, x / STEP
    i, j, k = int(z), int(y), int(x)
    a, b, c = z - i, y - j, x - k
    near = (warp[i, j, k] * (1 - c) + warp[i, j, k + 1] * c) * (1 - b) + (
        warp[i, j + 1, k] * (1 - c) + warp[i, j + 1, k + 1] * c
    ) * b
    far = (warp[i + 1, j, k] * (1 - c) + warp[i + 1, j, k + 1] * c) * (1 - b) + (
        warp[i + 1, j + 1, k] * (1 - c) + warp[i + 1, j + 1, k + 1] * c
    ) * b
    return near * (1 - a) + far * a


@compiled()
def _node(t, z, faces):  # type: ignore[no-untyped-def]
    """Return the node below a position in the maps and the way to the next one; beyond the edge it stays there."""
    t = min(max(t, 0.0), faces.shape[1] - 1.001)
    z = min(max(z / STEP, 0.0), faces.shape[2] - 1.001)
    return int(t), int(z), t - int(t), z - int(z)


@compiled()
def _at(faces, k, node):  # type: ignore[no-untyped-def]
    """Return the face of sheet k at a node, interpolated linearly."""
    i, j, a, b = node
    return (faces[k, i, j] * (1 - b) + faces[k, i, j + 1] * b) * (1 - a) + (
        faces[k, i + 1, j] * (1 - b) + faces[k, i + 1, j + 1] * b
    ) * a


@compiled()
def _map_at(maps, k, node, m):  # type: ignore[no-untyped-def]
    """Return map m of sheet k at a node, interpolated linearly."""
    i, j, a, b = node
    return (maps[k, i, j, m] * (1 - b) + maps[k, i, j + 1, m] * b) * (1 - a) + (
        maps[k, i + 1, j, m] * (1 - b) + maps[k, i + 1, j + 1, m] * b
    ) * a


@compiled()
def _beyond(z, y, x, k, numbers, warp, drawn):  # type: ignore[no-untyped-def]
    """Return how far r lies beyond the face of sheet k as the annotators drew it."""
    r, along, _, _ = _place(z, y, x, numbers, warp)
    return r - _at(drawn, k, _node((along - numbers.along_start) / STEP, z, drawn))


@compiled()
def _depth(z, y, x, k, numbers, warp, drawn):  # type: ignore[no-untyped-def]
    """Return the signed distance to the drawn face of sheet k, voxels.

    To first order it is f / |grad f|; far off, where nobody looks, f itself.
    """
    f = _beyond(z, y, x, k, numbers, warp, drawn)
    if abs(f) > _NEAR:
        return f
    fz = _beyond(z + 1, y, x, k, numbers, warp, drawn) - f
    fy = _beyond(z, y + 1, x, k, numbers, warp, drawn) - f
    fx = _beyond(z, y, x + 1, k, numbers, warp, drawn) - f
    return f / max(math.sqrt(fz * fz + fy * fy + fx * fx), 0.3)


@compiled()
def _between(value, low, high):  # type: ignore[no-untyped-def]
    """Return the share of a voxel at `value` that lies in low..high, its edges softened over one voxel."""
    return min(max(value - low + 0.5, 0.0), 1.0) * min(max(high - value + 0.5, 0.0), 1.0)


@compiled()
def _fibre(fibres, depth, across, along):  # type: ignore[no-untyped-def]
    """Return the texture of a voxel."""
    n = fibres.shape
    return fibres[int(depth) % n[0], math.floor(across) % n[1], math.floor(along) % n[2]]


@compiled()
def _papyrus(d, z, k, way, node, maps, fibres):  # type: ignore[no-untyped-def]
    """Return the density at depth d of sheet k; `way` is the voxels along it. The maps are numbered as in MAPS."""
    verso_end, flake_end = _map_at(maps, k, node, 2), _map_at(maps, k, node, 4)
    if d > max(verso_end, flake_end) + 4.0:
        return 0.0
    recto_end, verso_at, flake_at = _map_at(maps, k, node, 0), _map_at(maps, k, node, 1), _map_at(maps, k, node, 3)
    shift = 37 * k
    around = _fibre(fibres, d + shift + 2, z + 3 * shift, way)
    upright = _fibre(fibres, d + shift + 13, way, z + 5 * shift)
    worn = _fibre(fibres, shift + 7, way, z + 5 * shift)
    # The recto is what was written on: smooth, even, a little denser. The verso's strands come loose.
    rough = 0.12 + 0.2 * min(max(d - 1.5, 0.0) / 2.0, 1.0)
    recto = _between(d, 0.2 * around, recto_end) * (1.1 + rough * around)
    verso = 0.0
    if verso_end - verso_at > 0.8:
        verso = _between(d, verso_at + 0.3 * around, verso_end + 0.5 * worn) * (0.92 + 0.3 * upright)
    flake = 0.0
    if flake_end - flake_at > 0.5:
        flake = _between(d, flake_at + 0.4 * worn, flake_end + 0.4 * worn) * (0.85 + 0.25 * upright)
    return max(max(recto, verso), flake) * _map_at(maps, k, node, 5)


@compiled()
def _fill(start, numbers, warp, face, drawn, maps, fibres, density, nearest, depth):  # type: ignore[no-untyped-def]
    """Fill one slab that begins at slice `start`."""
    sheets = face.shape[0]
    k = 0  # the last sheet whose face lies at or below r; the neighbour's is nearly always the right guess
    for i in range(density.shape[0]):
        z = float(start + i)
        for y in range(density.shape[1]):
            for x in range(density.shape[2]):
                r, along, straight, turn = _place(z, y, x, numbers, warp)
                node = _node((along - numbers.along_start) / STEP, z, face)
                while k + 1 < sheets and r >= _at(face, k + 1, node):
                    k += 1
                while k > 0 and r < _at(face, k, node):
                    k -= 1
                here = _at(face, k, node)
                d = r - here
                if d >= 0:
                    density[i, y, x] = _papyrus(d, z, k, straight + turn * here, node, maps, fibres)
                owner = k
                if k + 1 < sheets and _at(face, k + 1, node) - r < d:
                    owner = k + 1
                nearest[i, y, x] = owner
                depth[i, y, x] = _depth(z, y, x, owner, numbers, warp, drawn)
