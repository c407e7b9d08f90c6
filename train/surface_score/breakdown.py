"""The score breakdown as a page of text, and as JSON for machines."""

import math
from collections.abc import Iterable, Mapping

from surface_score.betti import Box
from surface_score.explain import STEPS, Explanation, Hole, OctantLoss, SurfaceLoss, remedies
from surface_score.leaderboard import CaseScore
from surface_score.sheets import Mismatch, UnmatchedSheet, Voxel

DIMENSIONS = ("components", "tunnels", "cavities")
_SHOWN = 5
_LISTED = 50


def as_text(id_: str, explanation: Explanation) -> str:
    """Return the score breakdown of a case as a page of text, the largest loss first in each part."""
    score, sheets = explanation.score, explanation.sheets
    shape = " × ".join(map(str, explanation.shape_zyx))
    lines = [
        f"case {id_}: score {score.score:.4f}, {1 - score.score:.4f} points lost: {_lost(score)}",
        f"would have helped, at most: {_helpful(score)}",
        f"volume {shape}; all coordinates are voxels (z, y, x), counted from 0",
        "",
        f"Topology: {score.lost['topo']:.4f} points lost. matched / predicted / true features:",
        *(f"  {name:<10}  {' / '.join(map(str, counts))}" for name, counts in _betti(score).items()),
        "  octants with the largest loss (points gained if all features of this octant matched):",
        *_or_none(
            f"    {loss.points:+.4f}  {_box(loss.box)}  "
            + ", ".join(
                f"{name} {matching.matched}/{matching.predicted}/{matching.true}"
                for name, matching in zip(DIMENSIONS, loss.matchings, strict=True)
            )
            for loss in explanation.octants[:_SHOWN]
        ),
        *_holes(explanation.false_holes, octants=explanation.octants, kind="predicted", other="true"),
        *_holes(explanation.lost_holes, octants=explanation.octants, kind="true", other="predicted"),
        "",
        f"VOI: {score.lost['VOI']:.4f} points lost, split {score.voi_split:.3f} bits, merge {score.voi_merge:.3f} bits",
        f"  true sheets: {sheets.true_sheets}, predicted components: {sheets.predicted_components}",
        f"  false foreground accounts for {sheets.false_bits:.3f} bits of the split, missed voxels for "
        f"{sheets.missed_bits:.3f} bits of the merge",
        "  predicted components that merge true sheets:",
        *_or_none(
            line
            for merge in sheets.merges[:_SHOWN]
            for line in _mismatch(merge, kind="component", part_kind="sheet", stray="false")
        ),
        "  true sheets that are split into predicted components:",
        *_or_none(
            line
            for split in sheets.splits[:_SHOWN]
            for line in _mismatch(split, kind="sheet", part_kind="component", stray="missed")
        ),
        *_unmatched("true sheets without a predicted voxel", sheets.missed),
        *_unmatched("predicted components without a true voxel", sheets.spurious),
        "",
        f"Surface Dice: {score.lost['surface dice']:.4f} points lost. Farther than 2 voxels from the other surface:",
        *_surface("predicted", explanation.predicted_surface),
        *_surface("true", explanation.true_surface),
        "  boxes of 32³ with the largest loss (points):",
        *_or_none(
            f"    {region.points:.4f}  {_box(region.box)}, see {_at(region.at)}"
            for region in explanation.regions[:_SHOWN]
        ),
    ]
    return "\n".join(lines) + "\n"


def as_dict(explanation: Explanation) -> dict[str, object]:
    """Return the score breakdown as in its JSON file; the longest lists are cut after 50 entries."""
    sheets = explanation.sheets
    return {
        "shape_zyx": list(explanation.shape_zyx),
        "score": explanation.score.as_dict(),
        "lost": explanation.score.lost,
        "would_have_helped": remedies(explanation.score),
        "octants": [
            {"points": loss.points, "box": _box_dict(loss.box)}
            | {
                name: [matching.matched, matching.predicted, matching.true]
                for name, matching in zip(DIMENSIONS, loss.matchings, strict=True)
            }
            for loss in explanation.octants
        ],
        "true_sheets": sheets.true_sheets,
        "predicted_components": sheets.predicted_components,
        "false_bits": sheets.false_bits,
        "missed_bits": sheets.missed_bits,
        "merges": [_mismatch_dict(merge) for merge in sheets.merges],
        "splits": [_mismatch_dict(split) for split in sheets.splits],
        "missed_sheets": [_unmatched_dict(sheet) for sheet in sheets.missed[:_LISTED]],
        "invented_components": [_unmatched_dict(component) for component in sheets.spurious[:_LISTED]],
        "predicted_surface": _surface_dict(explanation.predicted_surface),
        "true_surface": _surface_dict(explanation.true_surface),
        "regions": [
            {"points": region.points, "box": _box_dict(region.box), "at": list(region.at)}
            for region in explanation.regions
        ],
        "false_holes": [_hole_dict(hole) for hole in explanation.false_holes[:_LISTED]],
        "lost_holes": [_hole_dict(hole) for hole in explanation.lost_holes[:_LISTED]],
    }


