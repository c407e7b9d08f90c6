"""Whole volumes through the kernel's own prediction, scored as the competition scores them.

Masks are made by the kernel's own `make_mask`, with the settings of the run: what is scored is what would be submitted.
Several volumes are shared out over the processes of a run.
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
from surface_kernel.postprocess.mask import make_mask
from surface_kernel.postprocess.mask_settings import MaskSettings
from surface_kernel.volumes.scanned import scanned_bits, unpacked
from surface_score import score_case
from surface_train.data.cases import UNLABELLED, Case
from surface_train.distributed import Group
from surface_train.settings import TrainingSettings

THRESHOLDS = tuple(round(0.2 + 0.05 * step, 2) for step in range(11))  # 0.2 … 0.7
TRAINING_THRESHOLD = 0.5  # of validations during a training whose settings name none


@dataclass(frozen=True, kw_only=True)
class Validated:
    """One validation, or one case of it: scores of the masks at one threshold. Means are over cases."""

    threshold: float
    """Of the probability, above which a voxel is surface."""
    score: float
    """The competition's."""
    topo_score: float
    """Its part for topology."""
    surface_dice: float
    """Its part for the surface's place."""
    voi_score: float
    """Its part for the variation of information."""
    dice: float
    """Over the labelled voxels, as is all below."""
    foreground: float
    """Predicted share of surface, 0 to 1."""
    truth: float
    """True share of surface, 0 to 1."""
    variance: float
    """Of the probabilities."""
    entropy: float
    """Mean of the probabilities' binary entropy, in nats."""

    def rounded(self) -> dict[str, float]:
        """Return the numbers as a weights file quotes them."""
        return {name: round(value, 6) for name, value in asdict(self).items()}


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """A case and its field of logits."""

    case: Case
    image: npt.NDArray[np.uint8]
    """The CT, (z, y, x)."""
    label: npt.NDArray[np.uint8]
    """{0, 1, 2}, (z, y, x)."""
    field: Logits
    """Mean logits, float32 (z, y, x)."""
    scanned: npt.NDArray[np.uint8] | None
    """Which voxels were scanned: `volumes.scanned.scanned_bits`; None where the settings do not ask."""
    mask_settings: MaskSettings
    """How masks are made of the field."""
    variance: float
    """Of the probabilities of the labelled voxels that were scanned, 0 where there are none."""
    entropy: float
    """Mean binary entropy of the same, in nats."""

    def mask(self, threshold: float) -> npt.NDArray[np.uint8]:
        """Return the mask at a threshold, uint8 {0, 1} (z, y, x): everything that is scored or drawn is this."""
        return make_mask(self.field, self.scanned, self.mask_settings.with_threshold(threshold))


def predict(
    network: nn.Module, cases: Sequence[Case], *, settings: TrainingSettings, device: Device, group: Group
) -> Iterator[Predicted]:
    """Predict this process's share of the cases as the kernel would on Kaggle, one at a time.

    Args:
        network: on the device; its mode is put back at the end.
        cases: of all processes.
        settings: tile, overlap, intensity, and how masks are made.
        device: where the network runs.
        group: every `size`-th case is this process's.

    Raises:
        CasesError: when a label does not fit its image.
        PredictionError: when logits are not finite.
    """
    own = cases[group.rank :: group.size]
    was_training = network.training
    member = Member(network.eval(), settings.intensity)
    try:
        for case in tqdm(own, desc="validation", unit="volume", leave=False, disable=None if group.primary else True):
            yield _predict_case(member, case, settings=settings, device=device)
    finally:
        network.train(was_training)


def _predict_case(member: Member, case: Case, *, settings: TrainingSettings, device: Device) -> Predicted:
    image, label = case.load()
    grid = Grid(image.shape, settings.patches.shape_zyx, settings.overlap)
    scanned = scanned_bits(image) if settings.mask.clear_unscanned else None
    field, sums = np.empty(image.shape, np.float32), _Sums()
    for start_z, slab in slabs([member], image, grid=grid, device=device, scanned=scanned):
        layers = slice(start_z, start_z + len(slab))
        field[layers] = slab
        counted = label[layers] != UNLABELLED
        if scanned is not None:  # unscanned voxels have the logit of background, whatever the network does
            counted &= unpacked(scanned[layers], image.shape[2])
        sums.add(slab[counted])
    return Predicted(
        case=case,
        image=image,
        label=label,
        field=field,
        scanned=scanned,
        mask_settings=settings.mask,
        variance=sums.variance,
        entropy=sums.entropy,
    )


@dataclass
class _Sums:
    """Sums over the labelled voxels' probabilities so far."""

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


def check(predicted: Sequence[Predicted], threshold: float, group: Group) -> Validated:
    """Score everybody's predictions at a threshold."""
    return mean_validated(group.gather([check_case(row, threshold) for row in predicted]))


def check_case(row: Predicted, threshold: float) -> Validated:
    """Score one prediction at a threshold."""
    scored = score_case(row.mask(threshold), row.label)
    return Validated(
        threshold=threshold,
        score=scored.score,
        topo_score=scored.topo_score,
        surface_dice=scored.surface_dice,
        voi_score=scored.voi_score,
        dice=scored.dice,
        foreground=scored.predicted_share,
        truth=scored.truth_share,
        variance=row.variance,
        entropy=row.entropy,
    )


def mean_validated(rows: Sequence[Validated]) -> Validated:
    """Return the mean of several cases' numbers, all of one threshold."""
    return Validated(**{name: float(np.mean([getattr(row, name) for row in rows])) for name in asdict(rows[0])})


def sweep(predicted: Sequence[Predicted], group: Group) -> list[Validated]:
    """Score everybody's predictions at all of THRESHOLDS."""
    return [check(predicted, threshold, group) for threshold in THRESHOLDS]
