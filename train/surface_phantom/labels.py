"""The labels as annotators leave them: 0 background, 1 recto face, 2 not annotated."""

import numpy as np
import numpy.typing as npt

from surface_phantom.raster import Solid

Label = npt.NDArray[np.uint8]

SHELL = 3  # voxels on every side that are never annotated
FACE_FROM, FACE_TO = -1.4, 2.0  # voxels across the sheet: 3.4 thick, astride the recto's edge
RIM = 9.0  # voxels kept outside the first and the last annotated face
_EDGES = np.array([-RIM, FACE_FROM, 0.0, FACE_TO, RIM], np.float32)  # of the bins of `count_by_depth`
_ANNOTATED_MEAN, _ANNOTATED_STD, _ANNOTATED_RANGE = 0.36, 0.26, (0.15, 0.73)  # of a volume, as in the competition
_LATE_START, _LATEST = 0.4, 0.25  # how often annotation starts late, and how late at most, as a share of z
_CROWDED = 0.155  # share of faces in a band above which annotators cannot tell sheets apart, and look elsewhere
_ALIKE = 0.04  # bands that miss by this much more than the best one are as good


def draw_label(rng: np.random.Generator, solid: Solid, margin_zyx: tuple[int, int, int] = (0, 0, 0)) -> Label:
    """Return the label of a randomly chosen band of sheets, about as large as the competition's annotated regions."""
    depth = len(solid.depth)
    seen = float(np.clip(rng.normal(_ANNOTATED_MEAN, _ANNOTATED_STD), *_ANNOTATED_RANGE))
    start = int(depth * rng.uniform(0.03, _LATEST)) if rng.random() < _LATE_START else 0
    counts = count_by_depth(solid, start)
    first, last = choose_band(rng, counts, seen)
    too_much = band_shares(counts, first, last)[0] - seen
    if too_much > _ALIKE:  # wide gaps make coarse bands: annotation then starts later
        start += int((depth - start) * min(too_much / (too_much + seen), 0.5))
    return annotate(solid, first=first, last=last, start=start, margin_zyx=margin_zyx)


def count_by_depth(solid: Solid, start: int) -> npt.NDArray[np.float64]:
    """Return how the voxels nearest to each sheet's face are distributed over depth, as shares of the volume.

    Args:
        solid: The volume's sheets.
        start: The first annotated slice. Voxels before it or in the shell cannot be annotated and are not counted.

    Returns:
        Shares, (sheets, len(_EDGES) + 1).
    """
    bins = len(_EDGES) + 1
    counts = np.zeros((int(solid.nearest.max()) + 1) * bins, np.int64)
    inner = slice(SHELL, -SHELL)
    seen = slice(max(SHELL, start), -SHELL)
    for sheet, depth in zip(solid.nearest[seen], solid.depth[seen], strict=True):
        places = np.searchsorted(_EDGES, depth[inner, inner].astype(np.float32), side="right")
        counts += np.bincount((sheet[inner, inner] * np.intp(bins) + places).ravel(), minlength=len(counts))
    return counts.reshape(-1, bins) / solid.nearest.size


def band_shares(counts: npt.NDArray[np.float64], first: int, last: int) -> tuple[float, float]:
    """Return which shares of the volume annotating the sheets first..last would label as 0 or 1, and as 1."""
    band = counts[first : last + 1]
    beyond = float(counts[first, 0] + counts[last, -1])
    return float(band.sum()) - beyond, float(band[:, 2:4].sum())


def choose_band(rng: np.random.Generator, counts: npt.NDArray[np.float64], seen: float) -> tuple[int, int]:
    """Return the first and last sheet to annotate, so that about `seen` of the volume is; they may be the same.

    Bands crowded with faces are avoided: there annotators cannot tell sheets apart.
    """
    bands = [(a, b) for a in range(len(counts)) for b in range(a, len(counts))]
    misses = []
    for band in bands:
        labelled, faces = band_shares(counts, *band)
        crowd = max(0.0, faces / labelled - _CROWDED) if labelled > 0 else 1.0
        misses.append(abs(labelled - seen) + 4 * crowd)
    best = np.flatnonzero(np.array(misses) <= min(misses) + _ALIKE)
    return bands[int(rng.choice(best))]


def annotate(solid: Solid, *, first: int, last: int, start: int, margin_zyx: tuple[int, int, int] = (0, 0, 0)) -> Label:
    """Return the label of a volume in which a band of sheets was annotated.

    Label 1 is the recto face, FACE_TO - FACE_FROM voxels thick; label 0 lies between the faces and RIM voxels around
    the band; all else is 2, and so are the outer SHELL voxels and a margin without data.

    Args:
        solid: The volume's sheets.
        first: The band's first sheet.
        last: The band's last sheet, included.
        start: The first annotated slice.
        margin_zyx: How many voxels on each side hold no data.

    Returns:
        uint8 (z, y, x), values 0, 1 and 2.
    """
    sheet, depth = solid.nearest, solid.depth
    annotated = (sheet >= first) & (sheet <= last)
    inside = annotated & ((sheet > first) | (depth >= -RIM)) & ((sheet < last) | (depth < RIM))
    face = annotated & (depth >= FACE_FROM) & (depth < FACE_TO)
    label = np.full(sheet.shape, 2, np.uint8)
    label[inside] = 0
    label[face] = 1
    label[:start] = 2
    for axis, margin in enumerate(margin_zyx):
        wide = max(SHELL, margin)
        sides = np.moveaxis(label, axis, 0)
        sides[:wide] = 2
        sides[-wide:] = 2
    return label
