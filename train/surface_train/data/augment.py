"""Variations of a patch under which its labels stay right.

Each draws from a random stream of its own (draws.py), so that switching one off does not change the others.
"""

import itertools
import math
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from surface_train.data.draws import Draws, Stream
from surface_train.settings import Augment

Image = npt.NDArray[np.float32]
Label = npt.NDArray[np.uint8]
Shape = tuple[int, int, int]
Voxel = TypeVar("Voxel", bound=np.generic)

_BLUR_VOXELS = (0.5, 1.5)  # least and largest standard deviation
_COARSEST = 0.5  # of the patch's own resolution
_CUT_OUTS = 3  # boxes at most


def box_shape(shape_zyx: Shape, augment: Augment, draws: Draws) -> Shape:
    """Return the shape of the box that a patch of shape_zyx is resampled from.

    It is 1 / (1 + augment.scale) to 1 + augment.scale times as large, by one factor for all axes.
    """
    most = math.log1p(augment.scale)
    factor = math.exp(draws.of(Stream.SCALE).uniform(-1, 1) * most)
    z, y, x = (max(1, round(size * factor)) for size in shape_zyx)
    return z, y, x


def turn(box: Label, shape_zyx: Shape, *, augment: Augment, draws: Draws) -> Label:
    """Turn and flip the box that a patch is resampled from.

    The turns are all that keep the patch's shape: 24 for a cube, 8 for a square prism, 4 half turns for the rest.

    Args:
        box: image or label, uint8 (z, y, x). With the same draws, both are turned alike.
        shape_zyx: of the patch, not of the box: two sides of a scaled box may be equal by rounding.
        augment: which of turns and flips are on.
        draws: random numbers of the patch.

    Returns:
        The turned box, contiguous.
    """
    if augment.turns:
        turns = _turns(shape_zyx)
        axes, backwards = turns[draws.of(Stream.TURNS).integers(len(turns))]
        box = np.flip(box.transpose(axes), backwards)
    if augment.flips:
        box = np.flip(box, tuple(axis for axis, draw in enumerate(draws.of(Stream.FLIPS).random(3)) if draw < 0.5))
    return np.ascontiguousarray(box)


