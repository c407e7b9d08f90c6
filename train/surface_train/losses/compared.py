"""A batch of logits beside its truth, and what several terms of the loss need of both."""

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor, sigmoid
from torch.nn import functional

from surface_train.data.truth import Truth

VOLUME = (1, 2, 3)
"""The axes of a sample, in (batch, z, y, x)."""


@dataclass(frozen=True)
class Compared:
    """Logits beside their truth; what is derived of them is made once, and only when a term asks for it."""

    logits: Tensor
    """Floating (batch, z, y, x); float32 or wider, for accurate sums."""

    truth: Truth
    """Labels of the same shape, and their maps."""

    @cached_property
    def probability(self) -> Tensor:
        """Return the probability of surface: (batch, z, y, x)."""
        return sigmoid(self.logits)

    @cached_property
    def labelled_probability(self) -> Tensor:
        """Return the probability, and 0 where there is no label."""
        return self.probability * self.truth.labelled

    @cached_property
    def probability_sum(self) -> Tensor:
        """Return the sum of the probability over each sample's labelled voxels: (batch,)."""
        return self.labelled_probability.sum(VOLUME)

    @cached_property
    def wrongness(self) -> Tensor:
        """Return the logit with the sign that makes it above 0 where it is wrong: −logit on surface, else the logit."""
        return self.logits * self.truth.sign

    @cached_property
    def cross_entropy(self) -> Tensor:
        """Return −log of the probability of the true kind, in nats; as softplus it is accurate at both ends."""
        return functional.softplus(self.wrongness)

    @cached_property
    def entropy(self) -> Tensor:
        """Return each sample's mean Bernoulli entropy H in nats: (batch,), from 0 to log 2.

        H = softplus(logit) − p · logit, which is the cross-entropy + logit · (y − p).
        """
        surprise = self.truth.surface - self.probability
        return self.truth.mean(self.cross_entropy.addcmul(self.logits, surprise))

    @cached_property
    def variance(self) -> Tensor:
        """Return the variance of the probability over each sample's labelled voxels: (batch,), from 0 to 0.25."""
        mean = self.probability_sum / self.truth.labelled_count.clamp(min=1)
        deviation = (self.probability - mean[:, None, None, None]) * self.truth.labelled
        return deviation.square().sum(VOLUME) / self.truth.labelled_count.clamp(min=1)
