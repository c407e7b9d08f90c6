"""The curves of a training: loss terms, scores, foreground, learning rate and seconds, by epoch."""

import math
from collections.abc import Sequence

from matplotlib.ticker import MaxNLocator

from surface_report.chart import INK, SERIES, Chart, drawing, only_axes, short
from surface_report.training.run_log import RunLog

_SCORES = {
    "val_score": "score",
    "val_surface_dice": "surface Dice",
    "val_topo_score": "topology",
    "val_voi_score": "VOI score",
    "val_dice": "Dice",
}


def curves(run: RunLog) -> list[Chart]:
    """Return the charts that the log has numbers for."""
    terms = ["loss", *run.terms]
    made = [
        _chart(run, "training-loss", title="Loss and its terms", names={name: name for name in terms}, log=True),
        _chart(run, "training-scores", title="Scores of the validations", names=_SCORES),
        _chart(
            run,
            "training-foreground",
            title="Share of surface in the validations, predicted and true",
            names={"val_foreground": "predicted", "val_truth": "true"},
        ),
        _chart(run, "training-rate", title="Learning rate", names={"learning_rate": "learning rate"}, log=True),
        _chart(run, "training-seconds", title="Seconds of an epoch", names={"seconds": "seconds"}),
    ]
    return [chart for chart in made if chart is not None]


def _chart(run: RunLog, id_: str, *, title: str, names: dict[str, str], log: bool = False) -> Chart | None:
    """Return a chart of some columns; None where none of them has a number."""
    series = {label: _points(run, name) for name, label in names.items()}
    series = {label: points for label, points in series.items() if points}
    if not series:
        return None
    ends = "; ".join(f"{label}: {points[0][1]:.4g} to {points[-1][1]:.4g}" for label, points in series.items())
    with drawing(
        id_, title=title, description=f"From the first epoch to the last, {ends}", size_inches=(7, 3)
    ) as drawn:
        axes = only_axes(drawn)
        for number, (label, points) in enumerate(series.items()):
            marker = "o" if len(points) < 30 else None
            # With more terms than colours the lines differ in their strokes too.
            style = ("-", "--", ":")[number // len(SERIES) % 3]
            x, y = zip(*points, strict=True)
            axes.plot(x, y, style, color=SERIES[number % len(SERIES)], marker=marker, markersize=4, label=short(label))
        if log and all(value > 0 for points in series.values() for _, value in points):
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("{x:g}")
        if len(series) > 1:
            axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9, labelcolor=INK)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch", color=INK)
    return drawn.chart


def _points(run: RunLog, name: str) -> Sequence[tuple[float, float]]:
    pairs = zip(run.epochs, run.column(name), strict=True)
    return [(epoch, value) for epoch, value in pairs if math.isfinite(value)]
