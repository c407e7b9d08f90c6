"""Where several fields of one case disagree: members of an ensemble, views of one network, or two trainings."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from surface_kernel import probability

THRESHOLD = 0.5

Logits = npt.NDArray[np.float32]
Deviations = npt.NDArray[np.uint8]

_STEPS = 255 / 0.5  # of a deviation as a byte: those of values from 0 to 1 end at 0.5


class FieldsError(ValueError):
    """Fields of a case that cannot be compared; the message names the file, what was expected and what it is."""


@dataclass(frozen=True, kw_only=True)
class Plane:
    """A plane of a volume."""

    axis: int
    """0, 1 or 2 for z, y or x: the axis that it is perpendicular to."""
    index: int

    def of(self, volume: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """Return this plane of a volume (z, y, x)."""
        plane: npt.NDArray[np.generic] = np.take(volume, self.index, self.axis)
        return plane


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """How much the fields of a case differ."""

    id: str
    deviation: float
    """Mean over all voxels of the standard deviation of the probabilities, in [0, 0.5]."""
    contested: float | None
    """Of the voxels where some field is above THRESHOLD, the share where not all are; None where none is."""
    plane: Plane
    """The one with the largest mean deviation."""
    mean: Logits
    """Probability in that plane, the mean of the fields."""
    deviations: Logits
    """In that plane."""


def disagreement(id_: str, folders: Sequence[Path]) -> Disagreement:
    """Return how much the fields of a case differ. One plane of each is held at a time.

    Args:
        id_: Of the case.
        folders: Each with the logits of a member or view, {id}.npy as `surface_kernel predict --save logit` writes.

    Raises:
        FieldsError: for a file that is missing or holds no logits, and for fields of several shapes.
    """
    fields = [_field(folder / f"{id_}.npy") for folder in folders]
    shape = fields[0].shape
    for folder, field in zip(folders, fields, strict=True):
        if field.shape != shape:
            raise FieldsError(f"{folder / id_}.npy: expected a field of {shape} as in {folders[0]}, got {field.shape}")
    deviations, some, every = np.empty(shape, np.uint8), 0, 0
    for index in range(len(deviations)):
        made = _probabilities(fields, Plane(axis=0, index=index))
        deviations[index] = np.rint(made.std(axis=0) * _STEPS)
        some += int(np.count_nonzero((made > THRESHOLD).any(axis=0)))
        every += int(np.count_nonzero((made > THRESHOLD).all(axis=0)))
    plane = most_of(deviations)
    seen = _probabilities(fields, plane)
    return Disagreement(
        id=id_,
        deviation=float(deviations.mean()) / _STEPS,
        contested=(some - every) / some if some else None,
        plane=plane,
        mean=seen.mean(axis=0),
        deviations=seen.std(axis=0),
    )


def most_of(volume: Deviations) -> Plane:
    """Return the plane of a volume, across any axis, with the largest mean."""
    means = [volume.mean(axis=tuple(other for other in range(3) if other != axis)) for axis in range(3)]
    axis = max(range(3), key=lambda axis: means[axis].max())
    return Plane(axis=axis, index=int(means[axis].argmax()))


def _field(path: Path) -> npt.NDArray[np.floating]:
    expected = "expected logits (z, y, x) of `surface_kernel predict --save logit`"
    try:
        field: npt.NDArray[np.floating] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise FieldsError(f"{path}: {expected}, got {error}") from error
    if field.ndim != 3 or not field.size or field.dtype.kind != "f":
        raise FieldsError(f"{path}: {expected}, got {field.dtype} {field.shape}")
    middle = field[len(field) // 2]
    if middle.min() >= 0 and middle.max() <= 1:  # logits of a plane without any background do not exist
        raise FieldsError(f"{path}: {expected}, got values from 0 to 1, which are probabilities or a mask")
    return field


def _probabilities(fields: Sequence[npt.NDArray[np.floating]], plane: Plane) -> Logits:
    """Return the probabilities of each field in a plane: float32 (field, rows, columns)."""
    return np.stack([probability.probabilities(np.asarray(plane.of(field), np.float32)) for field in fields])
