"""Make golden/scores.json: small volumes and what the official scorer's parts say of them.

Run it by hand, in an environment of its own, where topolosses 0.2.0 (without its dependencies), surface-distance 0.1,
scikit-image, connected-components-3d and numpy < 2 are installed:

    python -W ignore tests/score/make_golden.py

Most volumes are stored with their numbers, so that the tests depend on no generator; the 200 mask pairs come from a
hash, which depends on none either.
"""

import base64
import json
import zlib
from pathlib import Path

import noise
import numpy as np
import oracle
from surface_distance import lookup_tables, metrics

MASK_PAIRS = 200


def worlds():
    one_voxel = np.zeros((3, 4, 5), np.uint8)
    one_voxel[1, 2, 3] = 1
    empty, full, ignored = np.zeros_like(one_voxel), np.ones_like(one_voxel), np.full_like(one_voxel, 2)
    yield "both empty", empty, empty
    yield "prediction empty", empty, full
    yield "truth empty", one_voxel, empty
    yield "both full", full, full
    yield "one voxel in full", one_voxel, full
    yield "one voxel twice", one_voxel, one_voxel
    yield "all ignored", full, ignored
    yield "a single voxel", np.ones((1, 1, 1), np.uint8), np.ones((1, 1, 1), np.uint8)
    yield "a single ignored voxel", np.ones((1, 1, 1), np.uint8), np.full((1, 1, 1), 2, np.uint8)
    for seed in range(20):
        yield speckles(seed)
    for seed in range(20):
        yield sheets(seed)
    for seed in range(16):
        yield blobs(seed)


def speckles(seed):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 13, 3))
    density = rng.choice([0.02, 0.1, 0.3, 0.5, 0.9, 0.98])
    label = (rng.random(shape) < density).astype(np.uint8)
    label[rng.random(shape) < 0.2] = 2
    prediction = np.where(rng.random(shape) < 0.15, rng.integers(0, 4, shape), label == 1).astype(np.uint8)
    return f"noise {seed}", prediction, label


def sheets(seed):
    """Flat sheets of some thickness, shifted, pierced, bridged, with an ignored border or half."""
    rng = np.random.default_rng(1000 + seed)
    shape = tuple(rng.integers(9, 20, 3))
    axis, period = rng.integers(3), rng.integers(5, 9)
    height = np.indices(shape)[axis] + np.rint(1.5 * np.sin(np.indices(shape)[(axis + 1) % 3] / 3)).astype(int)
    label = (height % period < rng.integers(1, 4)).astype(np.uint8)
    prediction = ((height + rng.integers(-3, 4)) % period < rng.integers(1, 4)).astype(np.uint8)
    for _ in range(rng.integers(0, 5)):
        z, y, x = (rng.integers(0, length) for length in shape)
        prediction[z : z + 4, y : y + 4, x : x + 4] = rng.integers(0, 2)
    if seed % 3 == 0:
        label[:2], label[-2:], label[:, :1] = 2, 2, 2
    if seed % 3 == 1:
        label[..., shape[2] // 2 :] = 2
    return f"sheets {seed}", prediction, label


def blobs(seed):
    rng = np.random.default_rng(2000 + seed)
    shape = tuple(rng.integers(4, 16, 3))
    volumes = []
    for _ in range(2):
        field = rng.standard_normal(shape)
        for axis in range(3):
            field = field + np.roll(field, 1, axis) + np.roll(field, -1, axis)
        volumes.append((field > np.quantile(field, rng.uniform(0.5, 0.95))).astype(np.uint8))
    if seed % 2:
        volumes[1][rng.random(shape) < 0.4] = 2
    return f"blobs {seed}", volumes[0], volumes[1]


def reference(prediction, label):
    predicted, truth = (prediction != 0) & (label != 2), label == 1
    empty = not predicted.any() and not truth.any()
    dice = 1.0 if empty else float(metrics.compute_dice_coefficient(truth, predicted))
    return oracle.score(prediction, label) | {"dice": dice}


def packed(volume):
    return base64.b64encode(zlib.compress(volume.astype(np.uint8).tobytes(), 9)).decode()


def main():
    lines = [
        json.dumps(
            {
                "name": name,
                "shape": [int(length) for length in label.shape],
                "prediction": packed(prediction),
                "label": packed(label),
                **reference(prediction, label),
            }
        )
        for name, prediction, label in worlds()
    ]
    areas = json.dumps(lookup_tables.create_table_neighbour_code_to_surface_area(oracle.SPACING).tolist())
    golden = Path(__file__).parent / "golden" / "scores.json"
    pairs = json.dumps([np.ravel(oracle.match(*noise.mask_pair(index))).tolist() for index in range(MASK_PAIRS)])
    text = f'{{"areas": {areas},\n"mask_pairs": {pairs},\n"worlds": [\n'
    golden.write_text(text + ",\n".join(lines) + "\n]}\n")
    print(f"{golden}: {len(lines)} worlds, {golden.stat().st_size} bytes")


if __name__ == "__main__":
    main()
