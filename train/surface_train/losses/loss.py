"""The loss: seven terms, each on logits, each over a sample's labelled voxels, then averaged over the samples.

Every term takes `Compared`, a batch of logits beside their truth, and gives one number a sample, shape (batch,). A
sample without a labelled voxel gives 0 in every term, with zero gradient. Label 2 counts nowhere: what is predicted
under it changes nothing and gets a gradient of exactly 0. `loss_weights` says what the terms' weights are worth.

Bytes that a voxel costs, forward and backward, with float32 logits: 22 in a single kernel, which would read logits,
labels and distances twice, once for the sums and once for the gradient, and write the gradient; about 1,090 with the
seven terms made of PyTorch's operations, as benchmarks/loss.py counts them. What several terms need is made once, and
nothing is made for a term without a weight.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from surface_train.data.truth import Truth
from surface_train.loss_weights import LossWeights

_EPSILON = 1e-6
_VOLUME = (1, 2, 3)


@dataclass(frozen=True)
class Compared:
    """Logits beside their truth, and what several terms need of both: each made once, when a term asks for it.

    logits: floating (batch, z, y, x), float32 or wider for steady sums.
    """

    logits: Tensor
    truth: Truth

    @cached_property
    def probability(self) -> Tensor:
        """Give the probability of surface: (batch, z, y, x)."""
        return torch.sigmoid(self.logits)

    @cached_property
    def labelled_probability(self) -> Tensor:
        """Give the probability, and 0 where there is no label."""
        return self.probability * self.truth.labelled

    @cached_property
    def probability_sum(self) -> Tensor:
        """Sum the probability over each sample's labelled voxels: (batch,)."""
        return self.labelled_probability.sum(_VOLUME)

    @cached_property
    def wrongness(self) -> Tensor:
        """Give the logit, turned so that above 0 is wrong: −logit on surface, else the logit."""
        return self.logits * self.truth.sign

    @cached_property
    def cross_entropy(self) -> Tensor:
        """Give −log of the probability of what is true, in nats; as softplus it is steady at both ends."""
        return functional.softplus(self.wrongness)

    @cached_property
    def entropy(self) -> Tensor:
        """Give each sample's mean Bernoulli entropy H in nats: (batch,), from 0 to log 2.

        H = softplus(logit) − p · logit, which is the cross-entropy + logit · (y − p).
        """
        surprise = self.truth.surface - self.probability
        return self.truth.mean(torch.addcmul(self.cross_entropy, self.logits, surprise))

    @cached_property
    def variance(self) -> Tensor:
        """Give the variance of the probability over each sample's labelled voxels: (batch,), from 0 to 0.25."""
        mean = self.probability_sum / self.truth.labelled_count.clamp(min=1)
        deviation = (self.probability - mean[:, None, None, None]) * self.truth.labelled
        return deviation.square().sum(_VOLUME) / self.truth.labelled_count.clamp(min=1)


def dice(compared: Compared, weights: LossWeights) -> Tensor:
    """Soft Dice: 1 − 2 Σ p y / (Σ p + Σ y) (Milletari et al. 2016, with plain sums in the denominator)."""
    truth = compared.truth
    overlap = (compared.probability * truth.surface).sum(_VOLUME)
    whole = compared.probability_sum + truth.surface_count
    return (1 - (2 * overlap + _EPSILON) / (whole + _EPSILON)) * truth.any_labelled


def focal(compared: Compared, weights: LossWeights) -> Tensor:
    """Cross-entropy with easy voxels turned down by (1 − p_true)^gamma (Lin et al. 2017).

    `focal_background` weights the background, 1 − focal_background the surface. The paper's alpha weights the
    foreground instead.
    """
    truth, background = compared.truth, weights.focal_background
    balance = torch.add(background * truth.labelled, truth.surface, alpha=1 - 2 * background)
    # 1 − p_true as a logarithm: as a power, it has no finite slope at 0 for a gamma below 1.
    log_error = compared.wrongness - compared.cross_entropy
    values = balance * torch.exp(weights.focal_gamma * log_error) * compared.cross_entropy
    return values.sum(_VOLUME) / truth.labelled_count.clamp(min=1)


