"""Make golden/scores.json: small volumes and what the reference packages say of them.

Run it by hand, in an environment of its own, where surface-distance 0.1, scikit-image and numpy < 2 are installed
(surface-distance fails on numpy 2 when a mask is empty):

    python -W ignore tests/score/make_golden.py

The volumes are stored with the numbers, so that the tests depend on no generator. Components are scikit-image's, not
cc3d's, which is what the score uses.
"""

import base64
import json
import zlib
from pathlib import Path

import numpy as np
from skimage.measure import label as components
from skimage.metrics import variation_of_information
from surface_distance import lookup_tables, metrics

SPACING = (1.0, 1.0, 1.0)
TOLERANCE = 2.0


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
        yield noise(seed)
    for seed in range(20):
        yield sheets(seed)
    for seed in range(16):
        yield blobs(seed)


def noise(seed):
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
    both = int(predicted.sum() + truth.sum())
    if both == 0:
        return {"surface_dice": 1.0, "voi_split": 0.0, "voi_merge": 0.0, "dice": 1.0}
    distances = metrics.compute_surface_distances(truth, predicted, SPACING)
    either = predicted | truth
    true_sheets, predicted_sheets = components(truth, connectivity=3), components(predicted, connectivity=3)
    split, merge = variation_of_information(true_sheets[either], predicted_sheets[either])
    return {
        "surface_dice": float(metrics.compute_surface_dice_at_tolerance(distances, TOLERANCE)),
        "voi_split": float(split),
        "voi_merge": float(merge),
        "dice": float(metrics.compute_dice_coefficient(truth, predicted)),
    }


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
    areas = json.dumps(lookup_tables.create_table_neighbour_code_to_surface_area(SPACING).tolist())
    golden = Path(__file__).parent / "golden" / "scores.json"
    golden.write_text('{"areas": ' + areas + ',\n"worlds": [\n' + ",\n".join(lines) + "\n]}\n")
    print(f"{golden}: {len(lines)} worlds, {golden.stat().st_size} bytes")


if __name__ == "__main__":
    main()
