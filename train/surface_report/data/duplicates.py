"""Images that are nearly the same."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from surface_report.data.case_facts import CaseFacts

ALIKE = 0.99  # of the correlation of two thumbnails
_NAMED = 5  # of the others, in a case's fault


def near_duplicates(facts: Sequence[CaseFacts]) -> dict[str, list[tuple[str, float]]]:
    """Return for each id with near-duplicates the other ids and the correlations of thumbnails, the highest first."""
    ids = [one.id for one in facts if one.image is not None]
    if not ids:
        return {}
    thumbnails = np.stack([one.image.thumbnail for one in facts if one.image is not None])
    alike = thumbnails @ thumbnails.T
    np.fill_diagonal(alike, 0)
    found: dict[str, list[tuple[str, float]]] = {}
    for first, second in np.argwhere(alike >= ALIKE):
        found.setdefault(ids[first], []).append((ids[second], float(alike[first, second])))
    return {id_: sorted(others, key=lambda other: -other[1]) for id_, others in found.items()}


def with_duplicates(facts: Sequence[CaseFacts]) -> list[CaseFacts]:
    """Return the facts, near-duplicates among each case's faults: one line a case, however many it has."""
    found = near_duplicates(facts)
    return [replace(one, faults=(*one.faults, _said(found[one.id]))) if one.id in found else one for one in facts]


def _said(others: Sequence[tuple[str, float]]) -> str:
    named = ", ".join(f"{id_} ({alike:.4f})" for id_, alike in others[:_NAMED])
    more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
    return f"nearly the same image as {named}{more}"
