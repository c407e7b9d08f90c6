"""Measurements of one prediction of one volume, under both conventions for label 2."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import entr

from surface_score.surface_dice import surface_dice
from surface_train.checks.validate import THRESHOLDS

Floats = npt.NDArray[np.float32]
Grey = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

THRESHOLD = 0.5


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One prediction at threshold 0.5.

    Only voxels labelled 0 or 1 count, but for the fields named `whole`: there all count, and label 2 is surface.
    """

    case: str
    foreground: float
    """Predicted share."""
    truth: float
    """True share."""
    foreground_whole: float
    truth_whole: float
    variance: float
    """Of the probabilities."""
    variance_whole: float
    entropy: float
    """Mean over voxels, in nats, at most log 2."""
    dice: float
    dice_whole: float
    surface_dice: float
    """Label 2 ignored."""
    surface_dice_at: tuple[float, ...] | None = None
    """One per threshold of THRESHOLDS; None for a mask."""


def of_probability(case: str, probability: Floats, label: Grey) -> Measured:
    """Return the measurements of probabilities.

    Args:
        case: A name for the volume.
        probability: float32 (z, y, x).
        label: uint8 {0, 1, 2}, the same shape. Without a labelled voxel the shares, the variance and the entropy are 0
            and the scores 1.
    """
    curve = tuple(_surface_dice(probability > threshold, label) for threshold in THRESHOLDS)
    return _measured(case, mask=probability > THRESHOLD, probability=probability, label=label, curve=curve)


def of_mask(case: str, mask: Mask, label: Grey) -> Measured:
    """Return the measurements of a mask, bool (z, y, x), taken as probabilities of 0 and 1."""
    return _measured(case, mask=mask, probability=mask, label=label, curve=None)


def best_grey_mask(image: Grey, label: Grey) -> Mask:
    """Return the voxels at or above the single grey value with the best Dice, chosen with the labels known."""
    back, face = (np.bincount(image[label == kind], minlength=256) for kind in (0, 1))
    hits, alarms = face[::-1].cumsum()[::-1], back[::-1].cumsum()[::-1]  # at or above each grey value
    total = hits + alarms + face.sum()
    scores = np.divide(2 * hits, total, out=np.zeros(256), where=total > 0)
    mask: Mask = image >= int(np.argmax(scores))
    return mask


def _measured(
    case: str, *, mask: Mask, probability: Floats | Mask, label: Grey, curve: tuple[float, ...] | None
) -> Measured:
    labelled, surface = label != 2, label == 1
    values = probability[labelled].astype(np.float64)
    count = int(labelled.sum())
    return Measured(
        case=case,
        foreground=float(mask[labelled].mean()) if count else 0.0,
        truth=float(surface.sum() / count) if count else 0.0,
        foreground_whole=float(mask.mean()),
        truth_whole=float((label > 0).mean()),
        variance=float(values.var()) if count else 0.0,
        variance_whole=float(probability.var(dtype=np.float64)),
        entropy=float(entropy(values).mean()) if count else 0.0,
        dice=dice(mask & labelled, surface),
        dice_whole=dice(mask, label > 0),
        surface_dice=_surface_dice(mask, label),
        surface_dice_at=curve,
    )


def dice(predicted: Mask, truth: Mask) -> float:
    """Return 2 |P ∩ T| / (|P| + |T|); 1 if both are empty."""
    total = int(predicted.sum()) + int(truth.sum())
    return 2 * int((predicted & truth).sum()) / total if total else 1.0


def entropy(probability: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return −p log p − (1 − p) log(1 − p) in nats, 0 at both ends."""
    result: npt.NDArray[np.float64] = entr(probability) + entr(1 - probability)
    return result


def _surface_dice(mask: Mask, label: Grey) -> float:
    return surface_dice(mask & (label != 2), label == 1, threads=1)
