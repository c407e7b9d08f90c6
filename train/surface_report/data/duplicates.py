"""Images that are nearly the same."""

from collections.abc import Sequence

import numpy as np

from surface_report.data.case_facts import CaseFacts

ALIKE = 0.99  # of the correlation of two thumbnails


def near_duplicates(facts: Sequence[CaseFacts]) -> list[tuple[str, str, float]]:
    """Return the pairs of ids whose images are nearly the same, with the correlation of their thumbnails."""
    ids = [one.id for one in facts if one.image is not None]
    thumbnails = [one.image.thumbnail for one in facts if one.image is not None]
    if not ids:
        return []
    alike = np.stack(thumbnails)
    alike = np.triu(alike @ alike.T, k=1)
    found = [(ids[first], ids[second], float(alike[first, second])) for first, second in np.argwhere(alike >= ALIKE)]
    return sorted(found, key=lambda pair: -pair[2])
