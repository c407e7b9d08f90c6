"""From logits to a mask: the one place where logits become probabilities."""

import math

import cc3d
import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.uint8]


def probability(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Give the probability of surface, 1 / (1 + exp(−logit)): float32, the logits' shape."""
    with np.errstate(over="ignore"):  # exp(89) is inf in float32, and 1 / inf is the 0 that is meant
        return np.reciprocal(np.exp(-logits) + np.float32(1))


def logit(threshold: float) -> float:
    """Give the logit at which the probability equals `threshold`, 0 < threshold < 1."""
    return math.log(threshold / (1 - threshold))


def above(logits: npt.NDArray[np.float32], threshold: float) -> Mask:
    """Give 1 where the probability is above `threshold`, else 0. Compared as logits: nothing is exponentiated."""
    return (logits > np.float32(logit(threshold))).view(np.uint8)


def drop_dust(mask: Mask, dust_voxels: int) -> Mask:
    """Drop the 26-connected components of fewer than `dust_voxels` voxels. 0 or 1 drops nothing."""
    if dust_voxels <= 1 or not mask.any():
        return mask
    # Not binary_image=True: with it cc3d 4.1.1 raises on single voxels that fill an odd thin axis.
    return np.ascontiguousarray(cc3d.dust(mask, threshold=dust_voxels, connectivity=26), np.uint8)
