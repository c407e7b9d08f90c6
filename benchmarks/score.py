"""The score compared with the official scorer's parts, on the same volumes: python benchmarks/score.py [SIDE] [PAIRS]

The official parts are the compiled Betti matching module of topolosses 0.2.0, google-deepmind's surface-distance 0.1,
and scikit-image's variation of information over cc3d; they need numpy < 2, so run this in an environment of its own
where they are installed, with what surface_score needs. Each pair is a phantom's label, pierced so that there are true
tunnels to match, and that label moved, blurred, pierced, bridged and speckled. Each scorer runs in a process of its
own, the two in turn, after a small volume on which it compiles or loads what it needs. Prints a page of Markdown, and
exits with 1 if the two disagree.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy import ndimage

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "kernel"), str(ROOT / "train"), str(ROOT / "tests" / "score")]

THREADS = 2
TOLERANCE = 1e-9
PARTS = ("topology", "surface Dice", "VOI")


def main() -> int:
    """Generate the pairs, time both scorers on each, print the page."""
    side, pairs = (int(value) for value in [*sys.argv[1:], *("320", "2")[len(sys.argv) - 1 :]][:2])
    runs: dict[str, list[dict[str, float]]] = {"ours": [], "official": []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(pairs):
            path = Path(folder) / f"{number}.npz"
            np.savez(path, **dict(zip(("prediction", "label"), make_pair(number, side), strict=True)))
            for name, rows in runs.items():
                command = [sys.executable, "-W", "ignore", __file__, "--run", name, str(path)]
                rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    return report(side, runs)


def make_pair(seed: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a prediction and a label, uint8 (z, y, x), with the kinds of error that a network in training makes."""
    from surface_phantom import LOOKS, make_volume

    label = make_volume(seed, (side, side, side), LOOKS[seed % len(LOOKS)]).label
    rng = np.random.default_rng(seed)
    for corner in np.argwhere(label == 1)[rng.integers(0, np.count_nonzero(label == 1), 100)]:
        hole = label[tuple(slice(at - 3, at + 4) for at in np.maximum(corner, 3))]
        hole[hole == 1] = 0
    sheets = ndimage.gaussian_filter((label == 1).astype(np.float32), 1.0)
    wobble = ndimage.gaussian_filter(rng.standard_normal(label.shape, np.float32), 3.0)
    prediction = np.roll(sheets, 1, axis=2) + 2.0 * wobble > 0.4
    for _ in range(300):
        corner, size = [rng.integers(0, length) for length in label.shape], rng.integers(2, 8)
        prediction[tuple(slice(at, at + size) for at in corner)] = rng.random() < 0.4
    return prediction.astype(np.uint8), label


