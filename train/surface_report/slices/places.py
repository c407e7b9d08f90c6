"""The places that the score's breakdown names, worst first, and what to mark around them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

from surface_report.slices.kinds import (
    ADDED,
    HOLE,
    MERGED,
    MISSED,
    NEAR_CONTACT_VOXELS,
    NEAR_HOLE_VOXELS,
    PLUG,
    SPLIT,
    Mark,
    Voxel,
)

LISTED = 24
_OF_EACH = 8


@dataclass(frozen=True, kw_only=True)
class Place:
    """A voxel to look at, and why."""

    kind: str
    """A word or two."""
    text: str
    at: Voxel


def places(breakdown: Mapping[str, Any]) -> list[Place]:
    """Return the worst place of each kind, then the second of each, and so on: at most LISTED.

    Args:
        breakdown: A case's JSON of `surface_score --explain`. Raises KeyError or TypeError where it is something else.
    """
    by_kind = [list(found)[:_OF_EACH] for found in _by_kind(breakdown)]
    ranked = [place for rank in zip_longest(*by_kind) for place in rank if place is not None]
    return ranked[:LISTED]


def marks(breakdown: Mapping[str, Any]) -> list[Mark]:
    """Return what to mark: false voxels at bridges, missed ones at gaps, and those that fill or would fill a hole."""
    contacts = {"merges": (ADDED, MERGED), "splits": (MISSED, SPLIT)}
    found = [
        Mark(at=_voxel(contact["at"]), within=NEAR_CONTACT_VOXELS, of=of, becomes=becomes)
        for name, (of, becomes) in contacts.items()
        for mismatch in breakdown[name]
        for contact in mismatch["contacts"]
    ]
    holes = {"false_holes": (MISSED, HOLE), "lost_holes": (ADDED, PLUG)}
    found += [
        Mark(at=_voxel(hole["at"]), within=NEAR_HOLE_VOXELS, of=of, becomes=becomes)
        for name, (of, becomes) in holes.items()
        for hole in breakdown[name]
    ]
    return found


def _by_kind(breakdown: Mapping[str, Any]) -> Iterator[Iterator[Place]]:
    yield _contacts(breakdown["merges"], "merge", "true sheets {} and {} meet over {} voxels")
    yield _contacts(breakdown["splits"], "split", "components {} and {} of one sheet, {} voxels where they meet")
    yield _holes(breakdown["false_holes"], "false hole", "{}: {} true voxels near could fill it")
    yield (
        Place(kind="surface", text=f"{region['points']:.4f} points lost in this box of 32³", at=_voxel(region["at"]))
        for region in breakdown["regions"]
    )
    yield _unmatched(breakdown["missed_sheets"], "missed sheet")
    yield _unmatched(breakdown["invented_components"], "false component")
    yield _holes(breakdown["lost_holes"], "lost hole", "{}: {} false voxels near fill it")


def _contacts(mismatches: Sequence[Mapping[str, Any]], kind: str, text: str) -> Iterator[Place]:
    contacts = chain.from_iterable(mismatch["contacts"][:2] for mismatch in mismatches)
    for contact in contacts:
        first, second = contact["numbers"]
        yield Place(kind=kind, text=text.format(first, second, contact["voxels"]), at=_voxel(contact["at"]))


def _holes(holes: Sequence[Mapping[str, Any]], kind: str, text: str) -> Iterator[Place]:
    for hole in holes:
        yield Place(kind=kind, text=text.format(hole["kind"], hole["voxels"]), at=_voxel(hole["at"]))


def _unmatched(sheets: Sequence[Mapping[str, Any]], kind: str) -> Iterator[Place]:
    for sheet in sheets:
        yield Place(kind=kind, text=f"{sheet['voxels']} voxels", at=_voxel(sheet["at"]))


def _voxel(at: Sequence[int]) -> Voxel:
    z, y, x = at
    return int(z), int(y), int(x)
