"""The loss: seven terms, each on logits, each over a sample's labelled voxels, then averaged over the samples.

Every term takes `Truth`, which holds the labels and what is made from them once, and gives one number a sample, shape
(batch,). A sample without a labelled voxel gives 0 in every term, with zero gradient. Label 2 counts nowhere.

The weights in `settings.LossWeights` are the rebalanced loss. Two of its terms need to be read with care:
- The variance of numbers in [0, 1] is at most 0.25, so `variance` never falls below (1 − 0.25)² = 0.5625: it is a
  constant pull towards a world of half surface, half background, at which it stops being a loss that can be met.
- `entropy` is punished twice, once inside `variance` and once as a term of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor
from torch.nn import functional

from surface_train.settings import LossWeights

_EPSILON = 1e-6


@dataclass
class Truth:
    """Labels of a batch, uint8 {0, 1, 2} (batch, z, y, x), and what the terms need to know of them."""

    labels: Tensor
    skeleton_iterations: int = 3

    @cached_property
    def labelled(self) -> Tensor:
        """Give 1.0 where a voxel is labelled, else 0.0."""
        return (self.labels != 2).float()

    @cached_property
    def surface(self) -> Tensor:
        """Give 1.0 where a voxel is labelled as surface, else 0.0."""
        return (self.labels == 1).float()

    @cached_property
    def boundary_distance(self) -> Tensor:
        """Give every voxel's distance in voxels to the nearest voxel labelled as the other kind: float32.

        Label 2 is neither kind: where the annotation ends there is no boundary. Large where the other kind is missing.
        """
        labels = self.labels.cpu().numpy()
        return torch.from_numpy(np.stack([_boundary_distance(sample) for sample in labels])).to(self.labels.device)

    @cached_property
    def skeleton(self) -> Tensor:
        """Give the soft skeleton of the surface at half resolution, without gradients."""
        with torch.no_grad():
            return soft_skeleton(_halved(self.surface), self.skeleton_iterations)

    def mean(self, values: Tensor) -> Tensor:
        """Average values over each sample's labelled voxels: (batch, z, y, x) to (batch,)."""
        return (values * self.labelled).sum((1, 2, 3)) / self.labelled.sum((1, 2, 3)).clamp(min=1)


