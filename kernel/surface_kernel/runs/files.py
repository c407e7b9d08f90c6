"""Volumes of a file or folder, each into a mask, probabilities or logits beside its name: what `predict` does."""

import glob
import logging
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from surface_kernel import disk
from surface_kernel.inference.settings import Settings, from_toml
from surface_kernel.message import some_of
from surface_kernel.networks.device import DeviceRequest
from surface_kernel.postprocess.mask_settings import MaskSettings
from surface_kernel.runs.messages import Done, LoadEngine, Ready, Unit
from surface_kernel.runs.mounts import MountError
from surface_kernel.runs.pipeline import Pipeline, UnitHandler
from surface_kernel.runs.progress import ProgressBar
from surface_kernel.runs.report import Outcome
from surface_kernel.volumes.header import VolumeError, read_header
from surface_kernel.volumes.image_files import write_npy
from surface_kernel.volumes.mask_files import write_mask
from surface_kernel.volumes.names import SUFFIXES, find_volumes

if TYPE_CHECKING:
    from surface_kernel.inference.predict import Logits
    from surface_kernel.volumes.volume import Volume

MASK, PROBABILITY, LOGIT = KINDS = ("mask", "probability", "logit")
log = logging.getLogger("surface_kernel")


def predict(
    *,
    weights: Sequence[Path],
    source: Path,
    out: Path,
    save: str = MASK,
    settings: Path | None = None,
    device: DeviceRequest | None = None,
) -> Outcome:
    """Predict the volumes of a file or folder, each into OUT.

    Args:
        weights: files of the members.
        source: a .tif or .npy volume, or a folder of some.
        out: another folder; made where it does not exist.
        save: one of KINDS.
        settings: a TOML file; None: the defaults.
        device: without one all GPUs, else the CPU.

    Raises:
        MountError: for a folder without volumes, or results that could replace them.
        SettingsError: for the settings.
        WorkerError: where no worker can begin.
    """
    paths = _volumes(source)
    chosen = from_toml(settings) if settings else Settings()
    if any(path.parent.resolve() == out.resolve() for path in paths):
        raise MountError(f"{out}: expected another folder than that of the volumes, which results could replace")
    out.mkdir(parents=True, exist_ok=True)
    mask = chosen.mask
    if mask.threshold is None and mask.field_steps:  # else the workers know the weights' own, and apply it
        from surface_kernel.networks.weights import describe  # numba and torch, which a submission begins without

        mask = mask.with_threshold(describe(weights[0]).threshold)
    units = [unit for path in paths if (unit := _unit(path, out, save=save, mask=mask))]
    run = FilesRun(units, out=out, save=save, mask=mask)
    results: list[FileResult] = []
    if units:
        _remove_intermediate(units)  # of a run that was killed
        try:
            with Pipeline(LoadEngine(files=tuple(weights), settings=chosen), run, device=device) as pipeline:
                for result in pipeline.run():
                    run.progress.log(result.line)
                    results.append(result)
        finally:
            run.progress.close()
            _remove_intermediate(units)
    if left := len(units) - len(results):
        log.error("error: no worker was left for %d of %d volumes", left, len(units))
    predicted = sum(result.saved for result in results)
    if predicted == len(paths):
        return Outcome.COMPLETE
    return Outcome.DEGRADED if predicted else Outcome.FAILED


def _volumes(source: Path) -> list[Path]:
    """Return the files of volumes. Raises MountError where there is none, and ValueError for two of one name."""
    if not source.is_dir():
        return [source]
    paths, others = find_volumes(source)
    if others:
        log.info("%s: passed over, since volumes are named *%s: %s", source, ", *".join(SUFFIXES), some_of(others))
    if not paths:
        raise MountError(f"{source}: expected .tif or .npy volumes, got none")
    return paths


def _unit(path: Path, out: Path, *, save: str, mask: MaskSettings) -> Unit | None:
    """Return what a worker is to do with a volume; None, and log why, where it cannot be used.

    A worker applies the threshold itself, and keeps the field only where it is wanted, or a step reads it.
    """
    try:
        header = read_header(path)
    except VolumeError as error:
        log.error("error: %s", error)
        return None
    raw = out / f"{path.stem}.raw.partial"
    thresholded = save == MASK and not mask.field_steps
    return Unit(
        case=path.stem,
        path=path,
        shape_zyx=header.shape_zyx,
        mask=raw if thresholded else None,
        sums=None if thresholded else raw,
        scanned=out / f"{path.stem}.scanned.partial" if mask.clear_unscanned else None,
    )


def _remove_intermediate(units: Sequence[Unit]) -> None:
    """Remove what lies between a worker and the file that is wanted, and what was being written of it."""
    for path in filter(None, (each for unit in units for each in (unit.mask, unit.sums, unit.scanned))):
        path.unlink(missing_ok=True)
        for partial in path.parent.glob(f"{glob.escape(path.name)}.*{disk.PARTIAL}"):
            partial.unlink(missing_ok=True)


