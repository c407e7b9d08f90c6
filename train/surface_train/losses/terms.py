"""The terms of the loss, each on logits and over a sample's labelled voxels, and their table.

Every term takes `Compared` and returns one number for each sample, (batch,). A sample without a labelled voxel gives 0,
with zero gradient. Label 2 counts nowhere: what is predicted under it changes nothing and gets a gradient of exactly 0.

To add a term: a function here, its row in TERMS, and `{name}_weight` in LossWeights.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from surface_train.data.maps import DISTANCE, LabelMap, skeleton_map
from surface_train.loss_weights import LossWeights
from surface_train.losses.compared import VOLUME, Compared
from surface_train.losses.morphology import dilate, soft_skeleton

_EPSILON = 1e-6


def dice(compared: Compared, weights: LossWeights) -> Tensor:
    """Return soft Dice's 1 − 2 Σ p y / (Σ p + Σ y) (Milletari et al. 2016, with plain sums in the denominator)."""
    truth = compared.truth
    overlap = (compared.probability * truth.surface).sum(VOLUME)
    whole = compared.probability_sum + truth.surface_count
    return (1 - (2 * overlap + _EPSILON) / (whole + _EPSILON)) * truth.any_labelled


def focal(compared: Compared, weights: LossWeights) -> Tensor:
    """Return the cross-entropy, easy voxels scaled down by (1 − p_true)^gamma (Lin et al. 2017).

    `focal_background` weights the background, 1 − focal_background the surface. The paper's alpha weights the
    foreground instead.
    """
    truth, background = compared.truth, weights.focal_background
    # One map in place of two: w on background and 1 − w on surface, 0 where nothing is labelled.
    balance = torch.add(background * truth.labelled, truth.surface, alpha=1 - 2 * background)
    # 1 − p_true as a logarithm: as a power, it has no finite slope at 0 for a gamma below 1.
    log_error = compared.wrongness - compared.cross_entropy
    values = balance * torch.exp(weights.focal_gamma * log_error) * compared.cross_entropy
    return values.sum(VOLUME) / truth.labelled_count.clamp(min=1)


def boundary(compared: Compared, weights: LossWeights) -> Tensor:
    """Return the cross-entropy weighted by 1 + theta0 exp(−d² / 2 theta²), d the distance to the boundary in voxels.

    The weight map is that of Ronneberger et al. 2015 (equation 2, one border). The sum is divided by that of the
    weights, so that the term is a cross-entropy in size, however much boundary a sample has.
    """
    labelled = compared.truth.labelled
    # FAR_VOXELS squared is still finite in float32, and its exponential 0.
    near = torch.exp(compared.truth.map(DISTANCE).square() * (-0.5 / weights.boundary_theta_voxels**2))
    weight = torch.addcmul(labelled, labelled, near, value=weights.boundary_theta0)
    return (weight * compared.cross_entropy).sum(VOLUME) / weight.sum(VOLUME).clamp(min=_EPSILON)


def cldice(compared: Compared, weights: LossWeights) -> Tensor:
    """Return 1 − clDice (Shit et al. 2021): how far each one's skeleton lies inside the other, at half resolution.

    Half resolution makes it several times cheaper; sheets 3–4 voxels thick are 2 thick there, still enough to thin. Its
    value stays near that of full resolution, its gradient is another one: it falls on the surest voxel of each 2×2×2.
    benchmarks/loss.py prints both.
    """
    truth = compared.truth
    true_skeleton = truth.map(skeleton_map(weights.cldice_iterations)).float()
    probability = functional.max_pool3d(compared.labelled_probability, 2, 2, ceil_mode=True)
    skeleton = soft_skeleton(probability, weights.cldice_iterations)
    precision = _share((skeleton * truth.halved_surface).sum(VOLUME), skeleton.sum(VOLUME))
    sensitivity = _share((true_skeleton * probability).sum(VOLUME), true_skeleton.sum(VOLUME))
    score = 2 * precision * sensitivity / (precision + sensitivity).clamp(min=_EPSILON)
    return (1 - score) * truth.any_labelled


def connectivity(compared: Compared, weights: LossWeights) -> Tensor:
    """Return the mean squared difference of prediction and truth, both dilated by one voxel (3×3×3 maximum).

    Dilated, a gap of one or two voxels closes: what is left to differ is a sheet that is missing or doubled. After the
    reference's max-pooled agreement; there is no paper behind it.
    """
    truth = compared.truth
    predicted = dilate(compared.labelled_probability)
    return truth.mean(functional.mse_loss(predicted, truth.dilated_surface.to(predicted.dtype), reduction="none"))


def variance(compared: Compared, weights: LossWeights) -> Tensor:
    """Return a penalty on probabilities that vary too little over a sample or, "matched", not as the truth does.

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
    """Return max(target − H, 0), H the mean entropy in nats: predictions surer than the target are penalised."""
    return (weights.entropy_target - compared.entropy).clamp(min=0) * compared.truth.any_labelled


def exponential_penalty(variance: Tensor) -> Tensor:
    """Return (1 − variance)², the guide's "exponential" parabola: at least 0.5625, as p varies by 0.25 at most."""
    return (1 - variance).square()


def clamped_penalty(variance: Tensor) -> Tensor:
    """Return max(0.01 − variance, 0) / 0.01: 1 for a uniform prediction, 0 with zero gradient from 0.01 on."""
    return (0.01 - variance).clamp(min=0) / 0.01


def matched_penalty(variance: Tensor, wanted: Tensor) -> Tensor:
    """Return ((variance − wanted) / 0.25)²: 0 where the prediction varies as the truth does, at most 1."""
    return ((variance - wanted) / 0.25).square()


def _share(part: Tensor, whole: Tensor) -> Tensor:
    return (part + _EPSILON) / (whole + _EPSILON)


@dataclass(frozen=True, kw_only=True)
class Term:
    """A row of the table of terms."""

    value: Callable[[Compared, LossWeights], Tensor]
    """Return one number for each sample: (batch,)."""

    maps: Callable[[LossWeights], tuple[LabelMap, ...]] = lambda weights: ()
    """Return the maps of the label that the term reads, which the loader then makes."""


TERMS = {
    "dice": Term(value=dice),
    "focal": Term(value=focal),
    "boundary": Term(value=boundary, maps=lambda weights: (DISTANCE,)),
    "cldice": Term(value=cldice, maps=lambda weights: (skeleton_map(weights.cldice_iterations),)),
    "connectivity": Term(value=connectivity),
    "variance": Term(value=variance),
    "entropy": Term(value=entropy),
}
"""The terms by name; `LossWeights.by_term` has the same names. Losses are added up, and logged, in this order."""


def weighted_terms(weights: LossWeights) -> dict[str, Term]:
    """Return the terms that have a weight, by name."""
    return {name: TERMS[name] for name in TERMS if weights.by_term[name] > 0}


def label_maps(weights: LossWeights) -> tuple[LabelMap, ...]:
    """Return the maps that the terms with a weight read, each once."""
    kinds = {kind.name: kind for term in weighted_terms(weights).values() for kind in term.maps(weights)}
    return tuple(kinds.values())
