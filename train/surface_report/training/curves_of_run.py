"""The log of a run as charts."""

import math
from collections.abc import Iterable, Mapping, Sequence

from matplotlib.ticker import MaxNLocator

from surface_report.chart import BLUE, GREEN, INK, ORANGE, SERIES, Chart, drawing, only_axes, short

Rows = Sequence[Mapping[str, str]]
Points = tuple[list[float], list[float]]

SCORES = ("val_score", "val_surface_dice", "val_topo_score", "val_voi_score", "val_dice")
_NAMES = {"val_score": "score", "val_surface_dice": "surface Dice", "val_topo_score": "topology"}
_NAMES |= {"val_voi_score": "VOI score", "val_dice": "Dice", "loss": "loss", "val_loss": "loss, validation"}
_NAMES |= {"variance_of_p": "training", "val_variance": "validation"}
_ELSEWHERE = ("epoch", "seconds", "learning_rate", "loss", "variance_of_p")


def points(rows: Rows, name: str) -> Points:
    """Return epochs and values of a column, without what is no finite number."""
    epochs, values = [], []
    for row in rows:
        try:
            epoch, value = float(row.get("epoch", "")), float(row.get(name, ""))
        except ValueError:
            continue
        if math.isfinite(epoch) and math.isfinite(value):
            epochs.append(epoch)
            values.append(value)
    return epochs, values


def terms(rows: Rows) -> list[str]:
    """Return the columns that hold terms of the loss: those that no other chart shows."""
    names = list(rows[0]) if rows else []
    return [name for name in names if name not in _ELSEWHERE and not name.startswith("val_")]


def curves_of_run(rows: Rows) -> list[Chart]:
    """Return the charts of a log that have points."""
    made = [
        _lines(rows, ("loss", "val_loss"), id_="training-loss", title="Loss"),
        _lines(rows, terms(rows), id_="training-terms", title="Terms of the loss, unweighted"),
        _lines(rows, SCORES, id_="training-scores", title="Validation scores", top=1.0),
        _foreground(rows),
        _lines(rows, ("learning_rate",), id_="training-rate", title="Learning rate"),
        _lines(rows, ("seconds",), id_="training-seconds", title="Seconds an epoch"),
        _lines(rows, ("variance_of_p", "val_variance"), id_="training-variance", title="Variance of the probabilities"),
    ]
    return [chart for chart in made if chart is not None]


def _lines(rows: Rows, names: Iterable[str], *, id_: str, title: str, top: float | None = None) -> Chart | None:
    found = {name: points(rows, name) for name in names}
    found = {name: of_one for name, of_one in found.items() if of_one[0]}
    if not found:
        return None
    said = "; ".join(_said(_name(name), values) for name, (_, values) in found.items())
    with drawing(id_, title=title, description=said, size_inches=(6, 3)) as drawn:
        axes = only_axes(drawn)
        for number, (name, (epochs, values)) in enumerate(found.items()):
            colour, dashes = SERIES[number % len(SERIES)], "-" if number < len(SERIES) else "--"
            axes.plot(epochs, values, dashes, color=colour, label=short(_name(name)), marker="o", markersize=3)
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]), top=top)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if len(found) > 1:
            axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return drawn.chart


def _foreground(rows: Rows) -> Chart | None:
    (epochs, predicted), (true_epochs, true) = points(rows, "val_foreground"), points(rows, "val_truth")
    if not epochs:
        return None
    said = f"{_said('predicted', predicted)}; {_said('truth', true) if true else 'no truth'}"
    with drawing(
        "training-foreground", title="Foreground against truth", description=said, size_inches=(6, 3)
    ) as drawn:
        axes = only_axes(drawn)
        axes.plot(true_epochs, [100 * value for value in true], color=INK, linestyle="--", label="truth")
        axes.plot(epochs, [100 * value for value in predicted], color=BLUE, marker="o", markersize=3, label="predicted")
        axes.set_ylim(bottom=0)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel("% of labelled voxels")
        axes.legend(fontsize=8)
    return drawn.chart


def threshold_chart(scores: Mapping[str, float], chosen: float | None) -> Chart:
    """Return the score at each threshold that was tried, the chosen one marked."""
    tried = sorted((float(threshold), float(score)) for threshold, score in scores.items())
    best = max(tried, key=lambda pair: pair[1])
    said = (
        f"best {best[1]:.4f} at {best[0]:.2f}, of {len(tried)} thresholds from {tried[0][0]:.2f} to {tried[-1][0]:.2f}"
    )
    with drawing("training-thresholds", title="Score by threshold", description=said, size_inches=(6, 3)) as drawn:
        axes = only_axes(drawn)
        axes.plot([at for at, _ in tried], [score for _, score in tried], color=GREEN, marker="o", markersize=4)
        if chosen is not None:
            axes.axvline(chosen, color=ORANGE, linestyle="--")
        axes.set_xlabel("threshold; the dashed line is the one that ships")
        axes.set_ylabel("score")
    return drawn.chart


def _name(column: str) -> str:
    return _NAMES.get(column, column)


def _said(name: str, values: Sequence[float]) -> str:
    return f"{name} from {values[0]:.4g} to {values[-1]:.4g}"