def ours(prediction: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """Score with surface_score: the total on THREADS threads, then each part on one."""
    from surface_score import score_case
    from surface_score.betti import octants
    from surface_score.leaderboard import masks_of
    from surface_score.matching import match
    from surface_score.surface_dice import surface_dice
    from surface_score.voi import variation_of_information

    def parts(prediction: np.ndarray, label: np.ndarray) -> dict[str, float]:
        masks = masks_of(prediction, label)
        times = [time.perf_counter()]
        for box in octants(label.shape):
            match(masks.predicted[box], masks.truth[box])
        times.append(time.perf_counter())
        surface_dice(masks.predicted, masks.truth, 1)
        times.append(time.perf_counter())
        variation_of_information(masks.predicted, masks.truth)
        times.append(time.perf_counter())
        return dict(zip(PARTS, np.diff(times).tolist(), strict=True))

    start = time.perf_counter()
    small = [np.ascontiguousarray(volume[:48, :48, :48]) for volume in (prediction, label)]
    score_case(*small, THREADS)
    parts(*small)
    compiled, busy = time.perf_counter(), time.process_time()
    row = score_case(prediction, label, THREADS)
    whole, busy = time.perf_counter() - compiled, time.process_time() - busy
    peak = peak_gb()
    counts = {f"betti {key}": value for key, value in (row.betti or {}).items()}
    scores = {name: getattr(row, name) for name in ("score", "topo_score", "surface_dice", "voi_split", "voi_merge")}
    return (
        {"first": compiled - start, "whole": whole, "busy": busy, "peak": peak}
        | scores
        | counts
        | parts(prediction, label)
    )


def official(prediction: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """Score with the official scorer's parts, one after the other, each with the threads that it takes by itself."""
    import oracle

    ignored = label == 2
    predicted, truth = (prediction != 0) & ~ignored, (label != 0) & ~ignored
    oracle.match(predicted[:9, :9, :9], truth[:9, :9, :9])
    times, busy = [time.perf_counter()], time.process_time()
    counts = oracle.match_octants(predicted, truth)
    times.append(time.perf_counter())
    dice = oracle.surface_dice(predicted, truth)
    times.append(time.perf_counter())
    split, merge = oracle.split_and_merge(predicted, truth)
    times.append(time.perf_counter())
    topo = oracle.topo_score(counts)
    score = 0.30 * topo + 0.35 * dice + 0.35 / (1 + 0.3 * (split + merge))
    row = {
        "whole": times[-1] - times[0],
        "busy": time.process_time() - busy,
        "peak": peak_gb(),
        "score": score,
        "topo_score": topo,
        "surface_dice": dice,
    }
    row |= {"voi_split": split, "voi_merge": merge} | {f"betti {key}": value for key, value in enumerate(counts)}
    return row | dict(zip(PARTS, np.diff(times).tolist(), strict=True))


def report(side: int, runs: dict[str, list[dict[str, float]]]) -> int:
    """Print the page. Return 1 if a count differs, or a number by more than TOLERANCE."""
    faults = []
    print(f"# Score of {len(runs['ours'])} pairs of {side}³, seconds\n")
    print(
        "| pair | scorer | total | CPU-seconds | "
        + " | ".join(PARTS)
        + " | peak GB | score | matched, predicted, true |"
    )
    print("|" + "---|" * 10)
    for number, rows in enumerate(zip(*runs.values(), strict=True)):
        for name, row in zip(runs, rows, strict=True):
            cells = [f"{row[key]:.2f}" for key in ("whole", "busy", *PARTS, "peak")]
            counts = ", ".join(str(row[f"betti {key}"]) for key in range(3))
            print(f"| {number} | {name} | {' | '.join(cells)} | {row['score']:.9f} | {counts} |")
        first, second = rows
        same = [key for key in second if key.startswith("betti") and first[key] != second[key]]
        close = ("score", "topo_score", "surface_dice", "voi_split", "voi_merge")
        faults += [f"pair {number}: {key}" for key in same]
        faults += [f"pair {number}: {key}" for key in close if abs(first[key] - second[key]) > TOLERANCE]
    ratios, busy = (
        ", ".join(f"{b[key] / a[key]:.1f}" for a, b in zip(*runs.values(), strict=True)) for key in ("whole", "busy")
    )
    print(f"\nThe total on {THREADS} threads, its parts each on one. The official scorer chooses its own threads.")
    print(f"Official to ours: {ratios} in wall time, {busy} in CPU-seconds. They agree: {not faults}. {faults or ''}")
    print(f"Before the first volume, compiling or loading included: {runs['ours'][0]['first']:.1f} s.")
    print(f"Machine: {machine()}")
    return bool(faults)


def peak_gb() -> float:
    """Return the peak memory of this process so far, in GB."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1e6


def machine() -> str:
    """Return the machine, its software and its load, in one line."""
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "")
    load = f"load {os.getloadavg()[0]:.1f} at the end"
    versions = f"Python {platform.python_version()}, numpy {np.__version__}"
    return f"{os.cpu_count()} cores,{model.split(':')[-1]}, {load}, {versions}"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        volumes = np.load(sys.argv[3])
        scorer = {"ours": ours, "official": official}[sys.argv[2]]
        print(json.dumps(scorer(volumes["prediction"], volumes["label"])))
    else:
        sys.exit(main())
