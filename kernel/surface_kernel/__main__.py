"""The story of a submission: settings, mounts, zeros that already count, then every volume's mask.

python -m surface_kernel --bundle DIR --competition DIR --out DIR
python -m surface_kernel predict --weights FILE... --input FILE|DIR --out DIR
"""

import argparse
import hashlib
import json
import logging
import math
import os
import sys
import tempfile
import traceback
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from surface_kernel import disk
from surface_kernel.inference.settings import Settings, from_toml
from surface_kernel.runs import mounts
from surface_kernel.runs.clock import Clock
from surface_kernel.runs.ledger import Ledger, LedgerError, identity
from surface_kernel.runs.pipeline import Pipeline, WorkerError
from surface_kernel.runs.plan import Standing
from surface_kernel.runs.report import RunReport
from surface_kernel.runs.run import TRIES, Run
from surface_kernel.runs.submission import Submission
from surface_kernel.runs.worker import Done, LoadEngine, Ready, Unit
from surface_kernel.volumes import volume
from surface_kernel.volumes.header import Shape, VolumeError, read_header
from surface_kernel.volumes.image_files import write_npy
from surface_kernel.volumes.mask_files import write_mask

DEVICE_HELP = "cpu, cuda, cuda:N, or an earlier run_report.json; all GPUs where there are some"
MASK, PROBABILITY, LOGIT = "mask", "probability", "logit"
COMPLETE, FAILED, DEGRADED, UNFORESEEN, STOPPED = 0, 1, 3, 70, 130
ODD_LINES = 10
BUDGET_S = 8.5 * 3600  # of the nine hours that Kaggle gives
USUAL_SHAPE_ZYX = (320, 320, 320)  # of 738 of the competition's 786 volumes: the guess where no header can be read
log = logging.getLogger("surface_kernel")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; give the exit code: 0 complete, 3 degraded, 1 failed."""
    logging.basicConfig(format="%(message)s", stream=sys.stdout, force=True)
    log.setLevel(logging.INFO)  # ours alone: libraries tell what they do at this level too
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
    except KeyboardInterrupt:
        log.error("stopped by hand")
        return STOPPED


def submit(arguments: argparse.Namespace) -> int:
    """Predict every test volume of the competition folder into OUT/submission.zip."""
    clock, given = Clock(arguments.budget_s), _device(arguments.device)
    bundle = mounts.read_bundle(arguments.bundle)
    volumes = [_standing(case, path) for case, path in mounts.read_test_images(arguments.competition).items()]
    submission = Submission({volume.case: volume.shape_zyx for volume in volumes}, arguments.out)
    if not submission.stands():
        disk.retry(submission.write, TRIES)
    log.info("volumes: %d; a submission stands after %.1f s", len(volumes), clock.elapsed_s)

    stages = bundle.settings.stages(len(bundle.weights))
    load, progress = LoadEngine(bundle.weights, bundle.settings), _Progress()
    with Ledger(_scratch(arguments), identity(bundle)) as ledger:
        named, device = _agreed(*given, ledger.how)
        passes, dust_voxels = [len(stage) for stage in stages], bundle.settings.dust_voxels
        run = Run(volumes, passes, ledger, submission, clock, dust_voxels, progress.say)
        run.resume()
        failed = run.go_on() and not _predict_all(run, progress, load, named, device)
        run.end()
        report = RunReport(
            *(run.plan.reports(), progress.device, clock.elapsed_s, clock.budget_s),
            *({**ledger.how, **progress.how, "trials": ledger.how.get("trials", [])}, run.trouble),
        )
        disk.retry(lambda: report.write(arguments.out), TRIES)
        if run.plan.worth_going_on:
            log.info("%s: what was done is kept: the same command goes on with it", ledger.folder)
        else:
            ledger.remove()
    odd = [volume.line() for volume in report.volumes if volume.reason or volume.warning]
    for line in odd[:ODD_LINES]:
        log.info("%s", line)
    if more := len(odd[ODD_LINES:]):
        log.info("and %d more: see run_report.txt", more)
    log.info("%s: %s", "failed" if failed else report.verdict, submission.path)
    return FAILED if failed else COMPLETE if report.complete else DEGRADED


def _predict_all(
    run: Run, progress: "_Progress", load: LoadEngine, named: str | None, device: dict[str, Any] | None
) -> bool:
    """Let workers do what is planned, as long as there is time; say whether they could."""
    plan = run.plan
    if not plan.open:
        return True

    def begin(ready: Ready) -> None:
        plan.workers = pipeline.workers
        progress.begin(ready, Counter(volume.shape_zyx for volume in plan.open), plan.units_left())
        run.begin(ready, progress.how)
        log.info("%s", plan.line())

    try:
        with Pipeline(load, named, 1, None, device, begin, progress.update, run.tell) as pipeline:
            for line in pipeline.run(plan.take, run.finish, plan.received, run.go_on):
                plan.workers = pipeline.workers
                progress.say(line)
            if pipeline.given_up:
                plan.ended = "no worker was left"
    except WorkerError as error:
        plan.ended = str(error)
        run.tell(f"error: {error}")
        return False
    finally:
        progress.close()
    return True


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
            header = read_header(path)
        except VolumeError as error:
            log.error("error: %s", error)
            failed += 1
        else:
            raw = output / f"{path.stem}.raw.partial"
            mask, sums = (raw, None) if arguments.save == MASK else (None, raw)
            units.append(Unit(path.stem, path, header.shape_zyx, mask, sums))
    left = deque(units)
    progress, shapes = _Progress(), Counter(unit.shape_zyx for unit in units)
    load = LoadEngine(tuple(arguments.weights), settings)
    named, device = _device(arguments.device)

    def finish(done: Done) -> str:
        try:
            return _save(done, output, arguments.save, settings.dust_voxels, progress.passes)
        finally:
            (done.unit.mask or done.unit.sums or output).unlink(missing_ok=True)

    tried, told = set[str](), 0

    def received(done: Done) -> bool:
        """Give a volume another try where that may help; say whether there is something to be finished."""
        if not done.again or done.unit.case in tried:
            return True
        tried.add(done.unit.case)
        left.append(done.unit)
        return False

    if units:
        with Pipeline(
            load, named, 1, None, device, lambda ready: progress.begin(ready, shapes), progress.update, progress.say
        ) as pipeline:
            for line in pipeline.run(lambda before: left.popleft() if left else None, finish, received):
                progress.say(line)
                told += 1
                failed += line.startswith("error: ")
        progress.close()
    if told < len(units):
        log.error("error: found no worker left for %d volumes, wanted one", len(units) - told)
        failed += len(units) - told
    return COMPLETE if not failed else DEGRADED if failed < len(paths) else FAILED


def _save(done: Done, output: Path, save: str, dust_voxels: int, passes: int) -> str:
    """Turn what a worker left into the file that is wanted; say what came out."""
    name = done.unit.case
    if done.error:
        return f"error: {done.error if str(done.unit.path) in done.error else f'{done.unit.path}: {done.error}'}"
    import numpy as np

    from surface_kernel import probability
    from surface_kernel.postprocess.drop_small_components import drop_small_components

    incidents = "".join(f"; {incident}" for incident in done.incidents)
    if done.unit.mask:
        mask = np.memmap(done.unit.mask, np.uint8, "r+", shape=done.unit.shape_zyx)
        drop_small_components(mask, dust_voxels, connectivity=26)
        write_mask(output / f"{name}.tif", mask)
        found = f"foreground {_mean(mask):.2%}"
    else:
        assert done.unit.sums is not None  # a unit without a mask has them
        sums = np.memmap(done.unit.sums, np.float32, "r", shape=done.unit.shape_zyx)
        means = (plane / np.float32(passes) for plane in sums)
        wanted = map(probability.probabilities, means) if save == PROBABILITY else means
        found = f"mean {save} {write_npy(output / f'{name}.npy', wanted, done.unit.shape_zyx):.4f}"
    return f"{name}  {done.seconds:.1f} s  {found}{incidents}"


def _mean(mask: "volume.Volume") -> float:
    return sum(float(plane.mean()) for plane in mask) / len(mask)


class _Progress:
    """Tells what is planned once the engine is ready, then how many tiles are done."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None
        self.device, self.how, self.passes = "no device", dict[str, Any](), 1

    def begin(self, ready: Ready, shapes: Counter[Shape], units: Counter[Shape] | None = None) -> None:
        """Print how the networks run, and what there is to do.

        shapes: how many volumes there are of each. units: how many stages of them are to be done; None: all.
        """
        self.device, self.passes = ready.described, ready.passes
        self.how = {"device": dict(ready.device), "trials": list(ready.trials), "tiles": {}}
        for trial in ready.trials:
            log.info("tried %s", trial)
        log.info("networks: %d, passes: %d, on %s", ready.members, ready.passes, ready.described)
        tiles, total_s = 0, 0.0
        for shape_zyx, volumes in shapes.items():
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
            tiles += grid.tiles * (units[shape_zyx] if units else volumes * ready.stages)
            total_s += volumes * seconds
        if total_s:
            log.info("expected: %.0f s for %d volumes on one device", total_s, sum(shapes.values()))
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
        device = dict(json.loads(Path(given).read_text())["how"]["device"])
        return str(device["name"]), device
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise mounts.MountError(f"{given}: found no device in it ({error!r}), wanted a run_report.json") from error


