"""The score of one case broken down: octants, sheets, surfaces and holes, each with a voxel to look at."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from surface_score.betti import Box, Matching, Matchings, Octant, topo_score, total
from surface_score.features import Mask, find_cavities
from surface_score.leaderboard import SURFACE_DICE_WEIGHT, TOPO_WEIGHT, VOI_WEIGHT, CaseScore, Masks
from surface_score.sheets import SheetComparison, Voxel, compare_sheets
from surface_score.surface_dice import FarElements, far_elements
from surface_score.tunnels import tunnel_voxels
from surface_score.voi import VariationOfInformation

REGION_VOXELS = 32
_LISTED = 20
_NEAR_VOXELS = 4

HOLES, SMALL_COMPONENTS, MERGES = "no holes", "no false components", "no merges"
STEPS = {HOLES: "slit", SMALL_COMPONENTS: "drop_small_components", MERGES: "a higher threshold, or open"}
"""The steps of post-processing that aim at each."""


@dataclass(frozen=True)
class OctantLoss:
    """An octant in which not all features match."""

    box: Box
    matchings: Matchings
    points: float
    """What the case would gain if all features in this octant matched.

    It may be negative: a dimension that then has no features drops out of the mean.
    """


@dataclass(frozen=True)
class SurfaceLoss:
    """How much of one surface is beyond the tolerance, and where most."""

    beyond_share: float
    """Of the surface's area."""
    worst_distance: float
    """In voxels: 0 where all is within the tolerance, infinite where the other surface does not exist."""
    worst_at: Voxel | None
    """The farthest voxel; None where all is within the tolerance."""


@dataclass(frozen=True)
class Region:
    """A box of 32³ voxels in which surface is beyond the tolerance."""

    box: Box
    points: float
    """What these surface elements cost."""
    at: Voxel
    """The most central of their voxels."""


@dataclass(frozen=True)
class Hole:
    """A tunnel or a cavity of one of the masks."""

    kind: str
    """"tunnel" or "cavity"."""
    voxels: int
    """How many voxels within 4 of `at`, along each axis, the other mask has and this one lacks: what could fill it.

    0 where nothing could, as in a handle that is itself false.
    """
    at: Voxel
    """A voxel on the tunnel's rim, or in the cavity."""


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """The score of one case broken down; every list has the worst first.

    Betti matching counts the holes that match but does not always identify them, so the lists of holes are candidates:
    all those of the octants in which not all of their kind match, first those that the other mask could fill.
    """

    score: CaseScore
    shape_zyx: tuple[int, ...]
    octants: tuple[OctantLoss, ...]
    sheets: SheetComparison
    predicted_surface: SurfaceLoss
    true_surface: SurfaceLoss
    regions: tuple[Region, ...]
    false_holes: tuple[Hole, ...]
    """In the prediction."""
    lost_holes: tuple[Hole, ...]
    """In the truth."""


def explain(masks: Masks, score: CaseScore, threads: int | None = None) -> Explanation:
    """Return the score of a case broken down.

    Args:
        masks: What was compared.
        score: What `score_masks` returned for them.
        threads: All cores by default; they change no result.
    """
    predicted_far, true_far = far_elements(masks.predicted, masks.truth, threads)
    return Explanation(
        score=score,
        shape_zyx=masks.truth.shape,
        octants=octant_losses(score.octants),
        sheets=compare_sheets(masks.predicted, masks.truth),
        predicted_surface=_surface_loss(predicted_far, threads),
        true_surface=_surface_loss(true_far, threads),
        regions=_regions((predicted_far, true_far), masks.truth.shape),
        false_holes=_holes(masks.predicted, masks.truth, octants=score.octants, threads=threads),
        lost_holes=_holes(masks.truth, masks.predicted, octants=score.octants, threads=threads),
    )


def octant_losses(octants: tuple[Octant, ...]) -> tuple[OctantLoss, ...]:
    """Return the octants in which not all features match, those that cost most first."""
    score = topo_score(total(octants))
    losses = []
    for octant in octants:
        # The score is a ratio of sums over all octants, so what one octant costs depends on the others.
        others = [other for other in octants if other is not octant]
        components, tunnels, cavities = octant.matchings
        corrected = Octant(octant.box, (components.corrected, tunnels.corrected, cavities.corrected))
        points = TOPO_WEIGHT * (topo_score(total([*others, corrected])) - score)
        losses.append(OctantLoss(octant.box, octant.matchings, points))
    missed = [loss for loss in losses if any(m.matched < max(m.predicted, m.true) for m in loss.matchings)]
    return tuple(sorted(missed, key=lambda loss: loss.points, reverse=True))


