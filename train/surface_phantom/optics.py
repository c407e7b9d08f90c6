"""The scan: from papyrus to grey values, with the artefacts of a tomograph."""

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from surface_phantom.fields import Field, smooth, std_after_blur
from surface_phantom.looks import Look

Image = npt.NDArray[np.uint8]

_COARSE = 16  # voxels between the nodes of slow changes in brightness


def scan(rng: np.random.Generator, density: Field, look: Look) -> Image:
    """Return the scan of a volume: uint8 grey values (z, y, x).

    Args:
        rng: The source of noise, rings and specks.
        density: float32 (z, y, x), 0 for air and about 1 for papyrus. It is overwritten, to save memory: two more
            float32 copies are held at the peak.
        look: Blur, noise and grey values.
    """
    add_specks(rng, density, look.specks)
    sharp = blur(density, look)
    make_noise(rng, density, look)
    image = np.empty(density.shape, np.uint8)
    slices = zip(
        sharp, density, slow(rng, density.shape), slow(rng, density.shape), rings(rng, density.shape), strict=True
    )
    for z, (papyrus, noise, dense, beam, ring) in enumerate(slices):
        # Papyrus is not equally dense everywhere, nor is the beam equally bright.
        grey = look.air + look.contrast * papyrus * (1 + 0.08 * dense) + 2 * beam + look.noise * noise
        image[z] = np.clip(np.rint(grey + look.rings * ring), 0, 255)
    return image


def add_specks(rng: np.random.Generator, density: Field, per_million: float) -> None:
    """Add bright grains of 1-2 voxels to the papyrus, in place; those that would hang in the air are left out."""
    count = rng.poisson(per_million * 4 * density.size / 1e6)
    reach = 5
    for _ in range(count):
        centre = [int(rng.integers(reach, n - reach)) for n in density.shape]
        radius, height = float(rng.uniform(0.8, 2.0)), float(rng.uniform(0.6, 1.8))
        squash = rng.uniform(0.6, 1.5, 3)
        if density[tuple(centre)] < 0.5:
            continue
        box = tuple(slice(c - reach, c + reach + 1) for c in centre)
        z, y, x = np.ogrid[-reach : reach + 1, -reach : reach + 1, -reach : reach + 1]
        distance = (z / squash[0]) ** 2 + (y / squash[1]) ** 2 + (x / squash[2]) ** 2
        density[box] += (height * np.exp(-distance / (2 * radius**2))).astype(np.float32)


def blur(density: Field, look: Look) -> Field:
    """Return the density blurred by the point-spread function; edges overshoot, bright inside and dark outside."""
    sharp: Field = gaussian_filter(density, look.blur, truncate=3.0)
    wide = gaussian_filter(sharp, look.halo_width, truncate=3.0)
    wide -= sharp
    wide *= np.float32(-look.halo)
    sharp += wide
    return sharp


def make_noise(rng: np.random.Generator, out: Field, look: Look) -> None:
    """Fill `out` with correlated noise of standard deviation 1."""
    rng.standard_normal(dtype=np.float32, out=out)
    sigma = (look.noise_grain,) * 3
    gaussian_filter(out, sigma, output=out, mode="wrap", truncate=3.0)
    out *= np.float32(1 / std_after_blur(sigma))


def rings(rng: np.random.Generator, shape_zyx: tuple[int, ...]) -> Iterator[Field]:
    """Yield ring artefacts slice by slice, float32 of standard deviation 1; the axis of rotation is along z, outside.

    A ring is a faulty detector pixel: constant along its circle, and fading along z.
    """
    depth, height, width = shape_zyx
    angle, away = rng.uniform(0, 2 * math.pi), rng.uniform(0.6, 2.0) * max(height, width)
    y, x = np.ogrid[:height, :width]
    radius = np.hypot(y - height / 2 - away * math.sin(angle), x - width / 2 - away * math.cos(angle))
    pixel = np.floor(radius - radius.min()).astype(np.intp)
    profile = smooth(rng, (depth, int(pixel.max()) + 1), (8.0, 0.7))
    for row in profile:
        yield row[pixel]


def slow(rng: np.random.Generator, shape_zyx: tuple[int, ...]) -> Iterator[Field]:
    """Yield a field slice by slice that changes over some fifty voxels, standard deviation about 1."""
    coarse = smooth(rng, tuple(math.ceil(n / _COARSE) + 1 for n in shape_zyx), (2.5,) * 3)
    planes = _stretch(_stretch(coarse, shape_zyx[2], axis=2), shape_zyx[1], axis=1)
    return (
        _stretch(planes[z // _COARSE : z // _COARSE + 2], 1, axis=0, first=z % _COARSE)[0] for z in range(shape_zyx[0])
    )


def _stretch(nodes: Field, count: int, axis: int, first: int = 0) -> Field:
    """Return `nodes`, _COARSE voxels apart, interpolated linearly at `count` voxels from `first` on."""
    places = np.arange(first, first + count)
    low = places // _COARSE
    share = (places % _COARSE / _COARSE).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(nodes.ndim)])
    stretched = nodes.take(low, axis) * (1 - share) + nodes.take(low + 1, axis) * share
    return stretched.astype(np.float32, copy=False)
