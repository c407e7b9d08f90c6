"""One network's logits, computed once per tile and read in several ways: ours, and the reference's step by step."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from surface_kernel import probability
from surface_kernel.inference.engine import Engine
from surface_kernel.inference.predict import slabs
from surface_kernel.inference.slab import Slab
from surface_kernel.inference.tile_table import TileTable
from surface_kernel.inference.tiles import Grid
from surface_study import reference

Floats = npt.NDArray[np.float32]
Grey = npt.NDArray[np.uint8]

OVERLAP = 0.25  # 128 voxels on 320: starts 0, 96 and 192, the reference's


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Foreground of one network's prediction, as a share of all voxels."""

    ours: float
    """One sigmoid, the kernel's windows."""
    once: float
    """One sigmoid, the reference's weights."""
    once_cleaned: float
    """The same, after the reference's post-processing."""
    twice: float
    """Two sigmoids, the reference's weights."""
    twice_cleaned: float
    """The same, after the reference's post-processing."""


def reference_grid(side: int, tile: int) -> Grid:
    """Return the reference's tiles of a cube."""
    return Grid((side,) * 3, (tile,) * 3, OVERLAP)


def tile_logits(engine: Engine, volume: Grey, grid: Grid) -> Floats:
    """Return the logits of every tile, computed once: float32 (z start, y start, x start, z, y, x)."""
    starts_zyx = grid.starts_zyx
    made = np.empty((*(len(starts) for starts in starts_zyx), *grid.tile_zyx), np.float32)
    for index in np.ndindex(made.shape[:3]):
        corner = (starts[place] for starts, place in zip(starts_zyx, index, strict=True))
        box = tuple(slice(start, start + size) for start, size in zip(corner, grid.tile_zyx, strict=True))
        alone = Grid(grid.tile_zyx, grid.tile_zyx, 0.0)
        ((_, logits),) = slabs(engine.members, volume[box], grid=alone, device=engine.device)
        made[index] = logits
    return made


def read(tiles: Floats, grid: Grid) -> Reading:
    """Return the foreground that each way of reading makes of the tiles' logits."""
    once = _stitched(probability.probabilities(tiles), grid)
    twice = _stitched(reference.double_sigmoid(tiles), grid)
    return Reading(
        ours=float(probability.above(ours(tiles, grid), reference.THRESHOLD).mean()),
        once=float(once.mean()),
        once_cleaned=float(reference.clean(once).mean()),
        twice=float(twice.mean()),
        twice_cleaned=float(reference.clean(twice).mean()),
    )


def ours(tiles: Floats, grid: Grid) -> Floats:
    """Return the tiles' logits blended as the kernel does: float32 (z, y, x)."""
    whole = np.empty(grid.shape_zyx, np.float32)
    Slab.whole(grid, TileTable.of(grid, tiles)).blend(sums=whole)
    return whole


def _stitched(probability: Floats, grid: Grid) -> npt.NDArray[np.bool_]:
    blended = reference.stitch(probability, grid.starts_zyx, grid.shape_zyx)
    mask: npt.NDArray[np.bool_] = blended > reference.THRESHOLD
    return mask
