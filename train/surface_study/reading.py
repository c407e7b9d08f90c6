"""One network's tiles, computed once and read in several ways: ours, and the reference's step by step."""

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


@dataclass(frozen=True)
class Reading:
    """Foreground as a share of all voxels. ours: one sigmoid, our windows. The others have the reference's windows.

    once, twice: after one sigmoid and after two; `_cleaned`: after its post-processing too.
    """

    ours: float
    once: float
    once_cleaned: float
    twice: float
    twice_cleaned: float


def grid(side: int, tile: int) -> Grid:
    """Give the reference's plan for a cube."""
    return Grid((side,) * 3, (tile,) * 3, OVERLAP)


def tile_logits(engine: Engine, volume: Grey, plan: Grid) -> Floats:
    """Run every tile once: float32 (z start, y start, x start, z, y, x)."""
    starts_zyx = plan.starts_zyx
    made = np.empty((*(len(starts) for starts in starts_zyx), *plan.tile_zyx), np.float32)
    for index in np.ndindex(made.shape[:3]):
        corner = (starts[place] for starts, place in zip(starts_zyx, index, strict=True))
        box = tuple(slice(start, start + size) for start, size in zip(corner, plan.tile_zyx, strict=True))
        alone = Grid(plan.tile_zyx, plan.tile_zyx, 0.0)
        ((_, logits),) = slabs(engine.members, volume[box], grid=alone, device=engine.device)
        made[index] = logits
    return made


def read(tiles: Floats, plan: Grid) -> Reading:
    """Read the logits of a plan's tiles in every way."""
    once = _stitched(probability.probabilities(tiles), plan)
    twice = _stitched(reference.twice(tiles), plan)
    return Reading(
        ours=float(probability.above(ours(tiles, plan), reference.THRESHOLD).mean()),
        once=float(once.mean()),
        once_cleaned=float(reference.clean(once).mean()),
        twice=float(twice.mean()),
        twice_cleaned=float(reference.clean(twice).mean()),
    )


def ours(tiles: Floats, plan: Grid) -> Floats:
    """Blend the tiles' logits as the kernel does: float32 (z, y, x)."""
    whole = np.empty(plan.shape_zyx, np.float32)
    Slab.whole(plan, TileTable.of(plan, tiles)).blend(sums=whole)
    return whole


def _stitched(probability: Floats, plan: Grid) -> npt.NDArray[np.bool_]:
    blended = reference.stitch(probability, plan.starts_zyx, plan.shape_zyx)
    mask: npt.NDArray[np.bool_] = blended > reference.THRESHOLD
    return mask
