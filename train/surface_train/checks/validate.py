"""Whole volumes through the kernel's own prediction, scored as the competition scores them.

Of a volume's probabilities only what the thresholds can tell apart is kept, a byte a voxel, and several volumes are
shared out over the processes of a run.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from torch import nn
from tqdm import tqdm

from surface_kernel import probability
from surface_kernel.inference.forward import Member
from surface_kernel.inference.predict import Logits, slabs
from surface_kernel.inference.tiles import Grid
from surface_kernel.networks.device import Device
from surface_score import CaseScore, score_case
from surface_train.data.cases import UNLABELLED, Case
from surface_train.distributed import Group
from surface_train.settings import Settings

THRESHOLDS = tuple(round(0.2 + 0.05 * step, 2) for step in range(11))  # 0.2 … 0.7
_LOGITS = np.array([probability.logit(threshold) for threshold in THRESHOLDS], np.float32)


@dataclass(frozen=True)
class Checked:
    """One validation at `threshold`. Means are over cases.

    score: the competition's. foreground, truth: shares of the labelled voxels, predicted and true. variance, entropy
    (nats): of the probabilities there.
    """

    threshold: float
    score: float
    topo_score: float
    surface_dice: float
    voi_score: float
    dice: float
    foreground: float
    truth: float
    variance: float
    entropy: float

    def rounded(self) -> dict[str, float]:
        """Give the numbers as a weights file quotes them."""
        return {name: round(value, 6) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Predicted:
    """A case and its probabilities, as far as thresholds see them.

    levels: uint8 (z, y, x), how many of THRESHOLDS lie below a voxel's probability. variance, entropy: of the labelled
    voxels' probabilities, 0 where there are none.
    """

    case: Case
    image: npt.NDArray[np.uint8]
    label: npt.NDArray[np.uint8]
    levels: npt.NDArray[np.uint8]
    variance: float
    entropy: float

    def mask(self, threshold: float) -> npt.NDArray[np.uint8]:
        """Give the mask that the kernel would make at one of THRESHOLDS: uint8 {0, 1} (z, y, x)."""
        return (self.levels > THRESHOLDS.index(threshold)).view(np.uint8)

    def dice_by_threshold(self) -> npt.NDArray[np.float64]:
        """Give the Dice over the labelled voxels at each of THRESHOLDS; 1 where both are empty."""
        counts = np.stack([np.bincount(self.levels[self.label == kind], minlength=12)[:12] for kind in (0, 1)])
        # What lies above threshold i has a level above i.
        background, found = counts[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
        total = background + found + counts[1].sum()
        return np.where(total == 0, 1.0, 2 * found / np.maximum(total, 1))


def predict(
    network: nn.Module, cases: Sequence[Case], settings: Settings, device: Device, group: Group
) -> Iterator[Predicted]:
    """Predict this process's share of the cases with a network, as the kernel would on Kaggle, one at a time."""
    own = cases[group.rank :: group.size]
    was_training = network.training
    member = Member(network.eval(), settings.intensity)
    try:
        for case in tqdm(own, desc="validation", unit="volume", leave=False, disable=None if group.primary else True):
            yield _predict_case(member, case, settings, device)
    finally:
        network.train(was_training)


def _predict_case(member: Member, case: Case, settings: Settings, device: Device) -> Predicted:
    image, label = case.load()
    grid = Grid(image.shape, settings.patches.shape_zyx, settings.overlap)
    levels, seen = np.empty(image.shape, np.uint8), _Seen()
    for start_z, slab in slabs([member], image, grid=grid, device=device):
        layers = slice(start_z, start_z + len(slab))
        levels[layers] = np.searchsorted(_LOGITS, slab)
        seen.add(slab[label[layers] != UNLABELLED])
    return Predicted(case, image, label, levels, seen.variance, seen.entropy)


@dataclass
class _Seen:
    """Sums over the probabilities seen so far."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    nats: float = 0.0

    def add(self, logits: Logits) -> None:
        probabilities = probability.probabilities(logits)
        self.count += logits.size
        self.total += float(probabilities.sum(dtype=np.float64))
        self.squares += float(np.square(probabilities).sum(dtype=np.float64))
        # Entropy from the logit, steady at both ends: softplus(logit) − p · logit.
        self.nats += float((np.logaddexp(logits, np.float32(0)) - probabilities * logits).sum(dtype=np.float64))

    @property
    def variance(self) -> float:
        mean = self.total / max(self.count, 1)
        return max(0.0, self.squares / max(self.count, 1) - mean**2)

    @property
    def entropy(self) -> float:
        return self.nats / max(self.count, 1)


def best_threshold(predicted: Sequence[Predicted], group: Group) -> float:
    """Give the threshold of THRESHOLDS with the best mean Dice over everybody's cases; the lowest of equals."""
    rows = group.gather([row.dice_by_threshold() for row in predicted])
    return THRESHOLDS[int(np.mean(rows, axis=0).argmax())]


def check(predicted: Sequence[Predicted], threshold: float, group: Group) -> Checked:
    """Score everybody's predictions at a threshold."""
    return mean_checked(group.gather([check_case(row, threshold) for row in predicted]))


def check_case(row: Predicted, threshold: float) -> Checked:
    """Score one prediction at a threshold."""
    scored = score_case(row.mask(threshold), row.label)
    return _checked(threshold, scored, row.variance, row.entropy)


def mean_checked(rows: Sequence[Checked]) -> Checked:
    """Give the mean of several cases' numbers, all of one threshold."""
    names = asdict(rows[0])
    return Checked(**{name: float(np.mean([getattr(row, name) for row in rows])) for name in names})


def _checked(threshold: float, scored: CaseScore, variance: float, entropy: float) -> Checked:
    return Checked(
        threshold,
        *(scored.score, scored.topo_score, scored.surface_dice, scored.voi_score, scored.dice),
        *(scored.predicted_share, scored.truth_share, variance, entropy),
    )


def sweep(predicted: Sequence[Predicted], group: Group) -> list[Checked]:
    """Score everybody's predictions at all of THRESHOLDS."""
    return [check(predicted, threshold, group) for threshold in THRESHOLDS]