def boundary(compared: Compared, weights: LossWeights) -> Tensor:
    """Cross-entropy weighted by 1 + theta0 exp(−d² / 2 theta²), d the distance to the surface's boundary in voxels.

    The weight map is that of Ronneberger et al. 2015 (equation 2, one border). The sum is divided by that of the
    weights, so that the term is a cross-entropy in size, however much boundary a sample has.
    """
    labelled = compared.truth.labelled
    near = torch.exp(compared.truth.boundary_distance.square() * (-0.5 / weights.boundary_theta_voxels**2))
    weight = torch.addcmul(labelled, labelled, near, value=weights.boundary_theta0)
    return (weight * compared.cross_entropy).sum(_VOLUME) / weight.sum(_VOLUME).clamp(min=_EPSILON)


def cldice(compared: Compared, weights: LossWeights) -> Tensor:
    """1 − clDice (Shit et al. 2021): how far each one's skeleton lies inside the other, at half resolution.

    Half resolution makes it several times cheaper; sheets 3–4 voxels thick are 2 thick there, still enough to thin. Its
    value stays near that of full resolution, its gradient is another one: it falls on the surest voxel of each 2×2×2.
    benchmarks/loss.py prints both.
    """
    truth = compared.truth
    probability = functional.max_pool3d(compared.labelled_probability, 2, 2, ceil_mode=True)
    skeleton = soft_skeleton(probability, weights.cldice_iterations)
    precision = _share((skeleton * truth.halved_surface).sum(_VOLUME), skeleton.sum(_VOLUME))
    sensitivity = _share((truth.skeleton * probability).sum(_VOLUME), truth.skeleton.sum(_VOLUME))
    score = 2 * precision * sensitivity / (precision + sensitivity).clamp(min=_EPSILON)
    return (1 - score) * truth.any_labelled


def connectivity(compared: Compared, weights: LossWeights) -> Tensor:
    """Squared difference of prediction and truth, both widened by one voxel (3×3×3 maximum).

    Widened, a gap of one or two voxels closes: what is left to differ is a sheet that is missing or doubled. After the
    reference's max-pooled agreement; there is no paper behind it.
    """
    truth = compared.truth
    predicted = _widened(compared.labelled_probability)
    return truth.mean(functional.mse_loss(predicted, truth.widened_surface.to(predicted.dtype), reduction="none"))


def variance(compared: Compared, weights: LossWeights) -> Tensor:
    """Punish probabilities that vary too little over a sample, or, when matched, not as the truth does.

    `variance_kind`: "exponential", (1 − var)² + max(0.5 − H, 0); "clamped", `clamped_penalty`; "matched",
    `matched_penalty`. H is the mean entropy in nats. The first two are the guide's, which averages the variance over
    the batch first; the last is ours.
    """
    truth = compared.truth
    if weights.variance_kind == "clamped":
        return clamped_penalty(compared.variance) * truth.any_labelled
    if weights.variance_kind == "matched":
        return matched_penalty(compared.variance, truth.variance) * truth.any_labelled
    shortfall = (0.5 - compared.entropy).clamp(min=0)
    return (exponential_penalty(compared.variance) + shortfall) * truth.any_labelled


def entropy(compared: Compared, weights: LossWeights) -> Tensor:
    """max(target − H, 0), H the mean entropy in nats: predictions surer than the target are punished."""
    return (weights.entropy_target - compared.entropy).clamp(min=0) * compared.truth.any_labelled


def exponential_penalty(variance: Tensor) -> Tensor:
    """(1 − variance)²: called exponential by the guide, a parabola in truth. 0.5625 at the most that p can vary."""
    return (1 - variance).square()


def clamped_penalty(variance: Tensor) -> Tensor:
    """max(0.01 − variance, 0) / 0.01: 1 for a uniform world, 0 with zero gradient from 0.01 on."""
    return (0.01 - variance).clamp(min=0) / 0.01


def matched_penalty(variance: Tensor, wanted: Tensor) -> Tensor:
    """((variance − wanted) / 0.25)²: 0 where the prediction varies as the truth does, at most 1."""
    return ((variance - wanted) / 0.25).square()


def probability_variance(logits: Tensor, truth: Truth) -> Tensor:
    """Give the variance of the probabilities over each sample's labelled voxels: (batch,), from 0 to 0.25.

    logits: floating (batch, z, y, x). 0 for a sample without a label.
    """
    return Compared(logits, truth).variance


Term = Callable[[Compared, LossWeights], Tensor]
TERMS: dict[str, Term] = {
    "dice": dice,
    "focal": focal,
    "boundary": boundary,
    "cldice": cldice,
    "connectivity": connectivity,
    "variance": variance,
    "entropy": entropy,
}


