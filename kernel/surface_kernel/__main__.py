"""The story of a submission: settings, mounts, zeros that already count, then every volume's mask.

python -m surface_kernel --bundle DIR --competition DIR --out DIR
python -m surface_kernel predict --weights FILE... --input FILE|DIR --out DIR
"""

import argparse
import logging
import math
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from surface_kernel import mounts, volume
from surface_kernel.clock import Clock
from surface_kernel.report import PREDICTED, ZEROS, RunReport, VolumeReport
from surface_kernel.settings import Settings, from_toml
from surface_kernel.submission import Submission

if TYPE_CHECKING:
    from surface_kernel.pipeline import Engine

COMPLETE, FAILED, DEGRADED = 0, 1, 3
BUDGET_S = 8.5 * 3600  # of the nine hours that Kaggle gives
USUAL_SHAPE_ZYX = (320, 320, 320)  # of 738 of the competition's 786 volumes: the guess where no header can be read
SAVE_EVERY_S = 60.0
log = logging.getLogger("surface_kernel")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; give the exit code: 0 complete, 3 degraded, 1 failed."""
    logging.basicConfig(format="%(message)s", stream=sys.stdout, force=True)
    log.setLevel(logging.INFO)  # ours alone: libraries tell what they do at this level too
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it finds odd in a file is in our error already
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if words[:1] == ["predict"]:
            return predict(_predict_parser().parse_args(words[1:]))
        return submit(_submit_parser().parse_args(words))
    except (ValueError, RuntimeError, OSError, ImportError) as error:
        log.error("error: %s", " ".join(str(error).split()))
        return FAILED


def submit(arguments: argparse.Namespace) -> int:
    """Predict every test volume of the competition folder into OUT/submission.zip."""
    clock = Clock(arguments.budget_s)
    bundle = mounts.read_bundle(arguments.bundle)
    images = mounts.read_test_images(arguments.competition)
    with tempfile.TemporaryDirectory(dir=_made(arguments.scratch), prefix="surface_") as scratch:
        shapes_zyx, unreadable = _shapes(images)
        submission = Submission(shapes_zyx, arguments.out, Path(scratch))
        log.info("volumes: %d; a submission of zeros stands after %.1f s", len(images), clock.elapsed_s)
        engine = _load_engine(bundle.weights, bundle.settings, arguments.device)
        log.info("networks: %d, on %s", len(engine.members), engine.device)
        largest = engine.grid(max(shapes_zyx.values(), key=_voxels))
        log.info(
            "tiles of %s: %d for the largest volume, %s, each of its voxels computed %.1f times",
            *(largest.tile_zyx, largest.tiles, largest.shape_zyx, largest.redundancy),
        )
        reports, saved_s = [], clock.elapsed_s
        for number, (case, path) in enumerate(images.items(), start=1):
            if case in unreadable:
                report = VolumeReport(case, shapes_zyx[case], ZEROS, reason=unreadable[case])
            elif not clock.fits(_voxels(shapes_zyx[case])):
                report = VolumeReport(case, shapes_zyx[case], ZEROS, reason="no time was left")
            else:
                report = _predict_one(engine, submission, case, path, shapes_zyx[case])
                clock.learn(_voxels(report.shape_zyx), report.seconds)
            reports.append(report)
            log.info("[%d/%d] %s", number, len(images), report.line())
            if clock.elapsed_s - saved_s > SAVE_EVERY_S:
                submission.write()
                saved_s = clock.elapsed_s
        submission.write()
        submission.check()
    run = RunReport(reports, str(engine.device), clock.elapsed_s)
    run.write(arguments.out)
    log.info("%s: %s", "complete" if run.complete else "degraded", submission.path)
    return COMPLETE if run.complete else DEGRADED


def predict(arguments: argparse.Namespace) -> int:
    """Predict the volumes of a file or folder, each into OUT."""
    paths = sorted(arguments.input.glob("*.tif")) if arguments.input.is_dir() else [arguments.input]
    if not paths:
        raise mounts.MountError(f"{arguments.input}: found no .tif in it, wanted volumes")
    settings = from_toml(arguments.settings) if arguments.settings else Settings()
    output = _made(arguments.out)
    if arguments.save == "mask" and any(path.parent.resolve() == output.resolve() for path in paths):
        raise mounts.MountError(f"{output}: found the volumes' own folder, wanted another: masks would replace them")
    engine = _load_engine(arguments.weights, settings, arguments.device)
    failed = 0
    for path in paths:
        start_s = time.monotonic()
        try:
            made = _predict_file(engine, path, output, arguments.save)
        except (ValueError, RuntimeError) as error:  # this volume cannot be read or predicted; the next one may
            found = " ".join(str(error).split())
            log.error("error: %s", found if str(path) in found else f"{path}: {found}")
            failed += 1
        else:
            log.info("%s  %.1f s  %s", path.stem, time.monotonic() - start_s, made)
    return COMPLETE if not failed else DEGRADED if failed < len(paths) else FAILED


def _predict_file(engine: "Engine", path: Path, output: Path, save: str) -> str:
    """Predict one volume into `output`; tell what came out."""
    import numpy as np

    from surface_kernel.surface import probability

    grey = volume.read(path)
    with _bar(engine, path.stem, grey.shape) as bar:
        if save == "mask":
            made = engine.predict(grey, bar.update)
            volume.write_mask(output / f"{path.stem}.tif", made.mask)
            return f"foreground {made.foreground:.2%}"
        whole = np.concatenate([probability(slab) for _, slab in engine.logits(grey, bar.update)])
    partial = output / f"{path.stem}.npy.partial"
    try:
        with partial.open("wb") as file:  # np.save would add an ending to a name
            np.save(file, whole)
        partial.replace(output / f"{path.stem}.npy")
    finally:
        partial.unlink(missing_ok=True)
    return f"mean probability {whole.mean():.4f}"


def _shapes(images: Mapping[str, Path]) -> tuple[dict[str, tuple[int, int, int]], dict[str, str]]:
    """Give every id's shape, and the ids whose image cannot be used with the reason why."""
    shapes_zyx, unreadable = {}, {}
    for case, path in images.items():
        try:
            shapes_zyx[case] = volume.read_header(path).shape_zyx
        except volume.VolumeError as error:
            shapes_zyx[case] = error.shape_zyx or USUAL_SHAPE_ZYX
            unreadable[case] = str(error) if error.shape_zyx else f"{error}; its shape is a guess"
    return shapes_zyx, unreadable


