"""Smooth random fields, from which folds, gaps, fibres and noise are made."""

import math

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

Field = npt.NDArray[np.float32]

_TRUNCATE = 3.0  # sigmas
_FIBRES = (24, 160, 192)  # periodic: depth, across the fibres, along them


def smooth(rng: np.random.Generator, shape: tuple[int, ...], sigma: tuple[float, ...]) -> Field:
    """Return blurred white noise of mean 0 and standard deviation 1, without edge effects.

    Mean and deviation are those of the process, not of the sample: a field much smaller than its sigma is nearly a
    constant, drawn from the same normal distribution.

    Args:
        rng: The source of the noise.
        shape: Of the field, in cells.
        sigma: Of the Gaussian blur, in cells, one per axis; 0 leaves an axis white.

    Returns:
        float32 of `shape`.

    Raises:
        ValueError: If there is not one sigma per axis.
    """
    if len(shape) != len(sigma):
        raise ValueError(f"expected one sigma per axis, got {len(sigma)} for {len(shape)} axes")
    margins = [_reach(s) for s in sigma]
    padded = tuple(n + 2 * m for n, m in zip(shape, margins, strict=True))
    noise = rng.standard_normal(padded, dtype=np.float32)
    gaussian_filter(noise, sigma, output=noise, truncate=_TRUNCATE)
    inner = noise[tuple(slice(m, m + n) for n, m in zip(shape, margins, strict=True))]
    return np.ascontiguousarray(inner * np.float32(1.0 / std_after_blur(sigma)))


def periodic(rng: np.random.Generator, shape: tuple[int, ...], sigma: tuple[float, ...]) -> Field:
    """Return a field like that of `smooth`, but periodic: copies of it continue each other across their faces."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    gaussian_filter(noise, sigma, output=noise, mode="wrap", truncate=_TRUNCATE)
    return noise * np.float32(1.0 / std_after_blur(sigma))


def draw_fibres(rng: np.random.Generator) -> Field:
    """Draw the texture of one layer of fibres, float32, periodic: thin, long, with dark pores, about -4 to 2."""
    strands = periodic(rng, _FIBRES, (0.9, 1.3, 16.0))
    grain = periodic(rng, _FIBRES, (0.9, 1.0, 2.5))
    texture = 0.8 * strands + 0.6 * grain
    return (texture - 0.35 * (texture**2 - 1)).astype(np.float32)


def std_after_blur(sigma: tuple[float, ...]) -> float:
    """Return the standard deviation that white noise of standard deviation 1 keeps when blurred by `sigma`."""
    variance = 1.0
    for s in sigma:
        if s > 0:
            weights = np.exp(-0.5 * (np.arange(-_reach(s), _reach(s) + 1) / s) ** 2)
            variance *= float(((weights / weights.sum()) ** 2).sum())
    return math.sqrt(variance)


def _reach(sigma: float) -> int:
    """Return the half-width of scipy's kernel."""
    return int(_TRUNCATE * sigma + 0.5)
