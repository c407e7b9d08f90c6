"""Where the papyrus is: windings around an axis, and how each of them varies along its length.

A scroll is wound around a *spine*, a line segment in the (y, x) plane that leans with z; around a long one the
windings are flat and fold over at its end, around a point they are circles.

    across                    r       distance from the spine, voxels
       |   ______________     along   way around the spine, voxels at the radius `ring`, 0 at the fold's tip
       |  /  __________   \\
       | /  /          \\  |   sheet k lies where r - (spiral) + warp = face[k](along, z):
       | |  |===spine==|  |   its recto face, toward the spine; depth counts from there outward
       | \\  \\__________/  |
       |  \\______________/

Every sheet has two layers of crossed fibres: the recto's run around the scroll, the verso's along it.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from scipy.ndimage import gaussian_filter

from surface_phantom.fields import Field, smooth
from surface_phantom.looks import Look

STEP = 4  # voxels between the nodes of the maps and of the warp
MAPS = ("recto_end", "verso_at", "verso_end", "flake_at", "flake_end", "tone")
_THINNEST = 6.0  # voxels: two faces of 3-4 voxels never meet, even where sheets touch


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The coordinates of a scroll: its spine, its spiral and its warp. Lengths are in voxels."""

    centre_yx: tuple[float, float]
    """The middle of the spine in slice 0."""
    heading_yx: tuple[float, float]
    """Unit vector along the spine, toward the fold that the volume may hold."""
    half_spine: float
    """Half the spine's length; 0 for circular windings."""
    lean_yx: tuple[float, float]
    """How far the spine moves in y and x per slice."""
    ring: float
    """The radius at which `along` counts voxels."""
    climb: float
    """How far the spiral rises per voxel along."""
    warp: Field
    """Added to r, at nodes STEP voxels apart, (z, y, x)."""

    def __post_init__(self) -> None:
        length = math.hypot(*self.heading_yx)
        if not math.isclose(length, 1.0, abs_tol=1e-6):
            raise ValueError(f"heading_yx: expected a unit vector, got one of length {length:.3f}")
        if self.ring <= 0 or self.half_spine < 0:
            raise ValueError(f"expected ring > 0 and half_spine >= 0, got {self.ring} and {self.half_spine}")


@dataclass(frozen=True, kw_only=True)
class Sheets:
    """The sheets of one volume, on a grid of (sheet, along, z), STEP voxels apart in the last two."""

    face: Field
    """The r of each recto face, rising from sheet to sheet."""
    drawn: Field
    """The r at which the annotators drew it."""
    maps: Field
    """Depths where layers begin and end, and the tone of the papyrus: (sheet, along, z, len(MAPS))."""
    along_start: float
    """The `along` of the first node."""

    def __post_init__(self) -> None:
        grid = self.face.shape
        if self.maps.shape != (*grid, len(MAPS)) or self.drawn.shape != grid:
            raise ValueError(
                f"expected drawn faces and {len(MAPS)} maps on the grid {grid} of the faces, got drawn faces of "
                f"{self.drawn.shape} and maps of {self.maps.shape}"
            )
        if len(self.face) > 1 and float(np.diff(self.face, axis=0).min()) <= 0:
            raise ValueError("face: expected recto faces that rise from sheet to sheet, got some that cross")


def draw_frame(rng: np.random.Generator, shape_zyx: tuple[int, int, int], look: Look) -> Frame:
    """Draw where in its scroll the volume lies: mostly off the axis, one in seven at a fold."""
    size = float(max(shape_zyx[1:]))
    angle = float(rng.uniform(0, 2 * math.pi))
    heading = (math.sin(angle), math.cos(angle))
    folded = bool(rng.random() < 0.15)
    middle = [n / 2 for n in shape_zyx[1:]]
    half_spine = 2 * size if folded else 0.0
    # At a fold the spine's tip is at the volume's rim; elsewhere the whole spine is far off.
    away = float(rng.uniform(0.15, 0.45)) * size if folded else size * float(0.8 + rng.exponential(1.8))
    centre = [m - h * (away + half_spine) for m, h in zip(middle, heading, strict=True)]
    lean = rng.normal(0, 0.12, 2)
    ring = away
    return Frame(
        centre_yx=(centre[0] - lean[0] * shape_zyx[0] / 2, centre[1] - lean[1] * shape_zyx[0] / 2),
        heading_yx=heading,
        half_spine=half_spine,
        lean_yx=(float(lean[0]), float(lean[1])),
        ring=ring,
        climb=look.pitch / (2 * math.pi * ring + 4 * half_spine) * float(rng.choice([-1, 1])),
        warp=draw_warp(rng, shape_zyx),
    )