def total(logits: Tensor, truth: Truth, weights: LossWeights) -> tuple[Tensor, dict[str, Tensor]]:
    """Give the weighted sum of the terms, and every term that has a weight, detached: numbers without dimensions.

    logits: (batch, 1, z, y, x), of any floating dtype; computed in float32 at least. Raises ValueError when the logits
    do not have the labels' shape, or the truth's skeletons another number of iterations than the weights.
    """
    if weights.cldice_weight > 0 and truth.skeleton_iterations != weights.cldice_iterations:
        found, wanted = truth.skeleton_iterations, weights.cldice_iterations
        raise ValueError(f"truth.skeleton_iterations: found {found}, wanted loss.cldice_iterations, {wanted}")
    compared = _compared(logits, truth)
    loss = compared.logits.new_zeros(())
    parts: dict[str, Tensor] = {}
    for name, term in TERMS.items():
        weight = getattr(weights, f"{name}_weight")
        if weight > 0:
            value = term(compared, weights).mean()
            loss = loss + weight * value
            parts[name] = value.detach()
    return loss, parts


def deep_total(outputs: Sequence[Tensor], truth: Truth, weights: LossWeights) -> tuple[Tensor, dict[str, Tensor]]:
    """Give the loss of a network with deep supervision, and the terms of its full resolution, as `total` does.

    outputs: logits (batch, 1, z, y, x), the first at the labels' resolution, the others each at half the one before,
    by strides: a side of n voxels becomes (n + 1) // 2. Those are compared with every second, fourth … label by half
    soft Dice and half mean cross-entropy. Weights 1, 1/2, 1/4 …, divided by their sum (as nnU-Net has them, which
    leaves the coarsest output out; here that is the caller's choice). Raises ValueError as `total` does.
    """
    value, parts = total(outputs[0], truth, weights)
    for level, output in enumerate(outputs[1:], start=1):
        value = value + 0.5**level * _coarse(output, truth, weights)
    return value / sum(0.5**level for level in range(len(outputs))), parts


def _coarse(logits: Tensor, truth: Truth, weights: LossWeights) -> Tensor:
    # The power of two that makes so many voxels of so many: 10 become 5, then 3.
    strides = (
        1 << ((fine - 1) // coarse).bit_length()
        for fine, coarse in zip(truth.labels.shape[1:], logits.shape[2:], strict=True)
    )
    labels = truth.labels[(slice(None), *(slice(None, None, stride) for stride in strides))]
    compared = _compared(logits, Truth(labels))
    return (0.5 * dice(compared, weights) + 0.5 * compared.truth.mean(compared.cross_entropy)).mean()


def _compared(logits: Tensor, truth: Truth) -> Compared:
    batch, *shape_zyx = truth.labels.shape
    if logits.shape != (batch, 1, *shape_zyx):
        raise ValueError(f"logits: found {tuple(logits.shape)}, wanted {(batch, 1, *shape_zyx)} for these labels")
    return Compared(logits[:, 0].to(torch.promote_types(logits.dtype, torch.float32)), truth)


def soft_skeleton(image: Tensor, iterations: int) -> Tensor:
    """Thin a soft image (batch, z, y, x) in [0, 1] by repeated soft opening (Shit et al. 2021, algorithm 1)."""
    eroded = _eroded(image)
    skeleton = functional.relu(image - _widened(eroded))
    for _ in range(iterations):
        image, eroded = eroded, _eroded(eroded)
        rest = functional.relu(image - _widened(eroded))
        skeleton = skeleton + functional.relu(rest - skeleton * rest)
    return skeleton


_LINES = ((3, 1, 1), (1, 3, 1), (1, 1, 3))


def _eroded(image: Tensor) -> Tensor:
    """Take the minimum over the six-neighbourhood, as three 1-D minima."""
    turned = -image
    z, y, x = (functional.max_pool3d(turned, line, 1, tuple(size // 2 for size in line)) for line in _LINES)
    return -torch.maximum(torch.maximum(z, y), x)


def _widened(image: Tensor) -> Tensor:
    """Take the maximum over the 3×3×3 box; in one, it keeps one table of places for the gradient instead of three."""
    return functional.max_pool3d(image, 3, 1, 1)


def _share(part: Tensor, whole: Tensor) -> Tensor:
    return (part + _EPSILON) / (whole + _EPSILON)
