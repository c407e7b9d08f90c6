"""Every chain on every volume, scored; a row on disk for each, so that a run that is ended resumes."""

import json
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from surface_kernel import disk
from surface_kernel.postprocess.mask import clear, run_mask_step, threshold_field
from surface_kernel.postprocess.steps import Step
from surface_kernel.runs.records import file_digest
from surface_kernel.volumes.scanned import scanned_bits
from surface_score import score_case
from surface_train.data.cases import Case
from surface_tune.grid import Candidate

Mask = npt.NDArray[np.uint8]
log = logging.getLogger("surface_tune")


class LogitsError(ValueError):
    """Logits that cannot be scored; the message names the file."""


@dataclass(frozen=True, kw_only=True)
class Volume:
    """A volume with its logits and its label."""

    case: Case
    logits: Path
    """An .npy file of float16 or float32, (z, y, x)."""


def score_all(volumes: Sequence[Volume], candidates: Sequence[Candidate], rows: Path, *, workers: int) -> None:
    """Score every chain on every volume that has no row yet.

    Args:
        volumes: the held-out ones.
        candidates: the chains.
        rows: a folder, one .json a volume and chain.
        workers: volumes at a time.

    Raises:
        LogitsError: for logits that do not fit their label.
    """
    rows.mkdir(parents=True, exist_ok=True)
    missing = {volume: [each for each in candidates if not _row(rows, volume, each).is_file()] for volume in volumes}
    total = sum(map(len, missing.values()))
    steps = sum(
        len({each.settings.steps[: end + 1] for each in todo for end in range(each.size)}) for todo in missing.values()
    )
    log.info(
        "%d chains on %d volumes: %d scores to be made, %d are there already; %d steps, common beginnings once",
        len(candidates),
        len(volumes),
        total,
        len(candidates) * len(volumes) - total,
        steps,
    )
    with (
        ThreadPoolExecutor(max(1, workers), "volume") as pool,
        tqdm(total=total, unit="score", leave=False, disable=None) as bar,
    ):
        futures = [
            pool.submit(_score_volume, volume=volume, candidates=todo, rows=rows, bar=bar)
            for volume, todo in missing.items()
            if todo
        ]
        for future in futures:
            future.result()


def read_scores(volumes: Sequence[Volume], candidates: Sequence[Candidate], rows: Path) -> npt.NDArray[np.float64]:
    """Return the scores that `score_all` made: float64 (chains, volumes)."""
    return np.array(
        [
            [json.loads(_row(rows, volume, each).read_text(encoding="utf-8"))["score"] for volume in volumes]
            for each in candidates
        ]
    )


def _row(rows: Path, volume: Volume, candidate: Candidate) -> Path:
    changed_ns = volume.logits.stat().st_mtime_ns
    return rows / f"{volume.case.name}.{_digest(volume.logits, changed_ns)}.{candidate.key}.json"


@cache
def _digest(logits: Path, changed_ns: int) -> str:
    """Return a short sha256 of a file as it was at a time: other logits under the same name are scored anew."""
    return file_digest(logits)[:16]


def _score_volume(volume: Volume, candidates: Sequence[Candidate], rows: Path, bar: tqdm) -> None:
    image, label = volume.case.load()
    field = np.load(volume.logits, mmap_mode="r", allow_pickle=False)
    if field.shape != label.shape or field.dtype not in (np.float16, np.float32):
        expected = f"float16 or float32 logits of the label's shape {label.shape}"
        raise LogitsError(f"{volume.logits}: expected {expected}, got {field.dtype} of {field.shape}")
    scanned = scanned_bits(image)
    for candidate, mask in masks_of(np.ascontiguousarray(field, np.float32), scanned, candidates):
        scored = score_case(mask, label, threads=1)
        row = {"volume": volume.case.name, "scroll": volume.case.scroll, "chain": candidate.name, **scored.as_dict()}
        disk.put(_row(rows, volume, candidate), json.dumps(row).encode())
        bar.update()


def masks_of(
    field: npt.NDArray[np.float32], scanned: Mask | None, candidates: Sequence[Candidate]
) -> Iterator[tuple[Candidate, Mask]]:
    """Yield every chain's mask, as `make_mask` makes it; what chains have in common is computed once.

    A mask is not changed any more once it is yielded.
    """
    by_field: dict[tuple[Step, ...], list[Candidate]] = {}
    for candidate in candidates:
        reading = tuple(step for step in candidate.settings.steps if step.reads == "field")
        by_field.setdefault(reading, []).append(candidate)
    for reading, chains in by_field.items():
        settings = chains[0].settings
        mask = threshold_field(field, scanned, settings)
        clear(mask, scanned, settings)
        yield from _continued(mask, scanned, chains, done=len(reading))


def _continued(
    mask: Mask, scanned: Mask | None, candidates: Sequence[Candidate], *, done: int
) -> Iterator[tuple[Candidate, Mask]]:
    """Yield the masks of chains whose first `done` steps made this one."""
    following: dict[Step, list[Candidate]] = {}
    for candidate in candidates:
        if candidate.size == done:
            yield candidate, mask
        else:
            following.setdefault(candidate.settings.steps[done], []).append(candidate)
    for step, chains in following.items():
        made, settings = mask.copy(), chains[0].settings
        run_mask_step(made, step)
        if step.adds:
            clear(made, scanned, settings)
        yield from _continued(made, scanned, chains, done=done + 1)
