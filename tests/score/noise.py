"""Random masks from a hash, so that they are the same with every library, and noisy sheets."""

import hashlib

import numpy as np


def mask_pair(index, longest=24):
    """Gives two masks of one shape up to longest³: unlike each other, alike but for noise, or but for some blocks."""
    numbers = _bytes(f"shape {index}", 16)
    shape = tuple(1 + number % longest for number in numbers[:3])
    density, flipped = 1 + numbers[3] % 255, numbers[4] % 128
    first, second = (_noise(f"{index} {name}", shape) for name in "ab")
    prediction = first < density
    if index % 3 == 0:
        return prediction, second < 1 + numbers[5] % 255
    if index % 3 == 1:
        return prediction, prediction ^ (second < flipped)
    truth = prediction.copy()
    for at in range(6, 16, 2):
        corner = [(numbers[at] * prime) % length for prime, length in zip((1, 7, 31), shape, strict=True)]
        truth[tuple(slice(start, start + 4) for start in corner)] = numbers[at + 1] % 2
    return prediction, truth


def sheet_pair(seed):
    """Gives a mask of wavy sheets, 96 to 160 voxels a side, and one moved, pierced, bridged, frayed and speckled."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(96, 161, 3))
    z, y, x = (
        np.arange(length).reshape([-1 if axis == at else 1 for at in range(3)]) for axis, length in enumerate(shape)
    )
    waves = rng.uniform(2, 5) * np.sin(z / rng.uniform(9, 20)) + rng.uniform(2, 5) * np.sin(y / rng.uniform(9, 20) + 1)
    height = np.moveaxis(np.broadcast_to(x + waves, shape), 2, 2)
    period = rng.integers(9, 22)
    truth = height % period < rng.integers(3, 5)
    prediction = (height + rng.uniform(-1.5, 1.5)) % period < rng.integers(2, 5)
    for solid, (mask, count) in enumerate([(prediction, 40), (truth, 6), (prediction, 25), (truth, 4)]):
        for _ in range(count):
            at, size = [rng.integers(0, length) for length in shape], rng.integers(2, 9, 3)
            mask[tuple(slice(start, start + side) for start, side in zip(at, size, strict=True))] = solid // 2
    prediction ^= rng.random(shape) < rng.choice([0, 0.0005, 0.004, 0.02])
    return prediction, truth


def _noise(name, shape):
    return np.frombuffer(_bytes(name, int(np.prod(shape))), np.uint8).reshape(shape)


def _bytes(name, number):
    return hashlib.shake_256(name.encode()).digest(number)