def draw_warp(rng: np.random.Generator, shape_zyx: tuple[int, int, int]) -> Field:
    """Draw how far the scroll is deformed, in voxels: long waves, and a little crumple."""
    nodes = tuple(n // STEP + 2 for n in shape_zyx)
    waves = 8.0 * smooth(rng, nodes, (14.0, 10.0, 10.0))
    crumple = 1.1 * smooth(rng, nodes, (4.0, 2.6, 2.6))
    return waves + crumple


def draw_sheets(rng: np.random.Generator, *, frame: Frame, shape_zyx: tuple[int, int, int], look: Look) -> Sheets:
    """Draw every sheet that may appear in the volume: where it runs, splits, frays and ends.

    Args:
        rng: The source of all variation.
        frame: The coordinates of the scroll.
        shape_zyx: Of the volume, in voxels.
        look: Pitch, thickness, splits and flakes.
    """
    (r_low, r_high), (along_low, along_high) = _extent(shape_zyx, frame)
    first = max(r_low - 2 * look.pitch, 0.6 * look.pitch)
    count = max(2, math.ceil((r_high - first) / look.pitch) + 2)
    grid = (count, math.ceil((along_high - along_low) / STEP) + 3, shape_zyx[0] // STEP + 2)
    maps = draw_layers(rng, grid, look)
    free = first + look.pitch * np.arange(count, dtype=np.float32)[:, None, None]
    free = free + look.pitch_std * look.pitch * _map(rng, grid, 110, across=0.7)
    free = free + 0.08 * look.pitch * _map(rng, grid, 28, across=0.5) + 0.5 * _map(rng, grid, 10)
    face = stack(free.astype(np.float32), np.maximum(maps[..., MAPS.index("verso_end")], _THINNEST))
    drawn = face + np.float32(look.bias) + np.float32(0.45) * _map(rng, grid, 24, across=0.7)
    return Sheets(face=face, drawn=drawn, maps=maps, along_start=along_low - STEP)


def draw_layers(rng: np.random.Generator, grid: tuple[int, int, int], look: Look) -> Field:
    """Draw the maps of `Sheets`: two layers that part, wear off and shed flakes; float32 (*grid, len(MAPS))."""
    thickness = np.clip(look.thickness * np.exp(0.2 * _map(rng, grid, 26)), _THINNEST, 2.2 * look.thickness)
    share = np.clip(0.5 + 0.07 * _map(rng, grid, 30), 0.3, 0.7)  # of the recto
    gap = look.split * np.maximum(_map(rng, grid, 32) - 0.4, 0) * 1.5
    # Clipped steep ramps of smooth noise: patches with soft rims, their share set by the offset.
    kept = np.clip(3.0 * (_map(rng, grid, 15) + 2.0), 0, 1)  # of the recto: there are few holes in it
    left = np.clip(3.0 * (_map(rng, grid, 18) + 1.2), 0, 1)  # of the verso: it wears off first
    flaked = np.clip(3.0 * (_map(rng, grid, 22) - NormalDist().inv_cdf(1 - look.flakes)), 0, 1)
    verso_at = share * thickness + gap
    verso_end = verso_at + (1 - share) * thickness * left + 0.8 * left * _map(rng, grid, 9)
    flake_at = verso_end + 1.5 + 3.0 * np.abs(_map(rng, grid, 20))
    layers = {
        "recto_end": share * thickness * kept,
        "verso_at": verso_at,
        "verso_end": verso_end,
        "flake_at": flake_at,
        "flake_end": flake_at + 2.8 * flaked,
        "tone": 1.0 + 0.07 * _map(rng, grid, 30),
    }
    return np.stack([layers[name] for name in MAPS], axis=-1).astype(np.float32)


def stack(free: Field, thickness: Field) -> Field:
    """Return the faces after pushing sheets outward until none lies in another.

    Where sheets are pushed they touch; where there is room they keep their place to a fraction of a voxel.

    Args:
        free: r of the recto faces as drawn, each on its own, float32 (sheet, along, z).
        thickness: Of the sheets, in voxels, the same shape.
    """
    face = free.copy()
    for k in range(1, len(face)):
        # softplus(room) is room where there is much and 0 where there is none, smoothly: no crease where sheets meet.
        room = face[k] - face[k - 1] - thickness[k - 1]
        face[k] = face[k - 1] + thickness[k - 1] + np.logaddexp(0.0, room).astype(np.float32)
    gaussian_filter(face, (0.0, 1.2, 1.2), output=face, mode="nearest")
    return face


def _extent(shape_zyx: tuple[int, int, int], frame: Frame) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the range of r and of along in the volume, at nodes STEP voxels apart."""
    z, y, x = np.meshgrid(*(np.arange(0, n + STEP, STEP, dtype=np.float32) for n in shape_zyx), indexing="ij")
    r, along = coordinates(frame, (z, y, x))
    slack = float(np.abs(frame.warp).max())
    return (float(r.min()) - slack, float(r.max()) + slack), (float(along.min()), float(along.max()))


def coordinates(frame: Frame, points_zyx: tuple[Field, Field, Field]) -> tuple[Field, Field]:
    """Return r without the warp, and along, of points.

    `raster._place` has the same formulas for one voxel.

    Args:
        frame: The coordinates of the scroll.
        points_zyx: The z, y and x of the points in voxels, float32 of one shape.

    Returns:
        r and along in voxels, float32 of that shape.
    """
    z, y, x = points_zyx
    dy = y - frame.centre_yx[0] - frame.lean_yx[0] * z
    dx = x - frame.centre_yx[1] - frame.lean_yx[1] * z
    ahead = dy * frame.heading_yx[0] + dx * frame.heading_yx[1]
    aside = dx * frame.heading_yx[0] - dy * frame.heading_yx[1]
    beyond = np.maximum(np.abs(ahead) - frame.half_spine, 0.0)
    r = np.hypot(beyond, aside)
    turn = np.arctan2(np.abs(aside), beyond)
    back = ahead < -frame.half_spine
    # Along the flat stretch of the winding; what is beyond either end of the spine is on a half circle.
    straight = np.clip(frame.half_spine - ahead, 0.0, 2 * frame.half_spine)
    along = np.copysign(straight + frame.ring * np.where(back, math.pi - turn, turn), aside)
    return (r - frame.climb * along).astype(np.float32), along.astype(np.float32)


def _map(rng: np.random.Generator, grid: tuple[int, int, int], length: float, *, across: float = 0.0) -> Field:
    """Draw a map of standard deviation 1 that changes over `length` voxels in the sheet and `across` sheets."""
    return smooth(rng, grid, (across, length / STEP / 1.4, length / STEP))
