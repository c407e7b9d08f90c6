"""The story of a submission: settings, mounts, zeros that already count, then every volume's mask.

python -m surface_kernel --bundle DIR --competition DIR --out DIR
python -m surface_kernel predict --weights FILE... --input FILE|DIR --out DIR
"""

import argparse
import json
import logging
import math
import os
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from surface_kernel import mounts, volume
from surface_kernel.clock import Clock
from surface_kernel.pipeline import Pipeline
from surface_kernel.report import PREDICTED, ZEROS, RunReport, VolumeReport
from surface_kernel.settings import Settings, from_toml
from surface_kernel.submission import Submission
from surface_kernel.worker import Done, LoadEngine, Ready, Unit

DEVICE_HELP = "cpu, cuda, cuda:N, or an earlier run_report.json; all GPUs where there are some"
MASK, PROBABILITY, LOGIT = "mask", "probability", "logit"
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
    if not os.access(Path(__file__).parent, os.W_OK):  # where numba would keep what it compiled
        os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(tempfile.gettempdir()) / "surface_kernel_numba"))
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
        reports = {case: VolumeReport(case, shapes_zyx[case], ZEROS, reason=why) for case, why in unreadable.items()}
        units = {
            case: Unit(case, path, shapes_zyx[case], mask=Path(scratch) / f"{case}.raw")
            for case, path in images.items()
            if case not in unreadable
        }
        hopper = _Hopper(units.values(), clock)
        progress = _Progress(hopper.left)
        saved_s = clock.elapsed_s
        load = LoadEngine(bundle.weights, bundle.settings)
        named, device = _device(arguments.device)

        def finish(done: Done) -> VolumeReport:
            return _put(done, submission, bundle.settings.dust_voxels)

        if units:
            with Pipeline(load, named, device=device, on_ready=progress.begin, on_tiles=progress.update) as pipeline:
                for report in pipeline.run(hopper.take, finish):
                    reports[report.case] = report
                    clock.learn(_voxels(report.shape_zyx), report.seconds)
                    progress.say(f"[{len(reports)}/{len(images)}] {report.line()}")
                    if clock.elapsed_s - saved_s > SAVE_EVERY_S:
                        submission.write()
                        saved_s = clock.elapsed_s
        progress.close()
        for unit in hopper.left:
            reports[unit.case] = VolumeReport(unit.case, unit.shape_zyx, ZEROS, reason="no time was left")
        submission.write()
        submission.check()
    run = RunReport([reports[case] for case in images], progress.device, clock.elapsed_s, progress.how)
    run.write(arguments.out)
    log.info("%s: %s", "complete" if run.complete else "degraded", submission.path)
    return COMPLETE if run.complete else DEGRADED


def predict(arguments: argparse.Namespace) -> int:
    """Predict the volumes of a file or folder, each into OUT."""
    paths = [arguments.input]
    if arguments.input.is_dir():
        paths = sorted(path for path in arguments.input.iterdir() if path.suffix in (".tif", ".npy"))
    if not paths:
        raise mounts.MountError(f"{arguments.input}: found no .tif or .npy in it, wanted volumes")
    if twice := [path.stem for path, other in pairwise(paths) if path.stem == other.stem]:
        raise mounts.MountError(f"{arguments.input}: found {twice[0]!r} as .npy and as .tif, wanted each name once")
    settings = from_toml(arguments.settings) if arguments.settings else Settings()
    output = _made(arguments.out)
    if any(path.parent.resolve() == output.resolve() for path in paths):
        raise mounts.MountError(f"{output}: found the volumes' own folder, wanted another: results could replace them")
    units, failed = [], 0
    for path in paths:
        try:
            header = volume.read_header(path)
        except volume.VolumeError as error:
            log.error("error: %s", error)
            failed += 1
        else:
            raw = output / f"{path.stem}.raw.partial"
            mask, sums = (raw, None) if arguments.save == MASK else (None, raw)
            units.append(Unit(path.stem, path, header.shape_zyx, mask, sums))
    hopper = _Hopper(units)
    progress = _Progress(units)
    load = LoadEngine(tuple(arguments.weights), settings)
    named, device = _device(arguments.device)

    def finish(done: Done) -> str:
        try:
            return _save(done, output, arguments.save, settings.dust_voxels, progress.passes)
        finally:
            (done.unit.mask or done.unit.sums or output).unlink(missing_ok=True)

    if units:
        with Pipeline(load, named, device=device, on_ready=progress.begin, on_tiles=progress.update) as pipeline:
            for line in pipeline.run(hopper.take, finish):
                progress.say(line)
                failed += line.startswith("error: ")
        progress.close()
    return COMPLETE if not failed else DEGRADED if failed < len(paths) else FAILED


def _save(done: Done, output: Path, save: str, dust_voxels: int, passes: int) -> str:
    """Turn what a worker left into the file that is wanted; say what came out."""
    name = done.unit.case
    if done.error:
        return f"error: {done.error if str(done.unit.path) in done.error else f'{done.unit.path}: {done.error}'}"
    import numpy as np

    from surface_kernel import surface

    incidents = "".join(f"; {incident}" for incident in done.incidents)
    if done.unit.mask:
        mask = np.memmap(done.unit.mask, np.uint8, "r+", shape=done.unit.shape_zyx)
        surface.drop_dust(mask, dust_voxels)
        volume.write_mask(output / f"{name}.tif", mask)
        found = f"foreground {_mean(mask):.2%}"
    else:
        assert done.unit.sums is not None  # a unit without a mask has them
        sums = np.memmap(done.unit.sums, np.float32, "r", shape=done.unit.shape_zyx)
        means = (plane / np.float32(passes) for plane in sums)
        wanted = map(surface.probability, means) if save == PROBABILITY else means
        found = f"mean {save} {volume.write_npy(output / f'{name}.npy', wanted, done.unit.shape_zyx):.4f}"
    return f"{name}  {done.seconds:.1f} s  {found}{incidents}"