def _predict_one(
    engine: "Engine", submission: Submission, case: str, path: Path, shape_zyx: tuple[int, int, int]
) -> VolumeReport:
    start_s = time.monotonic()
    try:
        with _bar(engine, case, shape_zyx) as bar:
            made = engine.predict(volume.read(path), bar.update)
        submission.put(case, made.mask)
    except Exception as error:  # whatever one volume brings about, the others must not pay for it
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return VolumeReport(case, shape_zyx, ZEROS, time.monotonic() - start_s, reason=reason)
    seconds = time.monotonic() - start_s
    return VolumeReport(case, shape_zyx, PREDICTED, seconds, made.foreground, made.variance)


def _load_engine(weights: Sequence[Path], settings: Settings, device: str | None) -> "Engine":
    """Import torch and numba only now: what comes before must stand whether or not they work."""
    from surface_kernel.pipeline import Engine

    return Engine.load(weights, settings, device)


def _bar(engine: "Engine", name: str, shape_zyx: tuple[int, int, int]) -> tqdm:
    return tqdm(total=engine.grid(shape_zyx).tiles, desc=name, unit="tile", leave=False, disable=None)


def _voxels(shape_zyx: tuple[int, int, int]) -> int:
    return math.prod(shape_zyx)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _submit_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="surface_kernel", description=submit.__doc__)
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR")
    parser.add_argument("--competition", type=Path, required=True, metavar="DIR", help="holds test.csv, test_images/")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()), metavar="DIR")
    parser.add_argument("--budget-s", type=float, default=BUDGET_S, metavar="S", help="seconds until it must be done")
    parser.add_argument("--device", metavar="D", help="cpu, cuda or cuda:N; a GPU where there is one")
    return parser


def _predict_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="surface_kernel predict", description=predict.__doc__)
    parser.add_argument("--weights", type=Path, required=True, nargs="+", metavar="FILE")
    parser.add_argument("--input", type=Path, required=True, metavar="FILE|DIR")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--save", choices=("mask", "probability"), default="mask", help="TIFF masks or float32 .npy")
    parser.add_argument("--settings", "--config", type=Path, metavar="FILE.toml", help="views, threshold and dust")
    parser.add_argument("--device", metavar="D", help="cpu, cuda or cuda:N; a GPU where there is one")
    return parser


if __name__ == "__main__":
    sys.exit(main())
