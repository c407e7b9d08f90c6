"""Masks or logits from anywhere, each through the steps of post-processing into OUT: what `postprocess` does."""

import json
import logging
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from surface_kernel import __version__, disk
from surface_kernel.inference.settings import from_toml
from surface_kernel.machine import cores
from surface_kernel.message import one_line
from surface_kernel.postprocess.mask import make_mask
from surface_kernel.postprocess.mask_settings import MaskSettings
from surface_kernel.runs.mounts import MountError
from surface_kernel.runs.records import file_digest
from surface_kernel.runs.report import Outcome
from surface_kernel.volumes.header import VolumeError
from surface_kernel.volumes.mask_files import write_mask
from surface_kernel.volumes.names import SUFFIXES, find_volumes
from surface_kernel.volumes.scanned import scanned_bits
from surface_kernel.volumes.volume import open_volume

RECORD = "postprocess.json"
MASK_LOGIT = np.float32(20)  # a mask stands for a field that is as sure as this, one way or the other
USUAL_THRESHOLD = 0.5  # there are no weights here that would have one of their own
_MOST_AT_A_TIME = 4  # volumes; a step may take some 10 bytes a voxel
log = logging.getLogger("surface_kernel")


@dataclass(frozen=True, kw_only=True)
class _Chain:
    """What every volume goes through, and what is known of it."""

    settings: MaskSettings
    images: Mapping[str, Path] | None
    """The CT by the names of volumes; None where there is none."""
    out: Path


def postprocess(*, source: Path, out: Path, settings: Path | None = None, images: Path | None = None) -> Outcome:
    """Run the steps of post-processing on masks or logits, each into OUT/name.tif.

    Args:
        source: a mask (TIFF or .npy of uint8: 0 and 1, or 0 and 255), logits (.npy of float16 or float32), a folder of
            either, or a submission.zip, of which one of its name is made again, unless a mask fails.
        out: another folder; made where it does not exist. It gets a record, RECORD, too.
        settings: a TOML file; None: the default steps.
        images: the CT of the one volume, or a folder that has it under the volumes' names. Unscanned voxels are cleared
            by it; without it they are not.

    Raises:
        MountError: for a source without volumes, or results that could replace them.
        SettingsError: for the settings.
    """
    chosen = from_toml(settings).mask if settings else MaskSettings()
    chosen = chosen.with_threshold(USUAL_THRESHOLD) if chosen.threshold is None else chosen
    with _volumes(source) as paths:
        if any(path.parent.resolve() == out.resolve() for path in paths.values()):
            raise MountError(f"{out}: expected another folder than that of the masks, which results could replace")
        chain = _Chain(settings=chosen, images=_images(images, paths), out=out)
        if images is None and chosen.clear_unscanned:
            log.info("unscanned voxels were not cleared: there is no --images to know them by")
        out.mkdir(parents=True, exist_ok=True)
        done = _run(paths, chain)
    if source.suffix.lower() == ".zip":
        if len(done) == len(paths):
            _write_zip(out / source.name, sorted(done), out)
        else:  # a submission that lacks volumes is refused
            log.error("error: no %s was written: %d masks are missing", source.name, len(paths) - len(done))
    record = {
        "version": __version__,
        "settings": chosen.to_entries(),
        "unscanned_cleared": images is not None and chosen.clear_unscanned,
        "volumes": {name: done[name] for name in sorted(done)},
    }
    disk.put(out / RECORD, (json.dumps(record, indent=2) + "\n").encode())
    if len(done) == len(paths):
        return Outcome.COMPLETE
    return Outcome.DEGRADED if done else Outcome.FAILED


@contextmanager
def _volumes(source: Path) -> Iterator[dict[str, Path]]:
    """Yield the files of volumes by their names; those of a zip are unpacked for as long. Raises MountError."""
    if source.suffix.lower() == ".zip":
        with tempfile.TemporaryDirectory() as folder:
            yield _unpacked(source, Path(folder))
        return
    paths = find_volumes(source)[0] if source.is_dir() else [source]
    if not paths:
        raise MountError(f"{source}: expected masks or logits (*{', *'.join(SUFFIXES)}), got none")
    yield {path.stem: path for path in paths}


