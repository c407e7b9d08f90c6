"""An explanation in words, and as JSON for machines."""

import math
from collections.abc import Iterable, Mapping

from surface_score.betti import Box
from surface_score.explain import Explanation, Hole, SurfaceLoss
from surface_score.leaderboard import CaseScore
from surface_score.sheets import Lone, Voxel, Whole

DIMENSIONS = ("components", "tunnels", "cavities")
_SHOWN = 5
_LISTED = 50


def as_text(id_: str, explanation: Explanation) -> str:
    """Return a page that says where the points went, the largest loss first in each part."""
    score, sheets = explanation.score, explanation.sheets
    shape = " × ".join(map(str, explanation.shape_zyx))
    lines = [
        f"case {id_}: score {score.score:.4f}, {1 - score.score:.4f} lost to {_lost(score)}",
        f"volume {shape}; all coordinates are voxels (z, y, x), counted from 0",
        "",
        f"Topology, {score.lost['topo']:.4f} points lost. matched / predicted / true features:",
        *(f"  {name:<10}  {' / '.join(map(str, counts))}" for name, counts in _betti(score).items()),
        "  octants that lost most (points that mending it alone would bring):",
        *_or_none(
            f"    {loss.points:+.4f}  {_box(loss.box)}  "
            + ", ".join(
                f"{name} {matching.matched}/{matching.predicted}/{matching.true}"
                for name, matching in zip(DIMENSIONS, loss.matchings, strict=True)
            )
            for loss in explanation.octants[:_SHOWN]
        ),
        *_holes(explanation, explanation.false_holes, "predicted", "true"),
        *_holes(explanation, explanation.lost_holes, "true", "predicted"),
        "",
        f"Sheets, {score.lost['VOI']:.4f} points lost ({score.voi_split:.3f} bits of split, {score.voi_merge:.3f} of "
        f"merge): {sheets.true_sheets} true, {sheets.predicted_components} predicted",
        f"  of the split, {sheets.false_bits:.3f} bits are false foreground; of the merge, {sheets.missed_bits:.3f} "
        "are missed voxels",
        "  predicted components that merge true sheets:",
        *_or_none(line for whole in sheets.merges[:_SHOWN] for line in _whole(whole, "component", "sheet", "false")),
        "  true sheets that are split into predicted components:",
        *_or_none(line for whole in sheets.splits[:_SHOWN] for line in _whole(whole, "sheet", "component", "missed")),
        *_lone("true sheets without a predicted voxel", sheets.missed),
        *_lone("predicted components without a true voxel", sheets.invented),
        "",
        f"Surface Dice, {score.lost['surface dice']:.4f} points lost. Farther than 2 voxels from the other surface:",
        *_surface("predicted", explanation.predicted_surface),
        *_surface("true", explanation.true_surface),
        "  boxes of 32³ that lost most (points):",
        *_or_none(
            f"    {region.points:.4f}  {_box(region.box)}, see {_at(region.at)}"
            for region in explanation.regions[:_SHOWN]
        ),
    ]
    return "\n".join(lines) + "\n"


