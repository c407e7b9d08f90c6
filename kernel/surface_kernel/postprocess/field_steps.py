"""The steps that read a field of logits: it is smoothed, and a mask made of it."""

import cc3d
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from surface_kernel.postprocess.steps import TRUNCATE_SIGMAS
from surface_kernel.probability import above

Mask = npt.NDArray[np.uint8]
Field = npt.NDArray[np.float32]


def smooth(field: Field, sigma: float) -> Field:
    """Return a field of logits blurred by a Gaussian; outside it its edge is repeated.

    Args:
        field: float32 (z, y, x).
        sigma: of the Gaussian, in voxels; it is cut off at 3 sigma.
    """
    return ndimage.gaussian_filter(field, sigma, mode="nearest", truncate=TRUNCATE_SIGMAS)  # type: ignore[no-any-return]


def hysteresis(field: Field, low: float, high: float) -> Mask:
    """Return where the probability is above `low`, those pieces alone that reach above `high` somewhere.

    Args:
        field: logits, float32 (z, y, x).
        low: a probability. Pieces are 26-connected.
        high: a larger one.

    Returns:
        uint8 {0, 1}, (z, y, x).
    """
    mask = above(field, low)
    labels, count = cc3d.connected_components(mask, connectivity=26, return_N=True)
    kept = np.zeros(count + 1, np.uint8)
    kept[labels[above(field, high) == 1]] = 1
    kept[0] = 0
    np.take(kept, labels, out=mask)
    return mask
