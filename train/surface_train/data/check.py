"""The cases of a training judged before its first step: headers, shapes and the values of every label.

A label is read whole, an image by its header. That is minutes for the competition's 786 cases, so what was found is
kept for each pair of files by size and time of change, in the user's cache, and a later check reads only what changed.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from surface_kernel import disk, machine
from surface_kernel.message import one_line
from surface_kernel.volumes import volume
from surface_kernel.volumes.header import Shape, VolumeError, read_header
from surface_train.data.cases import UNLABELLED, Case, sizes_by_scroll

IMAGE, LABEL, SHAPE, VALUES = FAULTS = ("image", "label", "shape", "values")
SHELL = 3  # voxels on every side that the competition's labels leave unlabelled
_FORMAT = "surface-check/2"
_LISTED = 8  # faulty cases that an error names
log = logging.getLogger("surface_train")


@dataclass(frozen=True, kw_only=True)
class CheckedCase:
    """What the files of one case hold."""

    name: str
    """Id of the case."""
    scroll: str
    """Id of its scroll."""
    shape_zyx: Shape | None = None
    """Of the image; None where its header cannot be read."""
    dtype: str = ""
    """Of the image: "uint8", the only one that can be used; empty where its header cannot be read."""
    counts: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Voxels of the label that are 0, 1, 2, and anything else; zeros where it cannot be read."""
    others: tuple[int, ...] = ()
    """The values of the label beside 0, 1 and 2, the least first."""
    labelled_shell: float = 0.0
    """Share of the label's outermost SHELL voxels that is not 2."""
    fault: str = ""
    """One of FAULTS: the image's file, the label's file, shapes that differ, values of the label; empty for none."""
    message: str = ""
    """The fault in words, with the file's name."""

    @property
    def surface_share(self) -> float:
        """The share of 1 among the labelled voxels, 0 where there are none."""
        return self.counts[1] / max(self.counts[0] + self.counts[1], 1)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a training can use all the same, but whoever made the label hardly meant, in words."""
        if not any(self.counts):
            return ()
        shell = f"{self.labelled_shell:.2%} of the shell of {SHELL} voxels is labelled, expected 2 only"
        return ("no label 1",) * (not self.counts[1]) + (shell,) * (self.labelled_shell > 0)


def check(cases: Sequence[Case]) -> list[CheckedCase]:
    """Check the files of cases, on all cores, those that did not change since an earlier check from its cache.

    Args:
        cases: with files, as `cases.read` returns them.

    Returns:
        For each case, in order: its id and scroll, shape and dtype of the image, how many voxels of the label are 0,
        1, 2 and anything else, and the first fault of its files, by kind and in words. Nothing is raised for a fault.
    """
    store = _store(cases)
    known = _read_store(store)
    stamps = [_stamp(case) for case in cases]
    with ThreadPoolExecutor(machine.cores()) as pool:
        asked = pool.map(lambda case, stamp: _recalled(known, case, stamp) or _check(case), cases, stamps)
        checked = list(tqdm(asked, "checking cases", len(cases), unit="case", leave=False, disable=None))
    # Faults are looked for afresh every time: they may lie in this machine's memory or disk.
    sound = {
        _key(case): {"stamp": stamp, **asdict(result)}
        for case, stamp, result in zip(cases, stamps, checked, strict=True)
        if not result.fault
    }
    if any(known.get(key) != entry for key, entry in sound.items()):
        _write_store(store, known | sound)
    return checked


def refusal(checked: Iterable[CheckedCase]) -> str:
    """Return why a training on these cases must not begin, naming them; empty where it may."""
    faulty = [case for case in checked if case.fault]
    if not faulty:
        return ""
    ids = ", ".join(f'"{case.name}"' for case in faulty)
    listed = "; ".join(case.message for case in faulty[:_LISTED])
    more = f"; and {len(faulty) - _LISTED} more" if len(faulty) > _LISTED else ""
    return f"{listed}{more}: mend the files, or leave the cases out with exclude = [{ids}] in the settings"


def described(checked: Sequence[CheckedCase], cases: Sequence[Case]) -> str:
    """Return the check of a data folder in a few lines: cases, shapes, labels, and a line for each fault."""
    scrolls = ", ".join(f"scroll {scroll}: {count}" for scroll, count in sizes_by_scroll(cases).items())
    shapes: dict[str, int] = {}
    for case in checked:
        if case.shape_zyx:
            shape = "×".join(map(str, case.shape_zyx))
            shapes[shape] = shapes.get(shape, 0) + 1
    counts = np.sum([case.counts for case in checked], axis=0)
    zero, one, two, other = counts / max(counts.sum(), 1)
    lines = [
        f"{len(checked)} cases ({scrolls})",
        "  shapes: " + ", ".join(f"{shape} ×{count}" for shape, count in sorted(shapes.items())),
        f"  labels: 0 {zero:.2%}, 1 {one:.2%}, 2 (unlabelled) {two:.2%}, other {other:.2%}",
    ]
    if empty := [case.name for case in checked if not case.fault and not case.counts[1]]:
        lines.append(f"  without surface: {', '.join(empty)}")
    if labelled := [case.name for case in checked if case.labelled_shell]:
        lines.append(f"  labelled within {SHELL} voxels of a side: {', '.join(labelled)}")
    lines += [f"  FAULT ({case.fault}), case {case.name}: {case.message}" for case in checked if case.fault]
    return "\n".join(lines)


def _check(case: Case) -> CheckedCase:
    result = CheckedCase(name=case.name, scroll=case.scroll)
    try:
        shape_zyx = read_header(case.image).shape_zyx
    except (VolumeError, OSError) as error:
        return replace(result, fault=IMAGE, message=_named(case.image, error))
    result = replace(result, shape_zyx=shape_zyx, dtype="uint8")
    try:
        label = volume.open_volume(case.label)
        histogram = sum((np.bincount(page.reshape(-1), minlength=256) for page in label), np.zeros(256, np.int64))
        shell = _labelled_shell(label)
    except (VolumeError, OSError, MemoryError) as error:
        return replace(result, fault=LABEL, message=_named(case.label, error))
    zero, one, two = map(int, histogram[: UNLABELLED + 1])
    others = tuple(int(value) for value in np.flatnonzero(histogram) if value > UNLABELLED)
    other = int(histogram[UNLABELLED + 1 :].sum())
    result = replace(result, counts=(zero, one, two, other), others=others, labelled_shell=shell)
    if label.shape != shape_zyx:
        got = f"{case.label}: expected a label of {shape_zyx} as its image, got {label.shape}"
        return replace(result, fault=SHAPE, message=got)
    if others:
        got = f"{case.label}: expected labels 0, 1 and 2 only, got {', '.join(map(str, others[:3]))}"
        return replace(result, fault=VALUES, message=f"{got} in {other:,} voxels")
    return result


def _labelled_shell(label: volume.Volume) -> float:
    """Return the share of a label's outermost SHELL voxels that is not 2."""
    inner = np.s_[SHELL:-SHELL, SHELL:-SHELL]
    labelled, inside, voxels = 0, 0, 0
    for number, page in enumerate(label):
        labelled += int(np.count_nonzero(page != UNLABELLED))
        if SHELL <= number < len(label) - SHELL:
            inside += int(np.count_nonzero(page[inner] != UNLABELLED))
            voxels += page[inner].size
    return (labelled - inside) / (label.size - voxels)


