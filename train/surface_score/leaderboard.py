"""One case's row of the leaderboard, and the mean over cases.

The score is 0.30 · topology + 0.35 · surface Dice + 0.35 · VOI score; a submission's is the mean over its volumes.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from surface_score.betti import Octant, match_octants, topo_score, total
from surface_score.surface_dice import surface_dice
from surface_score.voi import variation_of_information

TOPO_WEIGHT = 0.30
SURFACE_DICE_WEIGHT = 0.35
VOI_WEIGHT = 0.35

IGNORED = 2

_SHARES = ("topo_score", "surface_dice", "voi_score", "dice", "predicted_share", "truth_share")
_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class CaseScore:
    """What one case earned. Shares and scores lie in [0, 1]; split and merge are bits.

    `octants` holds what the topology was counted in; a mean over cases has none. `predicted_share` and `truth_share`
    tell how much of the labelled volume is foreground (0 where nothing is labelled): they are no part of the score, but
    a prediction that is all or nothing shows there first.
    """

    topo_score: float
    surface_dice: float
    voi_score: float
    voi_split: float
    voi_merge: float
    dice: float
    predicted_share: float
    truth_share: float
    octants: tuple[Octant, ...] = ()

    def __post_init__(self) -> None:
        for name in _SHARES:
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"found {name} = {value}, wanted a number from 0 to 1")
        if not (self.voi_split >= 0 and self.voi_merge >= 0):
            raise ValueError(f"found a split of {self.voi_split} and a merge of {self.voi_merge}, wanted bits >= 0")

    @property
    def score(self) -> float:
        """Return the weighted score in [0, 1]."""
        score = SURFACE_DICE_WEIGHT * self.surface_dice + VOI_WEIGHT * self.voi_score + TOPO_WEIGHT * self.topo_score
        return min(max(score, 0.0), 1.0)

    @property
    def lost(self) -> dict[str, float]:
        """Return what each part of the score fell short of a perfect one by; together with the score they make 1."""
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
        """Return the row as it stands in the JSON file, the score first."""
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


@dataclass(frozen=True)
class Masks:
    """The two masks that are compared, bool (z, y, x) of one shape, and where nothing is compared."""

    predicted: _Mask
    truth: _Mask
    ignored: _Mask


def masks_of(prediction: npt.NDArray[np.generic], label: npt.NDArray[np.generic]) -> Masks:
    """Read a prediction and a label (z, y, x) as the competition does.

    What is 2 in the label is ignored: background in both masks. All else that is not 0 is foreground, be it bool or
    numbers, a predicted 2 and a label of 255 included; NaN is background. Raises ValueError when the shapes differ or
    are not three-dimensional, and when there are no voxels.
    """
    if prediction.shape != label.shape or label.ndim != 3:
        found = f"a prediction of shape {prediction.shape} and a label of shape {label.shape}"
        raise ValueError(f"found {found}, wanted one shape (z, y, x)")
    if label.size == 0:
        raise ValueError(f"found volumes of shape {label.shape}, wanted at least one voxel")
    ignored = label == IGNORED
    return Masks(_foreground(prediction) & ~ignored, _foreground(label) & ~ignored, ignored)


def _foreground(volume: npt.NDArray[np.generic]) -> _Mask:
    foreground: _Mask = volume != 0
    return foreground & ~np.isnan(volume) if np.issubdtype(volume.dtype, np.inexact) else foreground


def score_case(
    prediction: npt.NDArray[np.generic], label: npt.NDArray[np.generic], threads: int | None = None
) -> CaseScore:
    """Score one volume as the competition does.

    `prediction` and `label` (z, y, x) are read as `masks_of` says, and it raises for them. Two masks that are empty
    score 1 throughout, and a single empty one a surface Dice and a Dice of 0. `threads` (all cores by default) change
    the time and the memory, and nothing else: each works on one octant at a time.
    """
    return score_masks(masks_of(prediction, label), threads)


def score_masks(masks: Masks, threads: int | None = None) -> CaseScore:
    """Score two masks as `score_case` does."""
    box = _box_around(masks.predicted | masks.truth)
    predicted, truth = masks.predicted[box], masks.truth[box]
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        varied = pool.submit(variation_of_information, predicted, truth)
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
    """Return the smallest box that holds the foreground: surface Dice and VOI do not see the background around it."""
    box = []
    for axis in range(3):
        planes = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        box.append(slice(planes[0], planes[-1] + 1) if planes.size else slice(0, 0))
    return tuple(box)


def mean_score(cases: Sequence[CaseScore]) -> CaseScore:
    """Return the mean of each number over the cases; it has no octants. Raises ValueError when there are no cases."""
    if not cases:
        raise ValueError("found no cases, wanted at least one to take the mean of")
    numbers = [field.name for field in fields(CaseScore) if field.name != "octants"]
    return CaseScore(**{name: sum(getattr(case, name) for case in cases) / len(cases) for name in numbers})