def _turns(shape_zyx: Shape) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return the rotations that keep a shape, each as a permutation of the axes and the axes to flip after it.

    An exchange of two axes mirrors, and so does a flip: in a rotation their numbers are both even or both odd.
    """
    turns = []
    for axes in itertools.permutations(range(3)):
        exchanges = sum(a > b for a, b in itertools.combinations(axes, 2))
        if all(shape_zyx[axis] == size for axis, size in zip(axes, shape_zyx, strict=True)):
            for flips in range(4):
                backwards = itertools.combinations(range(3), flips)
                turns += [(axes, which) for which in backwards if (flips + exchanges) % 2 == 0]
    return turns


def resample(image: Image, shape_zyx: Shape) -> Image:
    """Resample to another shape, trilinearly; the outer faces stay in place. float32 (z, y, x) in and out."""
    for axis, size in enumerate(shape_zyx):
        if image.shape[axis] != size:
            image = _resample_axis(image, axis, size)
    return image


def _resample_axis(image: Image, axis: int, size: int) -> Image:
    old = image.shape[axis]
    places = ((np.arange(size) + 0.5) * (old / size) - 0.5).clip(0, old - 1)
    before = places.astype(np.intp).clip(0, max(0, old - 2))
    share = (places - before).astype(np.float32).reshape([-1 if other == axis else 1 for other in range(3)])
    first = np.take(image, before, axis)
    rise: Image = np.take(image, (before + 1).clip(0, old - 1), axis)
    rise -= first
    rise *= share
    rise += first
    return rise


def nearest(volume: npt.NDArray[Voxel], shape_zyx: Shape) -> npt.NDArray[Voxel]:
    """Resample to another shape, each voxel from the one that its centre lies in: no new value, so no new label."""
    for axis, size in enumerate(shape_zyx):
        old = volume.shape[axis]
        if old != size:
            volume = np.take(volume, ((np.arange(size) + 0.5) * (old / size)).astype(np.intp), axis)
    return volume


def vary_grey(image: Image, augment: Augment, draws: Draws) -> Image:
    """Vary the grey values as another scan of the same papyrus might.

    In the order of a scanner: optics first, noise after all that shapes the signal; the cut-outs come last.

    Args:
        image: float32 (z, y, x), in standard deviations of its volume. It is not written to.
        augment: which variations are on, and how strong.
        draws: random numbers of the patch.

    Returns:
        The varied image; `image` itself where nothing is varied.
    """
    image = _blur(image, augment, draws.of(Stream.BLUR))
    image = _low_resolution(image, augment, draws.of(Stream.LOW_RESOLUTION))
    image = _grey(image, augment, draws.of(Stream.GREY))
    image = _gamma(image, augment, draws.of(Stream.GAMMA))
    image = _noise(image, augment, draws.of(Stream.NOISE))
    return _cut_outs(image, augment, draws.of(Stream.CUT_OUTS))


def _blur(image: Image, augment: Augment, rng: np.random.Generator) -> Image:
    if rng.random() >= augment.blur:
        return image
    sigma_voxels = rng.uniform(*_BLUR_VOXELS)
    blurred: Image = ndimage.gaussian_filter(image, sigma_voxels, mode="nearest", truncate=3.0)
    return blurred


def _low_resolution(image: Image, augment: Augment, rng: np.random.Generator) -> Image:
    if rng.random() >= augment.low_resolution:
        return image
    factor = rng.uniform(_COARSEST, 1)
    z, y, x = (max(1, round(size * factor)) for size in image.shape)
    # Not by `nearest`, as others do: at half resolution it takes the upper of two voxels, half a voxel off its label.
    return resample(resample(image, (z, y, x)), image.shape)


def _grey(image: Image, augment: Augment, rng: np.random.Generator) -> Image:
    contrast, shift = augment.grey * rng.uniform(-1, 1, 2)
    if not augment.grey:
        return image
    varied: Image = image * np.float32(1 + contrast) + np.float32(shift)
    return varied


def _gamma(image: Image, augment: Augment, rng: np.random.Generator) -> Image:
    """Raise the grey values, scaled to [0, 1], to a power; mean and standard deviation are kept.

    As nnU-Net's gamma with `retain_stats` (Isensee et al. 2021); the logarithm of the exponent is uniform around 0.
    """
    exponent = np.float32(math.exp(augment.gamma * rng.uniform(-1, 1)))
    low, high = image.min(), image.max()
    if not augment.gamma or not high > low:
        return image
    mean, deviation = image.mean(), image.std()
    bent: Image = np.power((image - low) / (high - low), exponent)
    bent -= bent.mean()
    bent *= deviation / bent.std()
    bent += mean
    return bent


def _noise(image: Image, augment: Augment, rng: np.random.Generator) -> Image:
    if not augment.noise:
        return image
    deviation = np.float32(augment.noise * rng.random())
    return image + deviation * rng.standard_normal(image.shape, np.float32)


def _cut_outs(image: Image, augment: Augment, rng: np.random.Generator) -> Image:
    """Set one to three boxes to the patch's mean, each up to a third of the patch along every axis."""
    if rng.random() >= augment.cut_outs:
        return image
    image, mean = image.copy(), image.mean()
    for _ in range(rng.integers(1, _CUT_OUTS, endpoint=True)):
        sizes = [int(rng.integers(1, max(1, size // 3), endpoint=True)) for size in image.shape]
        starts = [
            int(rng.integers(0, size - part, endpoint=True)) for size, part in zip(image.shape, sizes, strict=True)
        ]
        image[tuple(slice(start, start + part) for start, part in zip(starts, sizes, strict=True))] = mean
    return image