def _boundary_distance(labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return np.where(labels == 1, _distance_to(labels == 0), _distance_to(labels == 1))


def _distance_to(kind: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    if not kind.any():
        return np.full(kind.shape, 1e6, np.float32)
    distance: npt.NDArray[np.float64] = distance_transform_edt(~kind)
    return distance.astype(np.float32)


def dice(logits: Tensor, truth: Truth, weights: LossWeights) -> Tensor:
    """Soft Dice: 1 − 2 Σ p y / (Σ p + Σ y) (Milletari et al. 2016, with plain sums in the denominator)."""
    probability = torch.sigmoid(logits) * truth.labelled
    overlap = (probability * truth.surface).sum((1, 2, 3))
    total = probability.sum((1, 2, 3)) + truth.surface.sum((1, 2, 3))
    score = (2 * overlap + _EPSILON) / (total + _EPSILON)
    return (1 - score) * _any(truth.labelled)


def focal(logits: Tensor, truth: Truth, weights: LossWeights) -> Tensor:
    """Cross-entropy with easy voxels turned down by (1 − p_true)^gamma (Lin et al. 2017).

    `focal_background` weights the background, 1 − focal_background the surface. The paper's alpha weights the
    foreground instead; the guide that this loss comes from means the background by its 0.75.
    """
    entropy = functional.binary_cross_entropy_with_logits(logits, truth.surface, reduction="none")
    balance = weights.focal_background + (1 - 2 * weights.focal_background) * truth.surface
    # 1 − p_true as a logarithm: a power of 1 − exp(−entropy) has no finite slope at 0 for a gamma below 1.
    log_error = functional.logsigmoid(logits * (1 - 2 * truth.surface))
    return truth.mean(balance * torch.exp(weights.focal_gamma * log_error) * entropy)


def boundary(logits: Tensor, truth: Truth, weights: LossWeights) -> Tensor:
    """Cross-entropy weighted by 1 + theta0 exp(−d² / 2 theta²), d the distance to the surface's boundary in voxels.

    The weight map is that of Ronneberger et al. 2015 (equation 2, one border).
    """
    entropy = functional.binary_cross_entropy_with_logits(logits, truth.surface, reduction="none")
    near = torch.exp(-0.5 * (truth.boundary_distance / weights.boundary_theta_voxels) ** 2)
    weight = 1 + weights.boundary_theta0 * near
    return truth.mean(weight * entropy) / truth.mean(weight).clamp(min=_EPSILON)


def cldice(logits: Tensor, truth: Truth, weights: LossWeights) -> Tensor:
    """1 − clDice (Shit et al. 2021): how far each one's skeleton lies inside the other, at half resolution.

    Half resolution makes it eight times cheaper; sheets 3–4 voxels thick are 2 thick there, still enough to thin.
    """
    probability = _halved(torch.sigmoid(logits) * truth.labelled)
    skeleton = soft_skeleton(probability, weights.cldice_iterations)
    surface = _halved(truth.surface)
    precision = ((skeleton * surface).sum((1, 2, 3)) + _EPSILON) / (skeleton.sum((1, 2, 3)) + _EPSILON)
    sensitivity = ((truth.skeleton * probability).sum((1, 2, 3)) + _EPSILON) / (
        truth.skeleton.sum((1, 2, 3)) + _EPSILON
    )
    return (1 - 2 * precision * sensitivity / (precision + sensitivity).clamp(min=_EPSILON)) * _any(truth.labelled)


def connectivity(logits: Tensor, truth: Truth, weights: LossWeights) -> Tensor:
    """Squared difference of prediction and truth, both widened by one voxel (3×3×3 maximum).

    Widened, a gap of one or two voxels closes: what is left to differ is a sheet that is missing or doubled.
    """
    predicted = _widened(torch.sigmoid(logits) * truth.labelled)
    return truth.mean((predicted - _widened(truth.surface)) ** 2)


def variance(logits: Tensor, truth: Truth, weights: LossWeights) -> Tensor:
    """(1 − var p)² + max(0.5 − H, 0), var and mean entropy H (nats) over a sample's labelled voxels."""
    probability = torch.sigmoid(logits)
    spread = probability_variance(logits, truth)
    shortfall = (0.5 - truth.mean(_entropy(logits, probability))).clamp(min=0)
    return ((1 - spread) ** 2 + shortfall) * _any(truth.labelled)


def entropy(logits: Tensor, truth: Truth, weights: LossWeights) -> Tensor:
    """max(target − H, 0), H the mean entropy in nats: predictions surer than the target are punished."""
    mean = truth.mean(_entropy(logits, torch.sigmoid(logits)))
    return (weights.entropy_target - mean).clamp(min=0) * _any(truth.labelled)


def probability_variance(logits: Tensor, truth: Truth) -> Tensor:
    """Give the variance of the probabilities over each sample's labelled voxels: (batch,), from 0 to 0.25."""
    probability = torch.sigmoid(logits)
    mean = truth.mean(probability)[:, None, None, None]
    return truth.mean((probability - mean) ** 2)


Term = Callable[[Tensor, Truth, LossWeights], Tensor]
TERMS: dict[str, Term] = {
    "dice": dice,
    "focal": focal,
    "boundary": boundary,
    "cldice": cldice,
    "connectivity": connectivity,
    "variance": variance,
    "entropy": entropy,
}


def total(logits: Tensor, labels: Tensor, weights: LossWeights) -> tuple[Tensor, dict[str, Tensor]]:
    """Give the weighted sum of the terms, and every term that has a weight, detached.

    logits: (batch, 1, z, y, x), of any floating dtype; computed in float32. labels: uint8 (batch, z, y, x).
    """
    truth = Truth(labels, weights.cldice_iterations)
    wide = logits[:, 0].float()
    loss = wide.new_zeros(())
    parts: dict[str, Tensor] = {}
    for name, term in TERMS.items():
        weight = getattr(weights, f"{name}_weight")
        if weight > 0:
            value = term(wide, truth, weights).mean()
            loss = loss + weight * value
            parts[name] = value.detach()
    return loss, parts


def soft_skeleton(image: Tensor, iterations: int) -> Tensor:
    """Thin a soft image (batch, z, y, x) in [0, 1] by repeated soft opening (Shit et al. 2021, algorithm 1)."""
    skeleton = functional.relu(image - _opened(image))
    for _ in range(iterations):
        image = _eroded(image)
        rest = functional.relu(image - _opened(image))
        skeleton = skeleton + functional.relu(rest - skeleton * rest)
    return skeleton


_LINES = ((3, 1, 1), (1, 3, 1), (1, 1, 3))


def _line_maximum(image: Tensor, line: tuple[int, int, int]) -> Tensor:
    return functional.max_pool3d(image, line, 1, tuple(size // 2 for size in line))


def _eroded(image: Tensor) -> Tensor:
    """Take the minimum over the six-neighbourhood, as three 1-D minima."""
    z, y, x = (_line_maximum(-image, line) for line in _LINES)
    return -torch.maximum(torch.maximum(z, y), x)


def _widened(image: Tensor) -> Tensor:
    """Take the maximum over the 3×3×3 box, as three 1-D maxima in turn."""
    for line in _LINES:
        image = _line_maximum(image, line)
    return image


def _opened(image: Tensor) -> Tensor:
    return _widened(_eroded(image))


def _halved(image: Tensor) -> Tensor:
    return functional.max_pool3d(image, 2, 2, ceil_mode=True)


def _entropy(logits: Tensor, probability: Tensor) -> Tensor:
    """Entropy of a Bernoulli variable in nats, from its logit: softplus(logit) − p · logit, steady at both ends."""
    return functional.softplus(logits) - probability * logits


def _any(labelled: Tensor) -> Tensor:
    return (labelled.sum((1, 2, 3)) > 0).float()
