"""The competition's score of one case, and the mean over cases.

The score is 0.30 · topology + 0.35 · surface Dice + 0.35 · VOI score; a submission's is the mean over its volumes.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from surface_score.betti import Octant, match_octants, topo_score, total
from surface_score.compiled import allowed_cores
from surface_score.surface_dice import surface_dice
from surface_score.voi import variation_of_information

TOPO_WEIGHT = 0.30
SURFACE_DICE_WEIGHT = 0.35
VOI_WEIGHT = 0.35

IGNORED = 2

_SHARES = ("topo_score", "surface_dice", "voi_score", "dice", "predicted_share", "truth_share")
_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class CaseScore:
    """The scores of one case. Raises ValueError for values out of range."""

    topo_score: float
    """In [0, 1], as the other scores and shares."""
    surface_dice: float
    """At a tolerance of 2 voxels."""
    voi_score: float
    """1 / (1 + 0.3 · (voi_split + voi_merge))."""
    voi_split: float
    """In bits."""
    voi_merge: float
    """In bits."""
    dice: float
    """The volumetric Dice; no part of the score."""
    predicted_share: float
    """Of the labelled voxels, 0 where there are none. No part of the score, but it reveals a collapsed prediction."""
    truth_share: float
    """Of the labelled voxels, 0 where there are none."""
    octants: tuple[Octant, ...] = ()
    """What the topology was counted in; empty for a mean over cases."""

    def __post_init__(self) -> None:
        for name in _SHARES:
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"{name}: expected a number from 0 to 1, got {value}")
        if not (self.voi_split >= 0 and self.voi_merge >= 0):
            raise ValueError(f"voi_split, voi_merge: expected bits >= 0, got {self.voi_split} and {self.voi_merge}")

    @property
    def score(self) -> float:
        """Return the weighted score in [0, 1]."""
        score = SURFACE_DICE_WEIGHT * self.surface_dice + VOI_WEIGHT * self.voi_score + TOPO_WEIGHT * self.topo_score
        return min(max(score, 0.0), 1.0)

    @property
    def lost(self) -> dict[str, float]:
        """Return the points that each part of the score loses; together with the score they sum to 1."""
        return {
            "topo": TOPO_WEIGHT * (1 - self.topo_score),
            "surface dice": SURFACE_DICE_WEIGHT * (1 - self.surface_dice),
            "VOI": VOI_WEIGHT * (1 - self.voi_score),
        }

    @property
    def betti(self) -> dict[str, list[int]] | None:
        """Return [matched, predicted, true] for the dimensions "0", "1" and "2"; None for a mean over cases."""
        if not self.octants:
            return None
        return {
            str(dimension): [matching.matched, matching.predicted, matching.true]
            for dimension, matching in enumerate(total(self.octants))
        }

    def as_dict(self) -> dict[str, object]:
        """Return the row of the JSON file, the score first."""
        return {
            "score": self.score,
            "topo_score": self.topo_score,
            "surface_dice": self.surface_dice,
            "voi_score": self.voi_score,
            "voi_split": self.voi_split,
            "voi_merge": self.voi_merge,
            "dice": self.dice,
            "betti": self.betti,
            "predicted_share": self.predicted_share,
            "truth_share": self.truth_share,
        }


@dataclass(frozen=True, kw_only=True)
class Masks:
    """The two masks that are compared, and where nothing is: all bool (z, y, x) of one shape."""

    predicted: _Mask
    truth: _Mask
    ignored: _Mask


def masks_of(prediction: npt.NDArray[np.generic], label: npt.NDArray[np.generic]) -> Masks:
    """Return the masks that the competition makes of a prediction and a label.

    Voxels labelled 2 are ignored: background in both masks. All others that are not 0 are foreground, a predicted 2 and
    a label of 255 included; NaN is background.

    Args:
        prediction: (z, y, x), of bool or numbers.
        label: The same shape, of bool or numbers.

    Raises:
        ValueError: If the shapes differ or are not three-dimensional, or there are no voxels.
    """
    if prediction.shape != label.shape or label.ndim != 3:
        raise ValueError(
            f"expected a prediction and a label of one shape (z, y, x), got a prediction of shape {prediction.shape} "
            f"and a label of shape {label.shape}"
        )
    if label.size == 0:
        raise ValueError(f"expected at least one voxel, got volumes of shape {label.shape}")
    ignored = label == IGNORED
    return Masks(predicted=_foreground(prediction) & ~ignored, truth=_foreground(label) & ~ignored, ignored=ignored)


def _foreground(volume: npt.NDArray[np.generic]) -> _Mask:
    foreground: _Mask = volume != 0
    return foreground & ~np.isnan(volume) if np.issubdtype(volume.dtype, np.inexact) else foreground


def score_case(
    prediction: npt.NDArray[np.generic], label: npt.NDArray[np.generic], threads: int | None = None
) -> CaseScore:
    """Return the score of one volume as the competition computes it.

    Two empty masks score 1 throughout; a single empty one gives a surface Dice and a Dice of 0.

    Args:
        prediction: (z, y, x), read as `masks_of` describes.
        label: The same shape.
        threads: All cores by default. They change time and memory, and no result; each holds one octant.

    Raises:
        ValueError: If `masks_of` refuses the volumes.
    """
    return score_masks(masks_of(prediction, label), threads)


def score_masks(masks: Masks, threads: int | None = None) -> CaseScore:
    """Return the score of two masks; `threads` as in `score_case`."""
    box = _box_around(masks.predicted | masks.truth)
    predicted, truth = masks.predicted[box], masks.truth[box]
    with ThreadPoolExecutor(threads or allowed_cores()) as pool:
        varied = pool.submit(variation_of_information, predicted, truth)
        # Octants are cut from the whole volume: topology depends on the background around the foreground.
        octants = match_octants(masks.predicted, masks.truth, pool)
        variation = varied.result()
    predicted_voxels, true_voxels = int(np.count_nonzero(predicted)), int(np.count_nonzero(truth))
    both = predicted_voxels + true_voxels
    labelled_voxels = masks.truth.size - int(np.count_nonzero(masks.ignored))
    return CaseScore(
        topo_score=topo_score(total(octants)),
        surface_dice=surface_dice(predicted, truth, threads),
        voi_score=variation.score,
        voi_split=variation.split_bits,
        voi_merge=variation.merge_bits,
        dice=2 * int(np.count_nonzero(predicted & truth)) / both if both else 1.0,
        predicted_share=predicted_voxels / labelled_voxels if labelled_voxels else 0.0,
        truth_share=true_voxels / labelled_voxels if labelled_voxels else 0.0,
        octants=tuple(octants),
    )


def _box_around(mask: _Mask) -> tuple[slice, ...]:
    """Return the smallest box that holds the foreground: surface Dice and VOI do not depend on the rest."""
    box = []
    for axis in range(3):
        planes = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        box.append(slice(planes[0], planes[-1] + 1) if planes.size else slice(0, 0))
    return tuple(box)


def mean_score(cases: Sequence[CaseScore]) -> CaseScore:
    """Return the mean of each number over the cases, without octants. Raises ValueError if there are no cases."""
    if not cases:
        raise ValueError("expected at least one case to average, got none")
    numbers = [field.name for field in fields(CaseScore) if field.name != "octants"]
    return CaseScore(**{name: sum(getattr(case, name) for case in cases) / len(cases) for name in numbers})
