"""What a case of a data folder is, and what is wrong with it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from surface_kernel.volumes import volume
from surface_kernel.volumes.header import VolumeError

LABELS = 3
SIGNATURE_CELLS = 12  # on each axis
BINS = 64  # of the histogram of greys
_LISTED = 5

Grey = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class CaseInFolder:
    """A case that a data folder has files of, or a row."""

    id: str
    scroll: str
    """Empty where the table has no row."""
    image: Path | None
    label: Path | None


@dataclass(frozen=True, kw_only=True)
class CaseFacts:
    """A case's facts; what could not be read is None."""

    id: str
    scroll: str
    shape_zyx: tuple[int, ...] | None
    shares: tuple[float, ...] | None
    """Of the labels 0, 1 and 2, of all voxels."""
    greys: npt.NDArray[np.int64] | None
    """How many voxels have each of BINS ranges of grey; voxels of 0, a scan's margin, are left out."""
    signature: npt.NDArray[np.float32] | None
    """The image made very small, mean 0 and length 1: near-duplicates have nearly the same."""
    faults: tuple[str, ...]


def case_facts(case: CaseInFolder) -> CaseFacts:
    """Return the facts of a case; a file that cannot be read is one of its faults."""
    faults = []
    if not case.scroll:
        faults.append("files without a row in train.csv")
    arrays: dict[str, Grey | None] = {}
    for kind, path in (("image", case.image), ("label", case.label)):
        arrays[kind] = None
        if path is None:
            faults.append(f"no {kind}")
            continue
        try:
            arrays[kind] = volume.read(path)
        except (VolumeError, OSError) as error:
            faults.append(f"{kind} cannot be read: {error}")
    image, label = arrays["image"], arrays["label"]
    if image is not None and label is not None and image.shape != label.shape:
        faults.append(f"image of {image.shape}, label of {label.shape}")
    shares = None
    if label is not None:
        counts = np.bincount(label.reshape(-1), minlength=256)
        shares = tuple(float(count) / label.size for count in counts[:LABELS])
        faults += label_faults(label, counts)
    shape = next((array.shape for array in (image, label) if array is not None), None)
    return CaseFacts(
        id=case.id,
        scroll=case.scroll,
        shape_zyx=shape,
        shares=shares,
        greys=None if image is None else _greys(image),
        signature=None if image is None else signature(image),
        faults=tuple(faults),
    )


def label_faults(label: Grey, counts: npt.NDArray[np.int64]) -> list[str]:
    """Return what is wrong with a label.

    Args:
        label: uint8 (z, y, x).
        counts: How many voxels have each value.
    """
    faults = []
    if not counts[1]:
        faults.append("no label 1")
    others = [str(value) for value in range(LABELS, len(counts)) if counts[value]]
    if others:
        faults.append(f"labels beyond 0 to 2: {', '.join(others[:_LISTED])}{', …' * (len(others) > _LISTED)}")
    faces = [np.take(label, index, axis) for axis in range(label.ndim) for index in (0, -1)]
    wrong = sum(int(np.count_nonzero(face != 2)) for face in faces)
    if wrong:
        faults.append(f"a shell that is not 2: {wrong / sum(face.size for face in faces):.2%} of it")
    return faults


def signature(image: Grey) -> npt.NDArray[np.float32]:
    """Return an image as a few samples of blocks, float32, mean 0 and length 1; zeros where it is all the same."""
    steps = [np.linspace(0, length - 1, SIGNATURE_CELLS * 2).astype(int) for length in image.shape]
    samples = image[np.ix_(*steps)].astype(np.float32)
    small = samples.reshape([part for _ in range(3) for part in (SIGNATURE_CELLS, 2)]).mean(axis=(1, 3, 5))
    flat = (small - small.mean()).reshape(-1)
    length = float(np.linalg.norm(flat))
    made: npt.NDArray[np.float32] = flat / length if length else flat
    return made


def _greys(image: Grey) -> npt.NDArray[np.int64]:
    counts = np.bincount(image.reshape(-1), minlength=256)
    counts[0] = 0
    binned: npt.NDArray[np.int64] = counts.reshape(BINS, -1).sum(axis=1)
    return binned