def _named(path: Path, error: BaseException) -> str:
    return str(error) if str(path) in str(error) else f"{path}: {one_line(error)}"


# --- what earlier checks found


def _store(cases: Sequence[Case]) -> Path | None:
    """Return the file of earlier checks of the folder that the cases lie in; None without cases or a cache."""
    folder = machine.cache_folder()
    if not cases or folder is None:
        return None
    digest = hashlib.sha256(str(cases[0].image.parent.resolve()).encode()).hexdigest()[:16]
    return folder / f"cases_{digest}.json"


def _read_store(store: Path | None) -> dict[str, Any]:
    try:
        content = json.loads(store.read_bytes()) if store else {}
        return dict(content["cases"]) if content.get("format") == _FORMAT else {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):  # no cache, or none that we wrote
        return {}


def _write_store(store: Path | None, entries: Mapping[str, Any]) -> None:
    if store is None:
        return
    try:
        disk.put(store, json.dumps({"format": _FORMAT, "cases": entries}).encode())
    except OSError as error:  # the next check takes as long as this one, and that is all
        log.debug("checks of cases are not kept: %s", error)


def _key(case: Case) -> str:
    return f"{case.image.resolve()}\n{case.label.resolve()}"


def _stamp(case: Case) -> list[int] | None:
    """Return sizes and times of change of a case's files; None where one is missing."""
    try:
        image, label = case.image.stat(), case.label.stat()
    except OSError:
        return None
    return [image.st_size, image.st_mtime_ns, label.st_size, label.st_mtime_ns]


def _recalled(known: Mapping[str, Any], case: Case, stamp: list[int] | None) -> CheckedCase | None:
    """Return what an earlier check found in the same files; None where it did not see them."""
    entry = known.get(_key(case))
    if not isinstance(entry, dict) or stamp is None or entry.get("stamp") != stamp:
        return None
    try:
        shape_zyx, counts = tuple(map(int, entry["shape_zyx"])), tuple(map(int, entry["counts"]))
        shell = float(entry["labelled_shell"])
    except (KeyError, TypeError, ValueError):
        return None
    if len(shape_zyx) != 3 or len(counts) != 4:
        return None
    result = CheckedCase(name=case.name, scroll=case.scroll, shape_zyx=shape_zyx, dtype="uint8", counts=counts)
    return replace(result, labelled_shell=shell)
