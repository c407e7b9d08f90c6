"""The study's picture: foreground and surface Dice by loss, variance over training, and predicted slices."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from surface_kernel import disk
from surface_study import measure, table
from surface_study.arm import ArmResult
from surface_study.phantoms import LabelledPhantom
from surface_study.plan import CONVENTIONS, PRESETS, StudyPlan
from surface_study.table import Key
from surface_train.records.figures import new_figure
from surface_train.records.picture import compared, grey_rgb, painted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, distinguishable with every kind of colour vision.
_COLOURS = {"original": "#d55e00", "topology_first": "#e69f00", "rebalanced": "#0072b2", "calibrated": "#009e73"}
_MARKS = {"ignored": "o", "surface": "^"}


def draw(path: Path, *, plan: StudyPlan, results: Sequence[ArmResult], phantom: LabelledPhantom) -> None:
    """Write the picture as a PNG.

    Args:
        path: The file to write.
        plan: The plan of the study.
        results: Of all arms.
        phantom: The first test volume, of whose middle slice the results hold pictures.
    """
    rows = table.by_loss(results)
    figure = new_figure(figsize=(15, 12), layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=(1, 1.7))
    upper, lower = halves
    shares, scores, variances = upper.subplots(1, 3)
    truth = float(np.mean([table.of_volumes(result.volumes)["truth"] for result in results]))
    _draw_dots(shares, rows, column="foreground", label="foreground of the labelled voxels, %", scale=100)
    shares.axhline(100 * truth, color="black", linewidth=1, label=f"truth: {100 * truth:.1f} %")
    shares.legend(frameon=False)
    label = "surface Dice, label 2 ignored"
    _draw_dots(scores, rows, column="best_surface_dice", label=label)
    _draw_dots(scores, rows, column="surface_dice", label=label, filled=False)
    scores.set_title("full: each network's best threshold; hollow: 0.5", fontsize=9)
    _draw_variance(variances, rows)
    for axes in (shares, scores, variances):
        axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
    _draw_slices(lower, plan=plan, results=results, phantom=phantom)
    png = io.BytesIO()
    figure.savefig(png, dpi=80, format="png", metadata={"Software": None})
    disk.put(path, png.getvalue())


def _draw_dots(
    axes: "Axes",
    rows: Mapping[Key, Sequence[ArmResult]],
    *,
    column: str,
    label: str,
    scale: float = 1,
    filled: bool = True,
) -> None:
    """Draw one dot per seed."""
    for place, ((preset, label_2), results) in enumerate(rows.items()):
        values = [scale * table.of_volumes(result.volumes)[column] for result in results]
        face = _COLOURS[preset] if filled else "none"
        axes.scatter([place] * len(values), values, c=face, marker=_MARKS[label_2], edgecolors=_COLOURS[preset])
    names = [f"{preset}\n(2 {label_2})" for preset, label_2 in rows]
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
    axes.set_ylabel(label)


def _draw_variance(axes: "Axes", rows: Mapping[Key, Sequence[ArmResult]]) -> None:
    """Draw the variance of the probabilities over training, one line per loss, the mean over seeds."""
    for (preset, label_2), results in rows.items():
        curves = [[epoch["variance_of_p"] for epoch in result.epochs] for result in results]
        style = "-" if label_2 == "ignored" else "--"
        mean = np.mean(curves, axis=0)
        axes.plot(np.arange(1, len(mean) + 1), mean, style, color=_COLOURS[preset], label=f"{preset} (2 {label_2})")
    axes.set_xlabel("epoch")
    axes.set_ylabel("variance of p in training patches")
    axes.legend(frameon=False, fontsize=7)


def _draw_slices(figure: Any, *, plan: StudyPlan, results: Sequence[ArmResult], phantom: LabelledPhantom) -> None:
    """Draw CT and truth of a slice, and the predictions of the first seed."""
    middle = len(phantom.image) // 2
    grey, label = phantom.image[middle], phantom.label[middle]
    axes = figure.subplots(len(CONVENTIONS), len(PRESETS) + 1)
    _show(axes[0, 0], grey_rgb(grey), f"CT, phantom {phantom.name}, z = {middle}")
    _show(axes[1, 0], painted(grey, label), "truth (grey: label 2)")
    pictures = {(r.arm.preset, r.arm.label_2): r.picture for r in results if r.arm.seed == plan.seeds[0]}
    for row, label_2 in enumerate(CONVENTIONS):
        for column, preset in enumerate(PRESETS, start=1):
            mask: npt.NDArray[np.uint8] = (pictures[preset, label_2] > measure.THRESHOLD).view(np.uint8)
            _show(axes[row, column], compared(grey, label, mask), f"{preset}, label 2 {label_2}")
    figure.suptitle("at 0.5: found (green), missed (orange), added (blue)", fontsize=10)


def _show(axes: "Axes", rgb: npt.NDArray[np.uint8], title: str) -> None:
    axes.imshow(rgb, interpolation="nearest")
    axes.set_title(title, fontsize=9)
    axes.set_axis_off()
