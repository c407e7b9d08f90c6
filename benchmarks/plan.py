"""The plan of least work beside the naive one, on the demo's network: python benchmarks/plan.py [DEMO]

DEMO is the folder that scripts/demo.sh leaves. Its test volumes are predicted in the tiles that the plan chooses and in
tiles of the trained size at half overlap, turn by turn, float32 on the CPU, and both are scored on the hidden labels.
"""

import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from machine import described

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "kernel"), str(ROOT / "train")]

from surface_kernel.inference import settings  # noqa: E402
from surface_kernel.inference.engine import Engine  # noqa: E402
from surface_kernel.networks.placing import choose  # noqa: E402
from surface_kernel.postprocess.drop_small_components import drop_small_components  # noqa: E402
from surface_kernel.volumes import volume  # noqa: E402
from surface_score import score_case  # noqa: E402

TURNS = 3


def main() -> None:
    """Measure, print."""
    demo = Path(sys.argv[1] if sys.argv[1:] else ROOT / "demo")
    asked = settings.from_json(demo / "bundle" / "settings.json")
    plain = replace(choose("cpu"), dtype="float32", batch=1)
    print("# The demo's test volumes in the plan of least work and in the naive one\n")
    print("| volume | plan | tiles | computed | seconds | score | surface Dice | Dice |")
    print("|---|---|---|---|---|---|---|---|")
    seconds: dict[str, float] = {"least work": 0.0, "naive": 0.0}
    scores: dict[str, list[float]] = {name: [] for name in seconds}
    with Engine.load([demo / "run" / "weights.safetensors"], asked, device=plain) as engine:
        planned = plain.within(engine.cost)
        for path in sorted((demo / "data" / "competition" / "test_images").glob("*.tif")):
            grey, label = volume.read(path), volume.read(demo / "data" / "test_labels" / path.name)
            laps: dict[str, list[float]] = {name: [] for name in seconds}
            masks = {}
            for _ in range(TURNS):
                for name, device in (("least work", planned), ("naive", plain)):
                    engine.take(device)
                    mask = np.empty(grey.shape, np.uint8)
                    began_s = time.perf_counter()
                    engine.predict(grey, mask=mask)
                    laps[name].append(time.perf_counter() - began_s)
                    drop_small_components(mask, asked.dust_voxels, connectivity=26)
                    masks[name] = mask, engine.grid(grey.shape)
            for name, (mask, grid) in masks.items():
                found = score_case(mask, label)
                seconds[name] += float(np.median(laps[name]))
                scores[name].append(found.score)
                told = f"{grid.tiles} of {grid.tile_zyx} | {grid.redundancy:.2f} times | {np.median(laps[name]):.2f}"
                scored = f"{found.score:.4f} | {found.surface_dice:.4f} | {found.dice:.4f}"
                print(f"| {path.stem} | {name} | {told} | {scored} |")
    change = np.mean(scores["least work"]) - np.mean(scores["naive"])
    ratio = seconds["naive"] / seconds["least work"]
    print(f"\nThe naive plan takes {ratio:.2f} times as long; least work changes the mean score by {change:+.4f}.")
    print(f"Machine: {described()}.")


if __name__ == "__main__":
    main()