def _unpacked(source: Path, folder: Path) -> dict[str, Path]:
    """Unpack the masks of a submission, by their names alone, wherever in it they are. Raises MountError."""
    paths: dict[str, Path] = {}
    try:
        with zipfile.ZipFile(source) as archive:
            for member in archive.namelist():
                name = PurePosixPath(member).name
                if name.endswith(".tif") and not name.startswith("."):
                    paths[Path(name).stem] = folder / name
                    disk.put_parts(folder / name, [archive.read(member)])
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise MountError(f"{source}: expected a submission.zip, got {one_line(error)}") from error
    if not paths:
        raise MountError(f"{source}: expected masks named *.tif in it, got none")
    return paths


def _images(images: Path | None, paths: Mapping[str, Path]) -> Mapping[str, Path] | None:
    """Return the CT by the names of volumes. Raises MountError where one file is to be that of several."""
    if images is None:
        return None
    if images.is_dir():
        return {path.stem: path for path in find_volumes(images)[0]}
    if len(paths) > 1:
        raise MountError(f"--images {images}: expected a folder for {len(paths)} volumes, got a file")
    return dict.fromkeys(paths, images)


def _run(paths: Mapping[str, Path], chain: _Chain) -> dict[str, dict[str, Any]]:
    """Make every mask, several at a time; return what the record says of those that were made."""
    done = {}
    with ThreadPoolExecutor(min(cores(), _MOST_AT_A_TIME, len(paths)), "volume") as pool, logging_redirect_tqdm():
        futures = {pool.submit(_make, name=name, path=path, chain=chain): name for name, path in paths.items()}
        for future in tqdm(as_completed(futures), total=len(futures), unit="volume", leave=False, disable=None):
            name = futures[future]
            try:
                done[name] = future.result()
            except (ValueError, RuntimeError, OSError, MemoryError) as error:  # the others are made all the same
                log.error("error: %s: %s", name, " ".join(str(error).split()) or type(error).__name__)
            else:
                log.info("%s  foreground %.2f %%", name, 100 * done[name]["foreground"])
    return done


def _make(name: str, path: Path, chain: _Chain) -> dict[str, Any]:
    """Make one mask; return what the record says of it. Raises VolumeError, OSError and what a step raises."""
    field, scanned = read_field(path), None
    if chain.images is not None:
        if name not in chain.images:
            raise VolumeError(f"{path}: expected its CT among --images under the name {name}, got none")
        image = open_volume(chain.images[name])
        if image.shape != field.shape:
            raise VolumeError(f"{chain.images[name]}: expected the shape {field.shape} of {path}, got {image.shape}")
        scanned = scanned_bits(image)
    left_out: list[str] = []
    mask = make_mask(field, scanned, chain.settings, on_failure=left_out.append)
    for said in left_out:
        log.error("error: %s: %s", name, said)
    write_mask(chain.out / f"{name}.tif", mask)
    return {"source_sha256": file_digest(path), "foreground": float(mask.mean()), "left_out": left_out}


def read_field(path: Path) -> npt.NDArray[np.float32]:
    """Return logits as they are, and a mask as logits of ±MASK_LOGIT: float32 (z, y, x).

    Raises:
        VolumeError: for anything else than finite logits, or uint8 voxels of 0 and 1, or of 0 and 255.
        OSError: when it cannot be read.
    """
    if path.suffix.lower() == ".npy":
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise VolumeError(f"{path}: expected an .npy file of logits or a mask, got {one_line(error)}") from error
        if array.dtype in (np.float16, np.float32) and array.ndim == 3:
            field = np.ascontiguousarray(array, np.float32)
            if not np.isfinite(field).all():
                raise VolumeError(f"{path}: expected finite logits, got others")
            return field
    mask = open_volume(path)
    values = np.flatnonzero(np.bincount(mask.ravel(), minlength=256))
    if not set(values) <= {0, 1} and not set(values) <= {0, 255}:
        raise VolumeError(f"{path}: expected a mask of 0 and 1, or of 0 and 255, got the values {values[:8].tolist()}")
    return np.where(mask > 0, MASK_LOGIT, -MASK_LOGIT)


def _write_zip(path: Path, names: list[str], folder: Path) -> None:
    """Write a submission of the masks in a folder, complete or not at all; the same masks give the same bytes."""
    with disk.replacing(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(f"{name}.tif"), (folder / f"{name}.tif").read_bytes())
