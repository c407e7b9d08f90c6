"""The loss: the weighted sum of its terms, each averaged over the samples, and that of a deeply supervised network.

Bytes that a voxel costs, forward and backward, with float32 logits: 22 in a single kernel, which would read logits,
labels and distances twice, once for the sums and once for the gradient, and write the gradient; about 1,090 with the
seven terms made of PyTorch's operations, as benchmarks/loss.py counts them. What several terms need is made once, and
nothing is made for a term without a weight.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from surface_train.data.truth import Truth
from surface_train.loss_weights import LossWeights
from surface_train.losses.compared import Compared
from surface_train.losses.terms import dice, weighted_terms


def total(logits: Tensor, truth: Truth, weights: LossWeights) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the weighted sum of the terms, and every term that has a weight.

    Args:
        logits: (batch, 1, z, y, x), of any floating dtype; computed in float32 at least.
        truth: labels of the same shape.
        weights: of the terms; those with 0 are not computed.

    Returns:
        The loss, a scalar without dimensions, and the terms by name, detached scalars.

    Raises:
        ValueError: when logits or maps do not have the labels' shape.
    """
    compared = _compared(logits, truth)
    loss = compared.logits.new_zeros(())
    parts: dict[str, Tensor] = {}
    for name, term in weighted_terms(weights).items():
        value = term.value(compared, weights).mean()
        loss = loss + weights.by_term[name] * value
        parts[name] = value.detach()
    return loss, parts


def deep_total(outputs: Sequence[Tensor], truth: Truth, weights: LossWeights) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss of a network with deep supervision, and the terms of its full resolution.

    Coarser outputs are compared with every second, fourth … label by half soft Dice and half mean cross-entropy. The
    outputs weigh 1, 1/2, 1/4 …, divided by their sum (as nnU-Net has them, which leaves the coarsest output out; here
    that is the caller's choice).

    Args:
        outputs: logits (batch, 1, z, y, x), the first at the labels' resolution, each other one at half that of the
            one before, by strides: a side of n voxels becomes (n + 1) // 2.
        truth: labels at full resolution.
        weights: of the terms, at full resolution.

    Returns:
        As `total`.

    Raises:
        ValueError: as `total`.
    """
    value, parts = total(outputs[0], truth, weights)
    for level, output in enumerate(outputs[1:], start=1):
        value = value + 0.5**level * _coarse(output, truth, weights)
    return value / sum(0.5**level for level in range(len(outputs))), parts


def probability_variance(logits: Tensor, truth: Truth) -> Tensor:
    """Return the variance of the probabilities over each sample's labelled voxels: (batch,), from 0 to 0.25.

    Args:
        logits: floating (batch, z, y, x).
        truth: labels of the same shape. A sample without a label gives 0.
    """
    return Compared(logits, truth).variance


def _coarse(logits: Tensor, truth: Truth, weights: LossWeights) -> Tensor:
    # The power of two that makes so many voxels of so many: 10 become 5, then 3.
    strides = (
        1 << ((fine - 1) // coarse).bit_length()
        for fine, coarse in zip(truth.labels.shape[1:], logits.shape[2:], strict=True)
    )
    # Every n-th label, as nnU-Net does: a mean of labels would be none of 0, 1 and 2.
    labels = truth.labels[(slice(None), *(slice(None, None, stride) for stride in strides))]
    compared = _compared(logits, Truth(labels))
    return (0.5 * dice(compared, weights) + 0.5 * compared.truth.mean(compared.cross_entropy)).mean()


def _compared(logits: Tensor, truth: Truth) -> Compared:
    batch, *shape_zyx = truth.labels.shape
    if logits.shape != (batch, 1, *shape_zyx):
        raise ValueError(f"logits: expected {(batch, 1, *shape_zyx)} for these labels, got {tuple(logits.shape)}")
    return Compared(logits[:, 0].to(torch.promote_types(logits.dtype, torch.float32)), truth)