def worst_first(scores: Mapping[str, CaseScore]) -> str:
    """Return one line per case, the lowest score first, with the points that each part lost."""
    ranked = sorted(scores.items(), key=lambda item: item[1].score)
    width = max(map(len, scores))
    return "".join(
        f"{id_.ljust(width)}  {score.score:.4f}  lost: {_lost(score)}; would have helped: {_helpful(score)}\n"
        for id_, score in ranked
    )


def _helpful(score: CaseScore) -> str:
    """Return what would have gained points, and the steps of post-processing that aim at it."""
    gains = [f"{name} {points:+.4f} ({STEPS[name]})" for name, points in remedies(score).items() if points > 0]
    return ", ".join(gains) or "no step of post-processing"


def _lost(score: CaseScore) -> str:
    ranked = sorted(score.lost.items(), key=lambda item: item[1], reverse=True)
    return ", ".join(f"{name} {points:.4f}" for name, points in ranked)


def _betti(score: CaseScore) -> dict[str, list[int]]:
    return dict(zip(DIMENSIONS, (score.betti or {}).values(), strict=False))


def _or_none(lines: Iterable[str]) -> list[str]:
    return list(lines) or ["    none"]


def _mismatch(mismatch: Mismatch, *, kind: str, part_kind: str, stray: str) -> list[str]:
    parts = [f"{part.number} ({part.shared_voxels} of its {part.voxels})" for part in mismatch.parts]
    more = f" and {len(parts) - _SHOWN} more" if len(parts) > _SHOWN else ""
    lines = [
        f"    {kind} {mismatch.number}, {mismatch.voxels} voxels, {mismatch.stray_voxels} of them {stray}, "
        f"{mismatch.bits:.3f} bits: {part_kind}s {', '.join(parts[:_SHOWN])}{more}"
    ]
    for contact in mismatch.contacts[:_SHOWN]:
        first, second = contact.numbers
        lines.append(f"      {first} and {second} meet over {contact.voxels} voxels, see {_at(contact.at)}")
    return lines


def _unmatched(title: str, sheets: tuple[UnmatchedSheet, ...]) -> list[str]:
    voxels = sum(sheet.voxels for sheet in sheets)
    lines = [f"  {title}: {len(sheets)}" + (f", {voxels} voxels" if sheets else "")]
    return lines + [f"    {sheet.number}, {sheet.voxels} voxels, see {_at(sheet.at)}" for sheet in sheets[:_SHOWN]]


def _holes(holes: tuple[Hole, ...], *, octants: tuple[OctantLoss, ...], kind: str, other: str) -> list[str]:
    matchings = [matching for loss in octants for matching in loss.matchings[1:]]
    unmatched = sum(getattr(matching, kind) - matching.matched for matching in matchings)
    lines = [f"  unmatched {kind} tunnels and cavities: {unmatched}" + ("; candidates:" if holes else "")]
    for hole in holes[:_SHOWN]:
        lines.append(f"    {hole.kind} at {_at(hole.at)}, {hole.voxels} {other} voxels within 4 could fill it")
    return lines


def _surface(kind: str, loss: SurfaceLoss) -> list[str]:
    if loss.worst_at is None:
        return [f"  {kind} surface: {0:.2%} of its area"]
    far = "the other is empty" if math.isinf(loss.worst_distance) else f"up to {loss.worst_distance:.1f} voxels away"
    return [f"  {kind} surface: {loss.beyond_share:.2%} of its area, {far}, see {_at(loss.worst_at)}"]


def _at(voxel: Voxel) -> str:
    return f"({', '.join(map(str, voxel))})"


def _box(box: Box) -> str:
    return "[" + ", ".join(f"{side.start}:{side.stop}" for side in box) + "]"


def _box_dict(box: Box) -> dict[str, list[int]]:
    return {"start": [int(side.start) for side in box], "stop": [int(side.stop) for side in box]}


def _mismatch_dict(mismatch: Mismatch) -> dict[str, object]:
    return {
        "number": mismatch.number,
        "voxels": mismatch.voxels,
        "stray_voxels": mismatch.stray_voxels,
        "bits": mismatch.bits,
        "parts": [
            {"number": part.number, "voxels": part.voxels, "shared_voxels": part.shared_voxels}
            for part in mismatch.parts[:_LISTED]
        ],
        "contacts": [
            {"numbers": list(contact.numbers), "voxels": contact.voxels, "at": list(contact.at)}
            for contact in mismatch.contacts[:_LISTED]
        ],
    }


def _unmatched_dict(sheet: UnmatchedSheet) -> dict[str, object]:
    return {"number": sheet.number, "voxels": sheet.voxels, "at": list(sheet.at)}


def _hole_dict(hole: Hole) -> dict[str, object]:
    return {"kind": hole.kind, "voxels": hole.voxels, "at": list(hole.at)}


def _surface_dict(loss: SurfaceLoss) -> dict[str, object]:
    distance = None if math.isinf(loss.worst_distance) else loss.worst_distance
    at = None if loss.worst_at is None else list(loss.worst_at)
    return {"beyond_share": loss.beyond_share, "worst_distance_voxels": distance, "worst_at": at}
