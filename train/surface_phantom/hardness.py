"""How hard a volume is to segment by its grey values, compared with the competition's volumes."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# Measured on the competition's published volumes.
GAP_RANGE = (10.0, 30.0)  # grey levels
DICE_LIMIT = 0.35  # the most that a single threshold reaches
SHARE_RANGE = (0.009, 0.17)


@dataclass(frozen=True)
class Hardness:
    """How well grey values alone separate the labels. Label 2 is ignored in all but `surface_share`."""

    gap: float
    """Mean grey value on label 1 minus that on label 0."""
    threshold_dice: float
    """Dice of the best single threshold (foreground is grey >= t), chosen with the labels known."""
    surface_share: float
    """Share of label 1 in the whole volume."""

    @property
    def is_real(self) -> bool:
        """Whether the volume is as hard as the competition's are."""
        return (
            GAP_RANGE[0] <= self.gap <= GAP_RANGE[1]
            and self.threshold_dice <= DICE_LIMIT
            and SHARE_RANGE[0] <= self.surface_share <= SHARE_RANGE[1]
        )


def measure(image: npt.NDArray[np.uint8], label: npt.NDArray[np.uint8]) -> Hardness:
    """Return the hardness of a volume.

    Args:
        image: uint8 grey values (z, y, x).
        label: uint8 {0, 1, 2} of the same shape.

    Returns:
        The measurements; the gap is NaN where label 0 or label 1 is missing, and `is_real` then False.
    """
    counts = np.zeros(3 * 256, np.int64)
    for grey, page in zip(image, label, strict=True):
        counts += np.bincount((page * np.intp(256) + grey).ravel(), minlength=len(counts))
    back, face = counts[:256], counts[256:512]
    share = float(face.sum() / label.size)
    if not back.any() or not face.any():
        return Hardness(float("nan"), 0.0, share)
    greys = np.arange(256)
    gap = float(np.average(greys, weights=face) - np.average(greys, weights=back))
    hits, alarms = face[::-1].cumsum(), back[::-1].cumsum()  # of each threshold, from 255 down to 0
    return Hardness(gap, float((2 * hits / (hits + alarms + face.sum())).max()), share)