def _agreed(
    named: str | None, device: dict[str, Any] | None, how: Mapping[str, Any]
) -> tuple[str | None, dict[str, Any] | None]:
    """Give the device that the ledger holds, where it holds one. Raises LedgerError where another one is asked for."""
    if not how:
        return named, device
    agreed = dict(how["device"])
    if (device and device != agreed) or (named and named != agreed["name"]):
        wanted = f"wanted {agreed} as in the run that is gone on with: name another --scratch to begin anew"
        raise LedgerError(f"--device: found {device or named}, {wanted}")
    return named, agreed


def _scratch(arguments: argparse.Namespace) -> Path:
    """Give the folder of this run below the scratch folder: the same one when it is started again."""
    name = hashlib.sha256(bytes(arguments.out.resolve())).hexdigest()[:12]
    return Path(arguments.scratch) / f"surface_{name}"


def _sides(shape_zyx: Sequence[int]) -> str:
    return "×".join(str(size) for size in shape_zyx)


def _standing(case: str, path: Path) -> Standing:
    """Look at an image's header: a volume that cannot be used has no further stage, and zeros of the shape it says."""
    try:
        return Standing(case, path, read_header(path).shape_zyx)
    except VolumeError as error:
        if error.shape_zyx:
            return Standing(case, path, error.shape_zyx, closed=str(error))
        return Standing(case, path, USUAL_SHAPE_ZYX, closed=f"{error}; its shape is a guess")


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
    logging.raiseExceptions = False  # a log that nobody reads any more must not fill up with that
    try:
        exit_code = main()
    except Exception:  # not foreseen: whoever started this should start it again, which 1 would keep it from
        traceback.print_exc()
        exit_code = UNFORESEEN
    sys.exit(exit_code)
