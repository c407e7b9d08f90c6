"""The CT of a case made small: averaged into cells, its planes side by side in one lossy picture."""

import io
import math

import numpy as np
import numpy.typing as npt
from PIL import Image

from surface_report.slices.cells import Shape, first_voxels

Grey = npt.NDArray[np.uint8]

QUALITIES = (5, 8, 12, 18, 26, 36, 48, 60, 75)  # of WebP, of 100
MOST_PIXELS = 16383  # of a WebP's side
_METHOD = 2  # of 0 to 6: a tenth more bytes than 4, in half of its time


def reduce(volume: Grey, cells_zyx: Shape) -> Grey:
    """Return the mean grey of each cell, uint8 (z, y, x)."""
    depth, height, width = cells_zyx
    if volume.shape[1:] != (height, width):
        pages = (Image.fromarray(plane).resize((width, height), Image.Resampling.BOX) for plane in volume)
        volume = np.stack([np.asarray(page) for page in pages])
    if len(volume) == depth:
        return np.ascontiguousarray(volume)
    starts = first_voxels(len(volume), depth)
    counts = np.diff(np.append(starts, len(volume)))
    sums = np.add.reduceat(volume, starts, axis=0, dtype=np.uint32)
    counts = counts[:, None, None]
    means: Grey = ((sums + counts // 2) // counts).astype(np.uint8)
    return means


def columns(cells_zyx: Shape) -> int:
    """Return how many planes an atlas has side by side: it is about as high as it is wide."""
    depth, height, width = cells_zyx
    return min(max(round(math.sqrt(depth * height / width)), 1), depth, MOST_PIXELS // width)


def atlas(volume: Grey) -> Grey:
    """Return the planes of a volume side by side, row after row, 0 where there is none."""
    depth, height, width = volume.shape
    across = columns((depth, height, width))
    rows = math.ceil(depth / across)
    padded = np.zeros((rows * across, height, width), np.uint8)
    padded[:depth] = volume
    laid = padded.reshape(rows, across, height, width).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(laid.reshape(rows * height, across * width))


def webp(plane: Grey, quality: int) -> bytes:
    """Return a picture (y, x) as a lossy WebP."""
    file = io.BytesIO()
    Image.fromarray(plane).save(file, format="WEBP", quality=quality, method=_METHOD)
    return file.getvalue()


def webp_within(plane: Grey, most_bytes: int) -> bytes:
    """Return a picture as a WebP of the best quality that fits, or of the least one where none does."""
    low, high = 0, len(QUALITIES) - 1
    best = b""
    while low <= high:
        middle = (low + high) // 2
        content = webp(plane, QUALITIES[middle])
        if len(content) <= most_bytes:
            best, low = content, middle + 1
        else:
            high = middle - 1
    return best or webp(plane, QUALITIES[0])
