"""How hard a volume is: as hard as the competition's, measured on each one that is made."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

GAP_RANGE = (10.0, 30.0)  # grey levels, FACTS of the competition
DICE_LIMIT = 0.35  # what the real slices allow a threshold, at most
SHARE_RANGE = (0.009, 0.17)


@dataclass(frozen=True)
class Hardness:
    """How far grey values alone lead. Label 2 is ignored in all but `surface_share`.

    gap: mean grey value on label 1 less that on label 0; threshold_dice: the Dice of the best single threshold
    (foreground is grey >= t), chosen with the answers in hand; surface_share: of label 1 in the whole volume.
    """

    gap: float
    threshold_dice: float
    surface_share: float

    @property
    def is_real(self) -> bool:
        """Whether the volume is as hard as the competition's are."""
        return (
            GAP_RANGE[0] <= self.gap <= GAP_RANGE[1]
            and self.threshold_dice <= DICE_LIMIT
            and SHARE_RANGE[0] <= self.surface_share <= SHARE_RANGE[1]
        )


def measure(image: npt.NDArray[np.uint8], label: npt.NDArray[np.uint8]) -> Hardness:
    """Measure a volume, uint8 grey values and labels {0, 1, 2} of one shape.

    Without a voxel of label 1 or of label 0 there is no gap: it is NaN, and the volume is not real.
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
