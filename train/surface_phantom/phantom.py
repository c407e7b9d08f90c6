"""One volume: a piece of a scroll, its scan and its label."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from surface_phantom.fields import draw_fibres
from surface_phantom.geometry import draw_frame, draw_sheets
from surface_phantom.hardness import measure
from surface_phantom.labels import draw_label
from surface_phantom.looks import Look
from surface_phantom.optics import scan
from surface_phantom.raster import rasterise

Shape = tuple[int, int, int]

SMALLEST = 48  # voxels per side: a smaller volume with wide gaps may not hold two windings
_SCROLLS, _BANDS = 30, 6  # scrolls tried before giving up, and bands tried in each
_MARGIN_ODDS, _MARGIN_WIDEST = 0.25, 7


@dataclass(frozen=True)
class Phantom:
    """One volume: image uint8 grey values, label uint8 {0, 1, 2}, both (z, y, x)."""

    image: npt.NDArray[np.uint8]
    label: npt.NDArray[np.uint8]


def make_volume(seed: int | tuple[int, ...], shape_zyx: Shape, look: Look) -> Phantom:
    """Generate one volume.

    The annotated band is redrawn until it is as hard as the competition's (`hardness`); a scroll without such a band
    is redrawn too.

    Args:
        seed: The same seed, shape and look give the same bytes, whatever the number of threads.
        shape_zyx: In voxels, at least SMALLEST along each axis.
        look: The scroll's winding and scan.

    Raises:
        ValueError: If an axis is shorter than SMALLEST.
        RuntimeError: If no scroll has a band that is hard enough.
    """
    check_size(shape_zyx)
    for attempt in range(_SCROLLS):
        # A stream for each: another label leaves the scroll and its scan as they are.
        scroll, annotator, tomograph = np.random.default_rng([*np.atleast_1d(seed), attempt]).spawn(3)
        frame = draw_frame(scroll, shape_zyx, look)
        sheets = draw_sheets(scroll, frame=frame, shape_zyx=shape_zyx, look=look)
        solid = rasterise(frame=frame, sheets=sheets, fibres=draw_fibres(scroll), shape_zyx=shape_zyx)
        margin = _draw_margin(tomograph)
        image = scan(tomograph, solid.density, look)
        _clear_margin(image, margin)
        for _ in range(_BANDS):
            label = draw_label(annotator, solid, margin)
            if measure(image, label).is_real:
                return Phantom(image, label)
    raise RuntimeError(
        f"seed {seed}, shape {shape_zyx}: expected a band as hard as the competition's, got none in {_SCROLLS} "
        "scrolls; choose another seed or a larger shape"
    )


def check_size(shape_zyx: Shape) -> None:
    """Raise ValueError unless a shape has three axes of at least SMALLEST voxels."""
    if len(shape_zyx) != 3 or min(shape_zyx) < SMALLEST:
        raise ValueError(f"expected a shape (z, y, x) of at least {SMALLEST} voxels per axis, got {shape_zyx}")


def _draw_margin(rng: np.random.Generator) -> Shape:
    """Draw how many voxels on each side hold no data: mostly none, and seldom along z."""
    if rng.random() >= _MARGIN_ODDS:
        return 0, 0, 0
    wide = rng.integers(3, _MARGIN_WIDEST + 1, 3)
    return int(wide[0]) if rng.random() < 0.3 else 0, int(wide[1]), int(wide[2])


def _clear_margin(image: npt.NDArray[np.uint8], margin_zyx: Shape) -> None:
    for axis, margin in enumerate(margin_zyx):
        if margin:
            sides = np.moveaxis(image, axis, 0)
            sides[:margin] = 0
            sides[-margin:] = 0
