"""Variations of a patch that leave its labels true."""

import numpy as np
import numpy.typing as npt

from surface_train.settings import Augment

Image = npt.NDArray[np.float32]
Label = npt.NDArray[np.uint8]


def vary(image: Image, label: Label, augment: Augment, rng: np.random.Generator) -> tuple[Image, Label]:
    """Turn and flip image and label alike, then vary the image's grey values. Both (z, y, x), both returned compact.

    image: float32 in standard deviations of its volume. The draws are the same in number for every patch, so that
    switching one variation off does not change the others.
    """
    flips, turns, axes = rng.random(3) < 0.5, int(rng.integers(4)), int(rng.integers(3))
    contrast, shift, noise = rng.uniform(-1, 1), rng.uniform(-1, 1), rng.random()
    if augment.flips:
        flipped = tuple(axis for axis in range(3) if flips[axis])
        image, label = np.flip(image, flipped), np.flip(label, flipped)
    if augment.turns and len(set(image.shape)) == 1:
        plane = ((0, 1), (0, 2), (1, 2))[axes]
        image, label = np.rot90(image, turns, plane), np.rot90(label, turns, plane)
    image = image * np.float32(1 + augment.grey * contrast) + np.float32(augment.grey * shift)
    if augment.noise:
        image = image + rng.standard_normal(image.shape, np.float32) * np.float32(augment.noise * noise)
    return np.ascontiguousarray(image, np.float32), np.ascontiguousarray(label)
