"""One case's row of the leaderboard, and the mean over cases.

The score is 0.30 · topology + 0.35 · surface Dice + 0.35 · VOI score; a submission's is the mean over its volumes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from surface_score.surface_dice import surface_dice
from surface_score.voi import variation_of_information

TOPO_WEIGHT = 0.30
SURFACE_DICE_WEIGHT = 0.35
VOI_WEIGHT = 0.35

SURFACE = 1
IGNORED = 2

_SHARES = ("topo_score", "surface_dice", "voi_score", "dice", "predicted_share", "truth_share")
_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class CaseScore:
    """What one case earned. Shares and scores lie in [0, 1]; split and merge are bits.

    `topo_score` is None where the topology was not computed; then `score` is None too. `betti` holds the counts
    (matched, predicted, true) for the dimensions "0", "1" and "2". `predicted_share` and `truth_share` tell how much of
    the labelled volume is foreground (0 where nothing is labelled): they are no part of the score, but a prediction
    that is all or nothing shows there first.
    """

    surface_dice: float
    voi_score: float
    voi_split: float
    voi_merge: float
    dice: float
    predicted_share: float
    truth_share: float
    topo_score: float | None = None
    betti: dict[str, tuple[int, int, int]] | None = None

    def __post_init__(self) -> None:
        for name in _SHARES:
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"found {name} = {value}, wanted a number from 0 to 1")
        if not (self.voi_split >= 0 and self.voi_merge >= 0):
            raise ValueError(f"found a split of {self.voi_split} and a merge of {self.voi_merge}, wanted bits >= 0")

    @property
    def score(self) -> float | None:
        """Return the weighted score in [0, 1], None while a part of it is missing."""
        if self.topo_score is None:
            return None
        score = TOPO_WEIGHT * self.topo_score + SURFACE_DICE_WEIGHT * self.surface_dice + VOI_WEIGHT * self.voi_score
        return min(max(score, 0.0), 1.0)

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


def score_case(
    prediction: npt.NDArray[np.generic], label: npt.NDArray[np.generic], threads: int | None = None
) -> CaseScore:
    """Score one volume as the competition does.

    `prediction` (z, y, x) is foreground where it is not 0, be it bool or numbers: a predicted 2 is foreground. `label`
    (z, y, x) holds 0 background, 1 surface and 2 ignored; where it is 2, both count as background. Two masks that are
    empty then score 1 throughout, and a single empty one a surface Dice and a Dice of 0. `threads` (all cores by
    default) change the time and nothing else. Raises ValueError when the shapes differ or are not three-dimensional,
    when there are no voxels, and for another label.
    """
    if prediction.shape != label.shape or label.ndim != 3:
        found = f"a prediction of shape {prediction.shape} and a label of shape {label.shape}"
        raise ValueError(f"found {found}, wanted one shape (z, y, x)")
    if label.size == 0:
        raise ValueError(f"found volumes of shape {label.shape}, wanted at least one voxel")
    ignored = label == IGNORED
    truth = label == SURFACE
    strange = np.unique(label[~(ignored | truth | (label == 0))])
    if strange.size:
        raise ValueError(f"found the label {strange[0]}, wanted 0 background, 1 surface and 2 ignored")
    predicted = (prediction != 0) & ~ignored
    labelled_voxels = label.size - int(np.count_nonzero(ignored))
    box = _box_around(predicted | truth)
    return _score_masks(predicted[box], truth[box], labelled_voxels, threads)


def _box_around(mask: _Mask) -> tuple[slice, ...]:
    """Return the smallest box that holds the foreground: none of the measures sees the background around it."""
    box = []
    for axis in range(3):
        planes = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        box.append(slice(planes[0], planes[-1] + 1) if planes.size else slice(0, 0))
    return tuple(box)


def _score_masks(predicted: _Mask, truth: _Mask, labelled_voxels: int, threads: int | None) -> CaseScore:
    predicted_voxels = np.count_nonzero(predicted)
    true_voxels = np.count_nonzero(truth)
    both = predicted_voxels + true_voxels
    variation = variation_of_information(predicted, truth)
    return CaseScore(
        surface_dice=surface_dice(predicted, truth, threads),
        voi_score=variation.score,
        voi_split=variation.split_bits,
        voi_merge=variation.merge_bits,
        dice=2 * np.count_nonzero(predicted & truth) / both if both else 1.0,
        predicted_share=predicted_voxels / labelled_voxels if labelled_voxels else 0.0,
        truth_share=true_voxels / labelled_voxels if labelled_voxels else 0.0,
    )


def mean_score(cases: Sequence[CaseScore]) -> CaseScore:
    """Return the mean of each number over the cases; what one of them lacks, the mean lacks, and it has no `betti`.

    Raises ValueError when there are no cases.
    """
    if not cases:
        raise ValueError("found no cases, wanted at least one to take the mean of")
    means: dict[str, Any] = {}
    for name in (field.name for field in fields(CaseScore) if field.name != "betti"):
        values = [getattr(case, name) for case in cases]
        if None not in values:
            means[name] = sum(values) / len(values)
    return CaseScore(**means)
