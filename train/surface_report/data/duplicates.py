"""Images that are nearly the same."""

from collections.abc import Sequence

import numpy as np

from surface_report.data.case_facts import CaseFacts

ALIKE = 0.98  # of the correlation of two signatures


def near_duplicates(facts: Sequence[CaseFacts]) -> list[tuple[str, str, float]]:
    """Return the pairs of ids whose images are of one shape and nearly the same, with their correlation."""
    found = []
    shapes: dict[tuple[int, ...], list[CaseFacts]] = {}
    for one in facts:
        if one.signature is not None and one.shape_zyx is not None and one.signature.any():
            shapes.setdefault(one.shape_zyx, []).append(one)
    for group in shapes.values():
        signatures = np.stack([one.signature for one in group if one.signature is not None])
        alike = np.triu(signatures @ signatures.T, k=1)
        found += [(group[a].id, group[b].id, float(alike[a, b])) for a, b in np.argwhere(alike >= ALIKE)]
    return sorted(found, key=lambda pair: -pair[2])
