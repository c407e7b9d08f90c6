"""What chains of post-processing are worth on damaged windings: python benchmarks/postprocess.py DIR [SIDE] [SEEDS]

DIR holds cubes of traced windings (.tif, 0 for background, else a winding's number), which are not part of this
project. The middle SIDE³ of each (192) is the truth. A field of logits is made of it as a network errs: sheets shifted
and of uneven width, patches of a doubled face, holes of three sizes, bridges where sheets are close, crumbs, noise.
Every chain makes its mask of the same fields, which are scored: the means over SEEDS (2) of each cube, and over cubes.
"""

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from machine import describe
from scipy import ndimage

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "kernel"), str(ROOT / "train")]

from surface_kernel.postprocess.mask_settings import MaskSettings  # noqa: E402
from surface_kernel.volumes import volume  # noqa: E402
from surface_score import score_case  # noqa: E402
from surface_tune.grid import Candidate  # noqa: E402
from surface_tune.scored import masks_of  # noqa: E402

Field = npt.NDArray[np.float32]
_FAR = 12.0  # voxels from a sheet beyond which its distance does not matter

THRESHOLD = {"step": "threshold", "threshold": 0.5}
DROP = {"step": "drop_small_components", "least_voxels": 5000, "connectivity": 6}
MAJORITY = {"step": "majority", "rounds": 6}
SLIT = {"step": "slit"}
CHAINS = {
    "threshold": [THRESHOLD],
    "drop < 1000, 26-connected": [THRESHOLD, DROP | {"least_voxels": 1000, "connectivity": 26}],
    "drop < 5000, 6-connected": [THRESHOLD, DROP],
    "majority × 6, drop": [THRESHOLD, MAJORITY, DROP],
    "drop, slit": [THRESHOLD, DROP, SLIT],
    "majority × 6, drop, slit: a competition bundle's": [THRESHOLD, MAJORITY, DROP, SLIT],
    "the first place's, without its height patch": [
        THRESHOLD,
        DROP | {"least_voxels": 20_000, "connectivity": 26},
        {"step": "close", "radius_z": 3, "radius_yx": 3},
        {"step": "plug"},
    ],
    "the twelfth's": [
        {"step": "hysteresis", "low": 0.3, "high": 0.85},
        {"step": "open", "radius_z": 1, "radius_yx": 1},
        {"step": "close", "radius_z": 3, "radius_yx": 2},
        DROP | {"least_voxels": 100, "connectivity": 26},
    ],
}


def smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], voxels: float) -> Field:
    """Return noise of standard deviation 1 that is correlated over so many voxels."""
    step = max(1, int(voxels // 2))
    coarse = rng.standard_normal([length // step + 4 for length in shape]).astype(np.float32)
    coarse = ndimage.gaussian_filter(coarse, voxels / step, mode="wrap")
    fine = ndimage.zoom(coarse / coarse.std(), step, order=1)
    return fine[tuple(slice(0, length) for length in shape)]


def damaged(truth: npt.NDArray[np.bool_], seed: int) -> Field:
    """Return logits of sheets as a network that errs would predict them: float32 (z, y, x)."""
    rng = np.random.default_rng(seed)

    def noise(voxels: float) -> Field:
        return smooth_noise(rng, truth.shape, voxels)

    outside = ndimage.distance_transform_edt(~truth).astype(np.float32)
    inside = ndimage.distance_transform_edt(truth).astype(np.float32)
    distance = outside - inside + 1  # at most 1 within a sheet
    slopes = [ndimage.gaussian_filter(slope, 2) for slope in np.gradient(np.minimum(distance, _FAR))]
    near = distance < _FAR / 2
    tensor = [[float((one[near] * other[near]).mean()) for other in slopes] for one in slopes]
    across = np.linalg.eigh(tensor)[1][:, 2]  # the sheets' common normal
    side = np.where(sum(slope * part for slope, part in zip(slopes, across, strict=True)) < 0, -1, 1).astype(np.float32)
    from_middle = np.abs(side * (np.maximum(distance, -1) + 0.5) + 0.9 * noise(14))
    width = 1.6 + 0.5 * noise(10)
    sheet = 1.9 * (width - from_middle)
    doubled = 1.9 * (width - 0.4 - np.abs(side * distance - (7.5 + noise(20)))) - 4 * np.maximum(0, 1.7 - noise(22))
    doubt = 1.15 * noise(3) + 1.3 * noise(7) + 1.5 * noise(18)
    logits = np.clip(np.maximum(sheet, doubled) + doubt + 1.3, -9, 7)
    probability = ndimage.gaussian_filter(1 / (1 + np.exp(-logits)), 0.9)  # narrow gaps fill
    gap = (distance > 0) & (distance < 3.2)
    bridges = ndimage.gaussian_filter(np.where(gap, np.maximum(0, noise(6) - 1.55), 0), 1.0)
    crumbs = (1 / (1 + np.exp(-6 * (noise(5) + 0.8 * noise(30) - 4.1)))) * (distance > _FAR / 2)
    grain = 0.03 * rng.standard_normal(truth.shape)
    whole = np.clip(np.maximum(probability + 1.2 * bridges, crumbs) + grain, 0.001, 0.999)
    return np.log(whole / (1 - whole)).astype(np.float32)


def main() -> None:
    """Measure, print."""
    folder, side = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 192
    seeds = int(sys.argv[3]) if len(sys.argv) > 3 else 2
    named = {name: Candidate(settings=MaskSettings.from_entries({"postprocess": CHAINS[name]})) for name in CHAINS}
    scores: dict[str, dict[str, list[float]]] = {name: {} for name in CHAINS}
    paths = sorted(folder.glob("*.tif"))
    for path in paths:
        cube = volume.read(path)
        corner = [(length - side) // 2 for length in cube.shape]
        truth = cube[tuple(slice(start, start + side) for start in corner)] > 0
        for seed in range(seeds):
            for candidate, mask in masks_of(damaged(truth, seed), None, list(named.values())):
                name = next(name for name, each in named.items() if each is candidate)
                scores[name].setdefault(path.stem, []).append(score_case(mask, truth.astype(np.uint8)).score)
    print(f"# Chains on {len(paths)} damaged cubes of {side}³, {seeds} seeds each\n")
    print(f"| chain | {' | '.join(path.stem for path in paths)} | mean |")
    print(f"|---|{'---|' * (len(paths) + 1)}")
    for name, by_cube in scores.items():
        means = [float(np.mean(values)) for values in by_cube.values()]
        print(f"| {name} | {' | '.join(f'{mean:.4f}' for mean in means)} | {np.mean(means):.4f} |")
    print(f"\n{describe()}")


if __name__ == "__main__":
    main()
