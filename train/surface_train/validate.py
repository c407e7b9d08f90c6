"""Whole volumes through the kernel's own prediction, scored as the competition scores them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import nn
from tqdm import tqdm

from surface_kernel import surface
from surface_kernel.device import Device
from surface_kernel.predict import Member, slabs
from surface_kernel.tiles import Grid
from surface_score import score_case
from surface_train.cases import UNLABELLED, Case
from surface_train.settings import Settings

THRESHOLDS = tuple(round(0.2 + 0.05 * step, 2) for step in range(11))  # 0.2 … 0.7
_BINS = 1000  # of probability: every threshold is a bin's edge


@dataclass(frozen=True)
class Checked:
    """One validation at `threshold`. Means are over cases.

    foreground, truth: shares of the labelled voxels, predicted and true. variance: of the probabilities there.
    """

    threshold: float
    dice: float
    surface_dice: float
    voi_score: float
    foreground: float
    truth: float
    variance: float


@dataclass(frozen=True)
class Predicted:
    """A case with its probabilities, float32 (z, y, x)."""

    case: Case
    image: npt.NDArray[np.uint8]
    label: npt.NDArray[np.uint8]
    probability: npt.NDArray[np.float32]


def predict(network: nn.Module, cases: Sequence[Case], settings: Settings, device: Device) -> list[Predicted]:
    """Predict whole cases with a network in evaluation mode, as the kernel would on Kaggle."""
    was_training = network.training
    member = Member(network.eval(), settings.intensity)
    made = []
    for case in tqdm(cases, desc="validation", unit="volume", leave=False, disable=None):
        image, label = case.load()
        grid = Grid(image.shape, settings.patches.shape_zyx, settings.overlap)
        logits = np.concatenate([slab for _, slab in slabs([member], image, grid, device)])
        made.append(Predicted(case, image, label, surface.probability(logits)))
    network.train(was_training)
    return made


def best_threshold(predicted: Sequence[Predicted]) -> float:
    """Give the threshold of THRESHOLDS with the best mean Dice over the cases; the lowest of equals."""
    histograms = _histograms(predicted)
    return max(THRESHOLDS, key=lambda threshold: float(np.mean([_dice(case, threshold) for case in histograms])))


def check(predicted: Sequence[Predicted], threshold: float) -> Checked:
    """Score predictions at a threshold."""
    rows = [score_case(row.probability > threshold, row.label) for row in predicted]
    variances = [_variance(row.probability[row.label != UNLABELLED]) for row in predicted]
    return Checked(
        threshold=threshold,
        dice=float(np.mean([row.dice for row in rows])),
        surface_dice=float(np.mean([row.surface_dice for row in rows])),
        voi_score=float(np.mean([row.voi_score for row in rows])),
        foreground=float(np.mean([row.predicted_share for row in rows])),
        truth=float(np.mean([row.truth_share for row in rows])),
        variance=float(np.mean(variances)),
    )


def _variance(values: npt.NDArray[np.float32]) -> float:
    return float(values.var(dtype=np.float64)) if values.size else 0.0


def _histograms(predicted: Sequence[Predicted]) -> list[npt.NDArray[np.int64]]:
    """Count the probabilities of each case's background and surface voxels: (2, bins) a case."""
    edges = np.linspace(0, 1, _BINS + 1)
    return [
        np.stack([np.histogram(row.probability[row.label == kind], edges)[0] for kind in (0, 1)]) for row in predicted
    ]


def _dice(counts: npt.NDArray[np.int64], threshold: float) -> float:
    background, found = counts[:, round(threshold * _BINS) :].sum(axis=1)
    total = background + found + counts[1].sum()
    return float(2 * found / total) if total else 1.0
