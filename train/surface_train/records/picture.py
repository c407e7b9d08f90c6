"""One picture of a case: CT, truth and prediction side by side, in three planes."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from surface_kernel import disk
from surface_train.records.figures import new_figure

Grey = npt.NDArray[np.uint8]

# Okabe and Ito's palette, distinct for every kind of colour vision.
BOTH, MISSED, FALSE, UNLABELLED = (0, 158, 115), (230, 159, 0), (86, 180, 233), (110, 110, 110)
_PLANES = ("z", "y", "x")


def draw(path: Path, *, image: Grey, label: Grey, mask: Grey, title: str) -> None:
    """Draw the middle slices along z, y and x into a PNG.

    Rows are planes; columns are the CT, the truth over it, and the prediction over it, coloured by hits, misses and
    false positives.

    Args:
        path: the PNG; it appears complete or not at all.
        image: the CT, uint8 (z, y, x).
        label: the truth, {0, 1, 2} of the same shape; 2 is unlabelled.
        mask: the prediction, {0, 1} of the same shape.
        title: above the picture.
    """
    figure = new_figure(figsize=(12, 12.6), layout="constrained")
    from matplotlib.patches import Patch

    axes = figure.subplots(3, 3)
    for row, plane in enumerate(_PLANES):
        middle = image.shape[row] // 2
        grey, truth, predicted = (np.take(volume, middle, axis=row) for volume in (image, label, mask))
        panels = (grey_rgb(grey), painted(grey, truth), compared(grey, truth, predicted))
        for column, (panel, name) in enumerate(zip(panels, ("CT", "truth", "prediction"), strict=True)):
            axes[row, column].imshow(panel, interpolation="nearest")
            axes[row, column].set_title(f"{name}, {plane} = {middle}", fontsize=10)
            axes[row, column].set_axis_off()
    figure.suptitle(title)
    legend: Sequence[tuple[str, tuple[int, int, int]]] = (
        ("surface, predicted", BOTH),
        ("surface, missed", MISSED),
        ("not surface, predicted", FALSE),
        ("unlabelled, not scored", UNLABELLED),
    )
    handles = [Patch(color=(colour[0] / 255, colour[1] / 255, colour[2] / 255), label=name) for name, colour in legend]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    png = io.BytesIO()
    figure.savefig(png, dpi=80, format="png", metadata={"Software": None})
    disk.put(path, png.getbuffer())


def grey_rgb(grey: Grey) -> Grey:
    """Return a slice as RGB, stretched so that 1 % of its voxels at either end are saturated."""
    low, high = np.percentile(grey, (1, 99))
    stretched = np.clip((grey - low) * (255 / max(high - low, 1)), 0, 255).astype(np.uint8)
    return np.repeat(stretched[..., None], 3, axis=-1)


def painted(grey: Grey, truth: Grey) -> Grey:
    """Return a slice as RGB with the truth over it: surface in full colour, unlabelled voxels veiled."""
    rgb = _veiled(grey, truth)
    rgb[truth == 1] = BOTH
    return rgb


def compared(grey: Grey, truth: Grey, predicted: Grey) -> Grey:
    """Return a slice as RGB with hits, misses and false positives over it; unlabelled voxels are only veiled."""
    rgb = _veiled(grey, truth)
    rgb[(truth == 1) & (predicted == 1)] = BOTH
    rgb[(truth == 1) & (predicted == 0)] = MISSED
    rgb[(truth == 0) & (predicted == 1)] = FALSE
    return rgb


def _veiled(grey: Grey, truth: Grey) -> Grey:
    rgb = grey_rgb(grey)
    veil = truth == 2
    rgb[veil] = (rgb[veil].astype(np.uint16) + np.array(UNLABELLED, np.uint16) * 2) // 3
    return rgb
