"""What a page of many large cases takes: python benchmarks/report.py [CASES] [SIDE]

Four phantoms with predictions that have every kind of error are made and scored; links give them as many ids as there
are to be cases. `python -m surface_report` then makes the page from the score and its breakdown: its CPU-seconds, the
peak memory of all its processes and the page's size are printed. Where there is a Chromium, the page is opened too: the
longest of 60 moves of a slice, and of 5 other cases opened.
"""

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
from machine import describe
from scipy import ndimage

ROOT = Path(__file__).resolve().parent.parent
ROOMS = [str(ROOT / room) for room in ("kernel", "train", "package")]
sys.path[:0] = ROOMS

from surface_kernel.volumes.image_files import write_lzw  # noqa: E402
from surface_kernel.volumes.mask_files import mask_bytes  # noqa: E402
from surface_package.rehearsal.watch import MemoryWatch  # noqa: E402
from surface_phantom import LOOKS, make_volume  # noqa: E402
from surface_score.cases import score_pairs  # noqa: E402
from surface_score.masks import MaskFile  # noqa: E402

DISTINCT = 4
TIMED = """async () => {
    const took = { moves: [], cases: [] };
    const slider = document.querySelector("#slices-at-z"), chooser = document.querySelector("#slices-case");
    const viewer = document.querySelector("#slices-viewer");
    for (let at = 0; at < 60; at++) {
        slider.value = at * 5;
        const start = performance.now();
        slider.dispatchEvent(new Event("input"));
        took.moves.push(performance.now() - start);
    }
    for (let number = 1; number <= 5; number++) {
        chooser.value = number;
        const start = performance.now();
        chooser.dispatchEvent(new Event("change"));
        while (viewer.dataset.open !== String(number)) await new Promise((r) => setTimeout(r, 2));
        took.cases.push(performance.now() - start);
    }
    return took;
}"""


def wrong(truth: np.ndarray, ignored: np.ndarray, seed: int) -> np.ndarray:
    """Return a prediction: the truth moved, thickened, bridged, and torn by smooth noise."""
    noise = np.random.default_rng(seed).normal(size=tuple(length // 4 for length in truth.shape)).astype(np.float32)
    smooth = ndimage.zoom(ndimage.gaussian_filter(noise, 3), 4, order=1)
    smooth /= smooth.std()
    moved = np.roll(truth, 1, 0) & (smooth < 1.2)
    return (moved | (ndimage.binary_dilation(truth, iterations=3) & (smooth < -1.6))) & ~ignored


def make(folder: Path, cases: int, side: int) -> None:
    """Write images, labels, submission.zip, score.json and explain/ of so many cases."""
    for name in ("images", "labels", "explain"):
        (folder / name).mkdir()
    rows, masks = {}, []
    for number in range(DISTINCT):
        phantom = make_volume(number, (side, side, side), LOOKS[number % len(LOOKS)])
        write_lzw(folder / "images" / f"{number}.tif", phantom.image)
        write_lzw(folder / "labels" / f"{number}.tif", phantom.label)
        mask = wrong(phantom.label == 1, phantom.label == 2, number)
        masks.append(mask_bytes(mask.astype(np.uint8)))
        path = folder / f"{number}.tif"
        path.write_bytes(masks[-1])
        pair = (MaskFile(str(path)), MaskFile(str(folder / "labels" / f"{number}.tif")))
        ((score, _),) = score_pairs([pair], 1, folder / "explain", pictures=False)
        rows[str(number)] = score.as_dict()
    for number in range(DISTINCT, cases):
        same = number % DISTINCT
        for name, kind in (("images", "tif"), ("labels", "tif"), ("explain", "json")):
            (folder / name / f"{number}.{kind}").hardlink_to(folder / name / f"{same}.{kind}")
        rows[str(number)] = rows[str(same)]
    with zipfile.ZipFile(folder / "submission.zip", "w") as archive:
        for number in range(cases):
            archive.writestr(f"{number}.tif", masks[number % DISTINCT])
    (folder / "score.json").write_text(json.dumps({"mean": rows["0"], "cases": rows}))


def measure(folder: Path, cases: int) -> None:
    """Make the page and print what it took."""
    inputs = {"submission": "submission.zip", "truth": "labels", "images": "images"}
    inputs |= {"score": "score.json", "explain": "explain", "out": "page.html"}
    words = [word for name, path in inputs.items() for word in (f"--{name}", str(folder / path))]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(ROOMS)}
    process = subprocess.Popen([sys.executable, "-m", "surface_report", *words], env=environment)
    with MemoryWatch(process.pid) as watch:
        assert process.wait() == 0
    wall_s, used = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    size = (folder / "page.html").stat().st_size
    print(
        f"{cases} cases: {cpu_s:.0f} CPU-seconds, {wall_s:.0f} s, {watch.peak_bytes / 1e9:.2f} GB, {size / 1e6:.1f} MB"
    )


def open_page(path: Path) -> None:
    """Open the page and print how long the viewer takes."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        start = time.perf_counter()
        page.goto(path.as_uri())
        page.wait_for_selector('#slices-viewer[aria-busy="false"]')
        print(f"opened in {time.perf_counter() - start:.1f} s")
        for name, took in page.evaluate(TIMED).items():
            print(f"{name}: median {statistics.median(took):.0f} ms, longest {max(took):.0f} ms")
        browser.close()


def main() -> None:
    """Measure one page."""
    cases, side = (int(sys.argv[at]) if len(sys.argv) > at else default for at, default in ((1, 120), (2, 320)))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make(folder, cases, side)
        measure(folder, cases)
        if shutil.which("chromium"):
            open_page(folder / "page.html")
    print(describe())


if __name__ == "__main__":
    main()