def _put(done: Done, submission: Submission, dust_voxels: int) -> VolumeReport:
    """Turn a unit's raw mask into the submission's; it is not needed after that."""
    unit, notes = done.unit, done.incidents
    assert unit.mask is not None  # every unit of a submission has one
    if done.error:
        unit.mask.unlink(missing_ok=True)
        return VolumeReport(unit.case, unit.shape_zyx, ZEROS, done.seconds, reason=done.error, notes=notes)
    import numpy as np

    from surface_kernel.surface import drop_dust

    mask = np.fromfile(unit.mask, np.uint8).reshape(unit.shape_zyx)
    unit.mask.unlink()
    drop_dust(mask, dust_voxels)
    submission.put(unit.case, mask)
    return VolumeReport(
        unit.case, unit.shape_zyx, PREDICTED, done.seconds, float(mask.mean()), done.variance, "", notes
    )


def _mean(mask: "volume.Volume") -> float:
    return sum(float(plane.mean()) for plane in mask) / len(mask)


class _Hopper:
    """Gives units to workers that ask, as long as there is time for them. left: those that are still in it."""

    def __init__(self, units: Iterable[Unit], clock: Clock | None = None) -> None:
        self.left, self._clock = deque(units), clock

    def take(self, before: Sequence[Unit]) -> Unit | None:
        """Give the next unit to a worker that has the units `before` still to do; None when there is none for it."""
        if not self.left:
            return None
        voxels = sum(_voxels(unit.shape_zyx) for unit in [*before, self.left[0]])
        if self._clock and not self._clock.fits(voxels):
            return None
        return self.left.popleft()


class _Progress:
    """Tells what is planned once the engine is ready, then how many tiles are done."""

    def __init__(self, units: Iterable[Unit]) -> None:
        self._shapes = Counter(unit.shape_zyx for unit in units)
        self._bar: tqdm | None = None
        self.device, self.how, self.passes = "no device", dict[str, Any](), 1

    def begin(self, ready: Ready) -> None:
        """Print how the networks run, and what there is to do."""
        self.device, self.passes = ready.described, ready.passes
        self.how = {"device": dict(ready.device), "trials": list(ready.trials), "tiles": {}}
        for trial in ready.trials:
            log.info("tried %s", trial)
        log.info("networks: %d, passes: %d, on %s", ready.members, ready.passes, ready.described)
        tiles, total_s = 0, 0.0
        for shape_zyx, volumes in self._shapes.items():
            grid = ready.grid(shape_zyx)
            work = ready.flop * grid.tiles * math.prod(grid.tile_zyx) * ready.passes
            seconds = ready.seconds(grid)
            self.how["tiles"][_sides(shape_zyx)] = list(grid.tile_zyx)
            expected = f", about {seconds:.0f} s a volume" if seconds else ""
            log.info(
                "%d × %s: %d tiles of %s, each voxel computed %.1f times, %.0f GFLOP%s",
                *(volumes, _sides(shape_zyx), grid.tiles, _sides(grid.tile_zyx), grid.redundancy * ready.passes),
                *(work / 1e9, expected),
            )
            tiles += volumes * grid.tiles * ready.stages
            total_s += volumes * seconds
        if total_s:
            log.info("expected: %.0f s for %d volumes on one device", total_s, sum(self._shapes.values()))
        self._bar = tqdm(total=tiles, unit="tile", leave=False, disable=None)

    def update(self, tiles: int) -> None:
        """Count tiles that are done."""
        if self._bar:
            self._bar.update(tiles)

    def say(self, line: str) -> None:
        """Log a line above the bar."""
        with logging_redirect_tqdm():
            (log.error if line.startswith("error: ") else log.info)("%s", line)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar:
            self._bar.close()


def _device(given: str | None) -> tuple[str | None, dict[str, Any] | None]:
    """Read --device: a device's name, or a run_report.json whose device is taken as it was. Raises MountError."""
    if given is None or not given.endswith(".json"):
        return given, None
    try:
        device = json.loads(Path(given).read_text())["how"]["device"]
        return str(device["name"]), dict(device)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise mounts.MountError(f"{given}: found no device in it ({error!r}), wanted a run_report.json") from error


def _sides(shape_zyx: Sequence[int]) -> str:
    return "×".join(str(size) for size in shape_zyx)


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
    parser.add_argument("--device", metavar="D", help=DEVICE_HELP)
    return parser


def _predict_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="surface_kernel predict", description=predict.__doc__)
    parser.add_argument("--weights", type=Path, required=True, nargs="+", metavar="FILE")
    parser.add_argument("--input", type=Path, required=True, metavar="FILE|DIR")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--save", choices=(MASK, PROBABILITY, LOGIT), default=MASK, help="TIFF or float32 .npy")
    parser.add_argument("--settings", "--config", type=Path, metavar="FILE.toml", help="views, threshold and dust")
    parser.add_argument("--device", metavar="D", help=DEVICE_HELP)
    return parser


if __name__ == "__main__":
    sys.exit(main())