def as_dict(explanation: Explanation) -> dict[str, object]:
    """Return the explanation as it stands in its JSON file; of the longest lists, the first 50."""
    sheets = explanation.sheets
    return {
        "shape_zyx": list(explanation.shape_zyx),
        "score": explanation.score.as_dict(),
        "lost": explanation.score.lost,
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
        "merges": [_whole_dict(whole) for whole in sheets.merges],
        "splits": [_whole_dict(whole) for whole in sheets.splits],
        "missed_sheets": [_lone_dict(lone) for lone in sheets.missed[:_LISTED]],
        "invented_components": [_lone_dict(lone) for lone in sheets.invented[:_LISTED]],
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
    """Return one line a case, the lowest score first, that says which part of it lost most."""
    ranked = sorted(scores.items(), key=lambda item: item[1].score)
    width = max(map(len, scores))
    return "".join(f"{id_.ljust(width)}  {score.score:.4f}  lost to {_lost(score)}\n" for id_, score in ranked)


def _lost(score: CaseScore) -> str:
    ranked = sorted(score.lost.items(), key=lambda item: item[1], reverse=True)
    return ", ".join(f"{name} {points:.4f}" for name, points in ranked)


def _betti(score: CaseScore) -> dict[str, list[int]]:
    return dict(zip(DIMENSIONS, (score.betti or {}).values(), strict=False))


def _or_none(lines: Iterable[str]) -> list[str]:
    return list(lines) or ["    none"]


def _whole(whole: Whole, kind: str, part_kind: str, stray: str) -> list[str]:
    parts = ", ".join(f"{part.number} ({part.shared_voxels} of its {part.voxels})" for part in whole.parts[:_SHOWN])
    more = f" and {len(whole.parts) - _SHOWN} more" if len(whole.parts) > _SHOWN else ""
    lines = [
        f"    {kind} {whole.number}, {whole.voxels} voxels, {whole.stray_voxels} of them {stray}, "
        f"{whole.bits:.3f} bits: {part_kind}s {parts}{more}"
    ]
    for contact in whole.contacts[:_SHOWN]:
        first, second = contact.numbers
        lines.append(f"      {first} and {second} meet over {contact.voxels} voxels, see {_at(contact.at)}")
    return lines


def _lone(title: str, lone: tuple[Lone, ...]) -> list[str]:
    voxels = sum(one.voxels for one in lone)
    lines = [f"  {title}: {len(lone)}" + (f", {voxels} voxels" if lone else "")]
    return lines + [f"    {one.number}, {one.voxels} voxels, see {_at(one.at)}" for one in lone[:_SHOWN]]


def _holes(explanation: Explanation, holes: tuple[Hole, ...], kind: str, other: str) -> list[str]:
    matchings = [matching for loss in explanation.octants for matching in loss.matchings[1:]]
    unmatched = sum(getattr(matching, kind) - matching.matched for matching in matchings)
    lines = [
        f"  {kind} tunnels and cavities that match nothing: {unmatched}" + (", likely among these:" if holes else "")
    ]
    for hole in holes[:_SHOWN]:
        lines.append(f"    {hole.kind} at {_at(hole.at)}, {hole.voxels} {other} voxels within 4 could fill it")
    return lines


def _surface(kind: str, loss: SurfaceLoss) -> list[str]:
    if loss.worst_at is None:
        return [f"  {kind} surface: nothing"]
    far = "there is none" if math.isinf(loss.worst_distance) else f"at most {loss.worst_distance:.1f} voxels"
    return [f"  {kind} surface: {loss.beyond_share:.2%} of its area, {far}, see {_at(loss.worst_at)}"]


def _at(voxel: Voxel) -> str:
    return f"({', '.join(map(str, voxel))})"


def _box(box: Box) -> str:
    return "[" + ", ".join(f"{side.start}:{side.stop}" for side in box) + "]"


def _box_dict(box: Box) -> dict[str, list[int]]:
    return {"start": [int(side.start) for side in box], "stop": [int(side.stop) for side in box]}


def _whole_dict(whole: Whole) -> dict[str, object]:
    return {
        "number": whole.number,
        "voxels": whole.voxels,
        "stray_voxels": whole.stray_voxels,
        "bits": whole.bits,
        "parts": [
            {"number": part.number, "voxels": part.voxels, "shared_voxels": part.shared_voxels}
            for part in whole.parts[:_LISTED]
        ],
        "contacts": [
            {"numbers": list(contact.numbers), "voxels": contact.voxels, "at": list(contact.at)}
            for contact in whole.contacts[:_LISTED]
        ],
    }


def _lone_dict(lone: Lone) -> dict[str, object]:
    return {"number": lone.number, "voxels": lone.voxels, "at": list(lone.at)}


def _hole_dict(hole: Hole) -> dict[str, object]:
    return {"kind": hole.kind, "voxels": hole.voxels, "at": list(hole.at)}


def _surface_dict(loss: SurfaceLoss) -> dict[str, object]:
    distance = None if math.isinf(loss.worst_distance) else loss.worst_distance
    at = None if loss.worst_at is None else list(loss.worst_at)
    return {"beyond_share": loss.beyond_share, "worst_distance_voxels": distance, "worst_at": at}
