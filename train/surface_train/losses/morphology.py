"""Erosion, dilation and thinning of soft images: minima and maxima over neighbours, with gradients."""

from torch import Tensor, maximum
from torch.nn import functional

_LINES = ((3, 1, 1), (1, 3, 1), (1, 1, 3))


def soft_skeleton(image: Tensor, iterations: int) -> Tensor:
    """Return the soft skeleton of an image, by repeated soft opening (Shit et al. 2021, algorithm 1).

    Args:
        image: floating in [0, 1], (batch, z, y, x).
        iterations: number of erosions; what is thicker than twice as many voxels is not thinned to the end.

    Returns:
        The skeleton, of the same shape and dtype.
    """
    eroded = erode(image)
    skeleton = functional.relu(image - dilate(eroded))
    for _ in range(iterations):
        image, eroded = eroded, erode(eroded)
        rest = functional.relu(image - dilate(eroded))
        # Union of soft sets, a + b − a·b: no value grows above 1.
        skeleton = skeleton + functional.relu(rest - skeleton * rest)
    return skeleton


def erode(image: Tensor) -> Tensor:
    """Return the minimum over each voxel and its six neighbours, as three 1-D minima: (batch, z, y, x)."""
    # There is no min_pool3d.
    turned = -image
    z, y, x = (functional.max_pool3d(turned, line, 1, tuple(size // 2 for size in line)) for line in _LINES)
    return -maximum(maximum(z, y), x)


def dilate(image: Tensor) -> Tensor:
    """Return the maximum over the 3×3×3 box around each voxel: (batch, z, y, x)."""
    # One pooling, not three 1-D ones: the gradient keeps one table of positions instead of three.
    return functional.max_pool3d(image, 3, 1, 1)
