"""What an image of a data folder holds: its greys, and what it looks like from afar."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from surface_kernel.volumes import volume
from surface_kernel.volumes.header import VolumeError

CELLS = 16  # of a thumbnail, on each axis
_SAMPLES = 4  # of a cell, on each axis: 64 voxels average noise out, and all of them would take as long as reading does
BINS = 64  # of the histogram of greys

Grey = npt.NDArray[np.uint8]
Thumbnail = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """The facts of one image."""

    shape_zyx: tuple[int, ...]
    greys: npt.NDArray[np.int64]
    """How many voxels have each of BINS ranges of grey; voxels of 0, a scan's margin, are left out."""
    mean: float
    """Of the greys that are not 0."""
    zeros: float
    """Share of the voxels that are 0."""
    thumbnail: Thumbnail
    """As `thumbnail_of` returns it."""


def image_facts(path: Path) -> ImageFacts | str:
    """Return the facts of an image, or why it cannot be read."""
    try:
        image = volume.read(path)
    except (VolumeError, OSError) as error:
        return str(error)
    # Plane by plane: bincount makes eight bytes of each voxel.
    counts = sum((np.bincount(plane.reshape(-1), minlength=256) for plane in image), np.zeros(256, np.int64))
    zeros, counts[0] = int(counts[0]), 0
    return ImageFacts(
        shape_zyx=image.shape,
        greys=counts.reshape(BINS, -1).sum(axis=1),
        mean=float(counts @ np.arange(256)) / max(int(counts.sum()), 1),
        zeros=zeros / image.size,
        thumbnail=thumbnail_of(image),
    )


def thumbnail_of(image: Grey) -> Thumbnail:
    """Return an image reduced to cells, ready to be correlated: float32 of mean 0 and length 1.

    Two images correlate by the product of their thumbnails. A cell without any scanned sample has the mean, so equal
    margins do not make images alike.

    Returns:
        One value for each of CELLS × CELLS × CELLS cells, from its samples' mean grey; zeros where all are the same.
    """
    samples = image[tuple(slice(None, None, max(1, length // (CELLS * _SAMPLES))) for length in image.shape)]
    scanned = _sums_of_cells(samples != 0)
    means = _sums_of_cells(samples) / np.maximum(scanned, 1)
    seen = scanned > 0
    flat = np.where(seen, means - (means[seen].mean() if seen.any() else 0), 0).reshape(-1)
    length = float(np.linalg.norm(flat))
    # Rounding leaves a length of some 1e-12 where all cells are the same.
    return (flat / length if length > 1e-6 else np.zeros_like(flat)).astype(np.float32)


def _sums_of_cells(volume: npt.NDArray[np.uint8 | np.bool_]) -> npt.NDArray[np.uint32]:
    sums: npt.NDArray[np.uint32] = np.asarray(volume, np.uint8)
    for axis, length in enumerate(volume.shape):
        sums = np.add.reduceat(sums, np.arange(CELLS) * length // CELLS, axis=axis, dtype=np.uint32)
    return sums