def remedies(score: CaseScore) -> dict[str, float]:
    """Return the points that a case would gain, the most first; what would cost points is negative.

    Bounds, not forecasts: a step that removes faults removes something else too. Without tunnels and cavities those
    that match are lost as well. Components that match none of the truth's are false, whatever their size.

    Args:
        score: of a case, with its octants; for a mean over cases nothing is returned.
    """
    if not score.octants:
        return {}
    components, tunnels, cavities = total(score.octants)
    whole = topo_score((components, tunnels, cavities))
    holeless = components, Matching(0, 0, tunnels.true), Matching(0, 0, cavities.true)
    matched = Matching(components.matched, components.matched, components.true)
    kept_apart = VariationOfInformation(split_bits=score.voi_split, merge_bits=0.0)
    points = {
        HOLES: TOPO_WEIGHT * (topo_score(holeless) - whole),
        SMALL_COMPONENTS: TOPO_WEIGHT * (topo_score((matched, tunnels, cavities)) - whole),
        MERGES: VOI_WEIGHT * (kept_apart.score - score.voi_score),
    }
    return dict(sorted(points.items(), key=lambda entry: -entry[1]))


def _surface_loss(far: FarElements, threads: int | None) -> SurfaceLoss:
    if not len(far.areas):
        return SurfaceLoss(0.0, 0.0, None)
    share = min(float(far.areas.sum()) / far.area, 1.0)
    if not len(far.other_corners):
        return SurfaceLoss(share, float("inf"), _voxel(far.voxels[0]))
    # An unbalanced tree is built in a fraction of the time, and is asked only once.
    distances = cKDTree(far.other_corners, balanced_tree=False, compact_nodes=False).query(
        far.corners, workers=threads or -1
    )[0]
    worst = int(distances.argmax())
    return SurfaceLoss(share, float(distances[worst]), _voxel(far.voxels[worst]))


def _regions(surfaces: tuple[FarElements, FarElements], shape_zyx: tuple[int, ...]) -> tuple[Region, ...]:
    area = sum(far.area for far in surfaces)
    voxels = np.concatenate([far.voxels for far in surfaces])
    areas = np.concatenate([far.areas for far in surfaces])
    cells, cell = np.unique(voxels // REGION_VOXELS, axis=0, return_inverse=True)
    lost = np.bincount(cell.ravel(), areas, minlength=len(cells))
    regions = []
    for worst in np.argsort(-lost, kind="stable")[:_LISTED]:
        inside = voxels[cell.ravel() == worst]
        # A voxel of the region itself: the mean of a curved surface may lie beside it.
        middle = inside[np.abs(inside - inside.mean(axis=0)).sum(axis=1).argmin()]
        starts = [int(start) * REGION_VOXELS for start in cells[worst]]
        z, y, x = (
            slice(start, min(start + REGION_VOXELS, length)) for start, length in zip(starts, shape_zyx, strict=True)
        )
        regions.append(Region((z, y, x), SURFACE_DICE_WEIGHT * float(lost[worst]) / area, _voxel(middle)))
    return tuple(regions)


def _holes(mask: Mask, other: Mask, *, octants: tuple[Octant, ...], threads: int | None) -> tuple[Hole, ...]:
    """Return the holes of a mask in the octants where not all match, those that the other mask fills most first."""
    with ThreadPoolExecutor(threads) as pool:
        by_octant = pool.map(lambda octant: _holes_in(mask, other, octant), octants)
        holes = [hole for in_octant in by_octant for hole in in_octant]
    return tuple(sorted(holes, key=lambda hole: hole.voxels, reverse=True))


def _holes_in(mask: Mask, other: Mask, octant: Octant) -> list[Hole]:
    corner = np.array([side.start for side in octant.box])
    inside = np.ascontiguousarray(mask[octant.box])
    _, tunnels, cavities = octant.matchings
    holes = []
    if tunnels.matched < max(tunnels.predicted, tunnels.true):
        holes += [("tunnel", place + corner) for place in tunnel_voxels(inside)]
    if cavities.matched < max(cavities.predicted, cavities.true):
        background = find_cavities(inside)
        numbers, first = np.unique(background.label, return_index=True)
        places = np.stack(np.unravel_index(first, inside.shape), axis=-1)
        holes += [
            ("cavity", place + corner)
            for number, place in zip(numbers, places, strict=True)
            if background.enclosed[number]
        ]
    described = []
    for kind, place in holes:
        around = tuple(slice(max(at - _NEAR_VOXELS, 0), at + _NEAR_VOXELS + 1) for at in place)
        described.append(Hole(kind, int(np.count_nonzero(other[around] & ~mask[around])), _voxel(place)))
    return described


def _voxel(place: npt.NDArray[np.int64]) -> Voxel:
    return int(place[0]), int(place[1]), int(place[2])