@dataclass(frozen=True, kw_only=True)
class FileResult:
    """What came of a volume."""

    line: str
    saved: bool


class FilesRun(UnitHandler[FileResult]):
    """Volumes that are predicted once, and once more where that may help, as a pipeline's handler."""

    def __init__(self, units: Sequence[Unit], *, out: Path, save: str, mask: MaskSettings) -> None:
        self.progress = ProgressBar()
        self._units, self._left, self._again = units, deque(units), set[str]()
        self._out, self._save, self._mask, self._passes = out, save, mask, 1

    def next_unit(self, queued: Sequence[Unit]) -> Unit | None:
        """Return the next volume's unit."""
        return self._left.popleft() if self._left else None

    def on_done(self, done: Done) -> bool:
        """Let a volume be tried once more where that may help; return whether it is to be finished."""
        if not done.again or done.unit.case in self._again:
            return True
        self._again.add(done.unit.case)
        self._left.append(done.unit)
        return False

    def may_continue(self) -> bool:
        """Return that there is time: `predict` has no budget."""
        return True

    def on_ready(self, ready: Ready) -> None:
        """Log how the networks run, and show a bar."""
        self._passes = ready.passes
        volumes = Counter(unit.shape_zyx for unit in self._units)
        self.progress.begin(ready, volumes, {shape: count * ready.stages for shape, count in volumes.items()})

    def on_tiles(self, count: int) -> None:
        """Move the progress bar."""
        self.progress.add(count)

    def on_trouble(self, line: str) -> None:
        """Log what happened to a worker."""
        self.progress.log(line)

    def finish(self, done: Done) -> FileResult:
        """Turn what a worker left into the file that is wanted."""
        unit = done.unit
        raw = unit.mask or unit.sums
        assert raw is not None  # a volume has one of them
        try:
            if done.error:
                error = done.error if str(unit.path) in done.error else f"{unit.path}: {done.error}"
                return FileResult(line=f"error: {error}", saved=False)
            failures: list[str] = []
            content = self._save_mask(unit, raw, failures) if self._save == MASK else self._save_logits(unit, raw)
        finally:
            for path in filter(None, (raw, unit.scanned)):
                path.unlink(missing_ok=True)
        incidents = "".join(f"; {incident}" for incident in (*done.incidents, *failures))
        return FileResult(line=f"{unit.case}  {done.seconds:.1f} s  {content}{incidents}", saved=True)

    def _save_mask(self, unit: Unit, raw: Path, failures: list[str]) -> str:
        import numpy as np

        from surface_kernel.postprocess.mask import finish_mask, threshold_field

        if unit.sums:
            field = np.memmap(raw, np.float32, "r", shape=unit.shape_zyx) / np.float32(self._passes)
            mask = threshold_field(field, _bits(unit), self._mask)
        else:
            mask = np.memmap(raw, np.uint8, "r+", shape=unit.shape_zyx)
        unscanned = finish_mask(mask, _bits(unit), self._mask, on_failure=failures.append)
        write_mask(self._out / f"{unit.case}.tif", mask)
        removed = f", unscanned {unscanned:.2%} removed" if unscanned else ""
        return f"foreground {_mean(mask):.2%}{removed}"

    def _save_logits(self, unit: Unit, raw: Path) -> str:
        import numpy as np

        from surface_kernel.probability import probabilities

        sums, bits = np.memmap(raw, np.float32, "r", shape=unit.shape_zyx), _bits(unit)
        means = (_cleared(plane / np.float32(self._passes), z, bits) for z, plane in enumerate(sums))
        planes = map(probabilities, means) if self._save == PROBABILITY else means
        mean = write_npy(self._out / f"{unit.case}.npy", planes, unit.shape_zyx)
        return f"mean {self._save} {mean:.4f}"


def _bits(unit: Unit) -> "Volume | None":
    """Return which voxels were scanned, as a worker left it; None where nobody asked."""
    import numpy as np

    from surface_kernel.volumes.scanned import bits_shape

    return np.memmap(unit.scanned, np.uint8, "r", shape=bits_shape(unit.shape_zyx)) if unit.scanned else None


def _cleared(plane: "Logits", z: int, bits: "Volume | None") -> "Logits":
    """Return a plane of logits, those of unscanned voxels set to what they are in every field."""
    if bits is not None:
        from surface_kernel.volumes.scanned import fill_unscanned

        fill_unscanned(plane[None], bits[z : z + 1])
    return plane


def _mean(mask: "Volume") -> float:
    return sum(float(plane.mean()) for plane in mask) / len(mask)
