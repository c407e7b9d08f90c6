"""The cost of training patches: python benchmarks/loader.py

Prints two tables in Markdown: patches a second and CPU seconds a patch by variation, and how often volumes are decoded.
The volumes are phantoms, made in a temporary folder. Nothing is timed twice: expect a tenth more or less.
"""

import itertools
import os
import platform
import sys
import tempfile
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "kernel"), str(ROOT / "train")]
# Threads are counted here, not those of a matrix library below them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import scipy  # noqa: E402

from surface_kernel.volumes.image_files import write_lzw  # noqa: E402
from surface_phantom import LOOKS, make_volume  # noqa: E402
from surface_train.data.cases import Case  # noqa: E402
from surface_train.data.patches import Sampler  # noqa: E402
from surface_train.data.store import Store  # noqa: E402
from surface_train.loss_weights import LossWeights  # noqa: E402
from surface_train.losses.terms import label_maps  # noqa: E402
from surface_train.settings import Augment, Patches, TrainingSettings  # noqa: E402

SIDE = 176
PATCHES_BY_SIDE = {64: 24, 128: 8}
OFF = Augment.none()
NO_MAPS = LossWeights(boundary_weight=0, cldice_weight=0)
ALWAYS = dict.fromkeys(("blur", "low_resolution", "cut_outs"), 1.0)


def rows() -> Iterator[tuple[str, Augment, LossWeights]]:
    """Name each variation that is measured. Those that vary a share of the patches vary all, if they come alone."""
    yield "none", OFF, NO_MAPS
    for name, value in vars(Augment()).items():
        yield name, replace(OFF, **{name: ALWAYS.get(name, value)}), NO_MAPS
    yield "all, on every patch", replace(Augment(), **ALWAYS), NO_MAPS
    yield "all, as by default", Augment(), NO_MAPS
    yield "only the distances", OFF, replace(NO_MAPS, boundary_weight=0.1)
    yield "only the skeletons", OFF, replace(NO_MAPS, cldice_weight=0.1)
    yield "all by default, with both", Augment(), LossWeights()


def cost(cases: list[Case], settings: TrainingSettings, count: int) -> tuple[float, float]:
    """Return patches a second, and CPU seconds a patch, of volumes that are in memory."""
    sampler = Sampler(Store(cases, settings), settings, maps=label_maps(settings.loss))
    list(sampler.batches(0, 6))
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    list(sampler.batches(6, 6 + count))
    return count / (time.perf_counter() - wall_s), (time.process_time() - cpu_s) / count


def phantoms(folder: Path) -> list[Case]:
    """Write a few volumes."""
    return [
        write(folder, look.scroll_id, image=made.image, label=made.label)
        for seed, look in enumerate(LOOKS[:2])
        for made in [make_volume(seed, (SIDE,) * 3, look)]
    ]


def write(folder: Path, name: str, *, image: np.ndarray, label: np.ndarray) -> Case:
    """Write a case as the competition does."""
    case = Case(name=name, scroll="0", image=folder / f"{name}.tif", label=folder / f"{name}_label.tif")
    write_lzw(case.image, image)
    write_lzw(case.label, label)
    return case


def decode_s(cases: list[Case], folder: Path) -> float:
    """Return the CPU seconds to decode a case of 320³: a phantom, repeated."""
    image, label = (np.tile(part[:160, :160, :160], (2, 2, 2)) for part in cases[0].load())
    large = write(folder, "large", image=image, label=label)
    started_s = time.process_time()
    large.load()
    return time.process_time() - started_s


class Counted(Case):
    """A case that counts how often any of its kind is read."""

    reads = 0

    def load(self, *args: object) -> tuple[np.ndarray, np.ndarray]:
        """Read it."""
        Counted.reads += 1
        return super().load(*args)


def decodes_by_window(folder: Path, per_volume: int, patches: int) -> int:
    """Count the reads of 100 cases, 8 at a time, with room for 12."""
    label = np.indices((8, 8, 8)).sum(0).astype(np.uint8) % 2
    small = [write(folder, f"small{n}", image=label + 1, label=label) for n in range(100)]
    counted = [Counted(**vars(case)) for case in small]
    cache = {"resident": 8, "patches_per_volume": per_volume, "cache_gb": 12 * 1024 / 1e9}
    chosen = Patches(shape_zyx=(32, 32, 32), batch=1, workers=1, **cache)
    settings = TrainingSettings(patches=chosen, augment=OFF, loss=NO_MAPS)
    Counted.reads = 0
    for _ in Sampler(Store(counted, settings), settings, maps=()).batches(0, patches):
        pass
    return Counted.reads


def decodes_blindly(patches: int) -> int:
    """Count the same for a blind draw from all cases, where the least recently used of 12 goes first."""
    rng, kept, reads = np.random.default_rng(0), OrderedDict(), 0
    for case in rng.integers(0, 100, patches):
        reads += case not in kept
        kept[case] = True
        kept.move_to_end(case)
        if len(kept) > 12:
            kept.popitem(last=False)
    return reads


def processor() -> str:
    """Return the name of the CPU, as /proc/cpuinfo has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown CPU")


def main() -> None:
    """Print both tables."""
    print(f"{processor()}, {len(os.sched_getaffinity(0))} cores; Python {platform.python_version()},", end=" ")
    print(f"numpy {np.__version__}, scipy {scipy.__version__}; load {os.getloadavg()[0]:.1f} before the start\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = phantoms(folder)
        kinds = list(itertools.product(PATCHES_BY_SIDE, (1, 2)))
        print("| variation |" + "".join(f" {s}³, {t} thread{'s'[: t - 1]}: patches/s | CPU s |" for s, t in kinds))
        print("|---|" + "---:|---:|" * len(kinds))
        patch_s = 0.0
        for label, augment, loss in rows():
            cells = []
            for side, threads in kinds:
                patches = Patches(shape_zyx=(side,) * 3, batch=1, workers=threads)
                settings = TrainingSettings(patches=patches, augment=augment, loss=loss)
                rate, patch_s = cost(cases, settings, PATCHES_BY_SIDE[side])
                cells.append(f" {rate:.1f} | {patch_s:.3f} |")
            print(f"| {label} |" + "".join(cells), flush=True)
        volume_s = decode_s(cases, folder)
        print(
            f"\nA volume of 320³ with its label takes {volume_s:.2f} CPU s to decode. 100 cases, room for 12 of them:\n"
        )
        print("| draw | decoded per 1000 patches | share of CPU time, at 128³ with all of the above |")
        print("|---|---:|---:|")
        counts = {"blind": decodes_blindly(1000)}
        for per_volume in (4, 8, 16):
            counts[f"window of 8, {per_volume} patches a volume"] = decodes_by_window(folder, per_volume, 1000)
        for draw, count in counts.items():
            print(f"| {draw} | {count} | {count * volume_s / (count * volume_s + 1000 * patch_s):.0%} |")


if __name__ == "__main__":
    main()
