"""Smooth random fields: the stuff of which folds, gaps, fibres and noise are made."""

import math

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

Field = npt.NDArray[np.float32]

_TRUNCATE = 3.0  # sigmas


def smooth(rng: np.random.Generator, shape: tuple[int, ...], sigma: tuple[float, ...]) -> Field:
    """White noise blurred by `sigma` cells an axis, scaled to mean 0 and standard deviation 1: float32 of `shape`.

    The statistics are those of the process, not of the sample: a field much smaller than its sigma is nearly a
    constant, drawn from the same normal distribution. sigma 0 leaves an axis white. No edge effects.
    """
    if len(shape) != len(sigma):
        raise ValueError(f"found {len(sigma)} sigmas for {len(shape)} axes, wanted one an axis")
    margins = [_reach(s) for s in sigma]
    padded = tuple(n + 2 * m for n, m in zip(shape, margins, strict=True))
    noise = rng.standard_normal(padded, dtype=np.float32)
    gaussian_filter(noise, sigma, output=noise, truncate=_TRUNCATE)
    inner = noise[tuple(slice(m, m + n) for n, m in zip(shape, margins, strict=True))]
    return np.ascontiguousarray(inner * np.float32(1.0 / spread_after_blur(sigma)))


def periodic(rng: np.random.Generator, shape: tuple[int, ...], sigma: tuple[float, ...]) -> Field:
    """As `smooth`, but the field continues itself across its faces, so that it can be laid side by side."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    gaussian_filter(noise, sigma, output=noise, mode="wrap", truncate=_TRUNCATE)
    return noise * np.float32(1.0 / spread_after_blur(sigma))


def spread_after_blur(sigma: tuple[float, ...]) -> float:
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
