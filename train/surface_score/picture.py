"""The score breakdown as a picture: the slice with the most errors, and close-ups of the worst places."""

import io
from dataclasses import dataclass

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from surface_score.explain import Explanation
from surface_score.leaderboard import Masks
from surface_score.sheets import Voxel

# Okabe and Ito's palette, distinguishable with every kind of colour vision.
_COLOURS = {"background": "#ffffff", "ignored": "#e4e4e4", "both": "#999999", "missed": "#0072b2", "false": "#d55e00"}
_MARK = "#000000"
_WINDOW_VOXELS = 72
_WINDOWS = 6
_NOTED_BITS = 0.005
_AXES = "zyx"


@dataclass(frozen=True)
class _Place:
    """A voxel to show, and why."""

    title: str
    at: Voxel


def draw(id_: str, explanation: Explanation, masks: Masks) -> bytes:
    """Return the picture of a case as a PNG. A case without errors has its middle slice and no close-ups."""
    places = _places(explanation)[:_WINDOWS]
    kinds = _kinds(masks)
    figure = Figure(figsize=(16, 8.6), dpi=100)
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 5, wspace=0.3, hspace=0.3, left=0.045, right=0.99, top=0.88, bottom=0.11)
    _draw_overview(figure.add_subplot(grid[:, :2]), explanation, kinds)
    for number, place in enumerate(places):
        _draw_window(figure.add_subplot(grid[number // 3, 2 + number % 3]), kinds, place)
    score = explanation.score
    lost = ", ".join(f"{name} −{points:.3f}" for name, points in sorted(score.lost.items(), key=lambda item: -item[1]))
    figure.suptitle(f"{id_}: score {score.score:.4f} ({lost})", fontsize=15, x=0.045, ha="left")
    names = {"both": "in both", "missed": "missed: only true", "false": "false: only predicted", "ignored": "ignored"}
    patches = [Patch(facecolor=_COLOURS[kind], edgecolor="#666666", label=name) for kind, name in names.items()]
    figure.legend(handles=patches, loc="lower center", ncols=4, fontsize=12, frameon=False)
    png = io.BytesIO()
    with matplotlib.rc_context({"savefig.facecolor": "white"}):
        figure.savefig(png, format="png")
    return png.getvalue()


def _places(explanation: Explanation) -> list[_Place]:
    """Return the worst place of each kind first, then the second of each."""
    sheets = explanation.sheets
    merges, splits = (
        [contact for mismatch in mismatches if mismatch.bits >= _NOTED_BITS for contact in mismatch.contacts[:1]]
        for mismatches in (sheets.merges, sheets.splits)
    )
    kinds = [
        [_Place(f"merge of sheets {one.numbers[0]} and {one.numbers[1]}", one.at) for one in merges],
        [_Place(f"split: components {one.numbers[0]} and {one.numbers[1]}", one.at) for one in splits],
        [_Place(f"{hole.kind}, likely false", hole.at) for hole in explanation.false_holes],
        [_Place(f"surface beyond 2 voxels, −{region.points:.4f}", region.at) for region in explanation.regions],
        [_Place(f"missed sheet, {one.voxels} voxels", one.at) for one in sheets.missed],
        [_Place(f"false component, {one.voxels} voxels", one.at) for one in sheets.spurious],
        [_Place(f"{hole.kind}, likely lost", hole.at) for hole in explanation.lost_holes],
    ]
    most = max(map(len, kinds))
    return [places[rank] for rank in range(most) for places in kinds if rank < len(places)]


def _kinds(masks: Masks) -> npt.NDArray[np.uint8]:
    """Return for each voxel the index of its kind in _COLOURS."""
    kinds = np.zeros(masks.truth.shape, np.uint8)
    kinds[masks.ignored] = 1
    kinds[masks.truth & masks.predicted] = 2
    kinds[masks.truth & ~masks.predicted] = 3
    kinds[masks.predicted & ~masks.truth] = 4
    return kinds


def _show(axes: matplotlib.axes.Axes, plane: npt.NDArray[np.uint8], corner: tuple[int, int]) -> None:
    down, right = corner
    extent = (right - 0.5, right + plane.shape[1] - 0.5, down + plane.shape[0] - 0.5, down - 0.5)
    colours = ListedColormap(list(_COLOURS.values()))
    axes.imshow(plane, cmap=colours, vmin=-0.5, vmax=len(_COLOURS) - 0.5, interpolation="nearest", extent=extent)
    axes.tick_params(labelsize=9)


def _draw_overview(axes: matplotlib.axes.Axes, explanation: Explanation, kinds: npt.NDArray[np.uint8]) -> None:
    errors = np.count_nonzero(kinds >= 3, axis=(1, 2))
    z = int(errors.argmax()) if errors.any() else kinds.shape[0] // 2
    _show(axes, kinds[z], (0, 0))
    axes.set_title(f"z = {z}, the slice with the most errors", fontsize=12)
    axes.set_xlabel("x")
    axes.set_ylabel("y")
    for loss in explanation.octants:
        depth, rows, columns = loss.box
        if depth.start <= z < depth.stop:
            size = (columns.stop - columns.start, rows.stop - rows.start)
            axes.add_patch(
                Rectangle((columns.start - 0.5, rows.start - 0.5), *size, fill=False, ls="--", lw=1, ec=_MARK)
            )
            label = f"octant: {loss.points:+.3f} if corrected"
            box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 2}
            axes.text(columns.start + 4, rows.start + 4, label, va="top", fontsize=9, bbox=box)


def _draw_window(axes: matplotlib.axes.Axes, kinds: npt.NDArray[np.uint8], place: _Place) -> None:
    """Draw the plane through a place, perpendicular to the axis for which it holds the most errors."""
    starts = [
        min(max(at - _WINDOW_VOXELS // 2, 0), max(length - _WINDOW_VOXELS, 0))
        for at, length in zip(place.at, kinds.shape, strict=True)
    ]
    window = kinds[tuple(slice(start, start + _WINDOW_VOXELS) for start in starts)]
    inside = [at - start for at, start in zip(place.at, starts, strict=True)]
    planes = [np.take(window, inside[axis], axis) for axis in range(3)]
    across = int(np.argmax([np.count_nonzero(plane >= 3) for plane in planes]))
    down, right = (axis for axis in range(3) if axis != across)
    _show(axes, planes[across], (starts[down], starts[right]))
    axes.plot(place.at[right], place.at[down], "o", ms=15, mfc="none", mec=_MARK, mew=1.6)
    axes.set_title(f"{place.title}\n{_AXES[across]} = {place.at[across]}", fontsize=11)
    axes.set_xlabel(_AXES[right])
    axes.set_ylabel(_AXES[down])
