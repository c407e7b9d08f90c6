"""The one place where logits become probabilities."""

import math

import numpy as np
import numpy.typing as npt


def probabilities(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the probability of surface, 1 / (1 + exp(−logit)): float32, of the logits' shape."""
    with np.errstate(over="ignore"):  # exp(89) is inf in float32, and 1 / inf is the 0 that is meant
        return np.reciprocal(np.exp(-logits) + np.float32(1))


def logit(threshold: float) -> float:
    """Return the logit at which the probability equals `threshold`, 0 < threshold < 1."""
    return math.log(threshold / (1 - threshold))


def above(logits: npt.NDArray[np.float32], threshold: float) -> npt.NDArray[np.uint8]:
    """Return 1 where the probability is above `threshold`, else 0. Compared as logits: nothing is exponentiated."""
    return (logits > np.float32(logit(threshold))).view(np.uint8)
