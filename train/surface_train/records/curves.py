"""A run at a glance: its log as curves, epoch by epoch."""

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from surface_train.loss_weights import LossWeights
from surface_train.settings import Sentinel

Rows = Sequence[Mapping[str, Any]]

# Okabe and Ito's palette, told apart with every kind of colour vision, with grey for its yellow: that is lost on white.
_BLACK, _GREY = "#000000", "#767676"
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", _GREY)
_BLUE, _RED, _GREEN, *_ = _COLOURS
_MARKS = ("o", "s", "^", "D", "v", "P", "X")
_MARKED = 25  # points of a curve that are marked, about
_UPPER_VARIANCE = 0.25  # of values in [0, 1]: half of them 0, half 1
_SHARES = (0.0001, 0.001, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99, 0.999, 0.9999)


def draw(rows: Rows, path: Path, loss: LossWeights | None = None, limits: Sentinel | None = None) -> None:
    """Draw the rows of a log into a PNG: loss and terms, spread, scores, foreground, learning rate.

    rows: as log.csv has them, numbers or their text; missing columns, empty entries and what is no finite number are
    left out, so no row at all draws empty axes. loss: what the terms are weighed with, as they add up to the loss.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(12, 12), layout="constrained")
    FigureCanvasAgg(figure)
    places = figure.add_gridspec(3, 2, height_ratios=(1.25, 1, 1))
    whole = figure.add_subplot(places[0, :])
    spread, scores, shares, rate = (figure.add_subplot(places[row, column]) for row in (1, 2) for column in (0, 1))
    _losses(whole, rows, loss or LossWeights())
    _spread(spread, rows)
    _scores(scores, rows)
    _foreground(shares, rows, limits or Sentinel())
    _line(rate, rows, "learning_rate", "learning rate", _BLUE)
    rate.set_title("Learning rate")
    rate.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    rate.set_ylim(bottom=0)
    last = max(_column(rows, "epoch")[0], default=1)
    for axes in figure.axes:
        axes.set_xlim(0.5, max(last, 2) + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    partial = path.with_name(path.name + ".partial")
    figure.savefig(partial, dpi=100, format="png", metadata={"Software": None})
    partial.replace(path)


def _losses(axes: Any, rows: Rows, loss: LossWeights) -> None:
    weights = {
        field.name.removesuffix("_weight"): getattr(loss, field.name)
        for field in dataclasses.fields(loss)
        if field.name.endswith("_weight")
    }
    _line(axes, rows, "loss", "loss", _BLACK, width=2.5)
    _line(axes, rows, "val_loss", "loss, validation", _BLACK, "s", "--")
    for (term, weight), colour, mark in zip(weights.items(), cycle(_COLOURS), cycle(_MARKS)):
        _line(axes, rows, term, f"{weight:g} × {term}", colour, mark, factor=weight)
    axes.set_title("Training loss, and the weighted terms that it is the sum of")
    _legend(axes, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def _spread(axes: Any, rows: Rows) -> None:
    axes.axhline(_UPPER_VARIANCE, color=_GREY, linestyle="--", label=f"upper bound, {_UPPER_VARIANCE}")
    _line(axes, rows, "variance_of_p", "patches, training", _BLUE)
    _line(axes, rows, "val_variance", "whole volumes, validation", _RED, "s")
    axes.set_title("Variance of the probabilities")
    axes.set_ylim(0, 1.12 * _UPPER_VARIANCE)
    _legend(axes, fontsize="small")


def _scores(axes: Any, rows: Rows) -> None:
    named = {
        "score": "score",
        "surface_dice": "surface Dice",
        "topo_score": "topology",
        "voi_score": "VOI score",
        "dice": "Dice",
    }
    for (name, label), colour, mark in zip(named.items(), cycle(_COLOURS), cycle(_MARKS)):
        _line(axes, rows, f"val_{name}", label, colour, mark)
    _line(axes, rows, "val_threshold", "threshold", _GREY, "X", style=":")
    axes.set_title("Validation: scores and threshold")
    axes.set_ylim(0, 1.02)
    _legend(axes, fontsize="small")


def _foreground(axes: Any, rows: Rows, limits: Sentinel) -> None:
    edges = (_SHARES[0], _SHARES[-1])
    _line(axes, rows, "val_foreground", "predicted", _RED, "s", within=edges)
    _line(axes, rows, "val_truth", "truth", _GREEN, "^", "--", within=edges)
    for limit in (limits.least_foreground, limits.most_foreground):
        axes.axhline(limit, color=_BLACK, linestyle=":", label=f"sentinel's limit, {100 * limit:g} %")
    axes.set_title("Validation: share of foreground")
    # Both ends matter: 0.1 % and 1 %, 95 % and 99.9 % are to be told apart. Shares of 0 and 1 are drawn on the edges.
    axes.set_yscale("logit")
    axes.set_ylim(*edges)
    axes.set_yticks(_SHARES, [f"{100 * share:g} %" for share in _SHARES])
    axes.set_yticks([], minor=True)
    _legend(axes, fontsize="small")


def _legend(axes: Any, **how: Any) -> None:
    if axes.get_legend_handles_labels()[0]:  # matplotlib warns of an empty one
        axes.legend(**how)


def _line(
    axes: Any,
    rows: Rows,
    name: str,
    label: str,
    colour: str,
    mark: str = "o",
    style: str = "-",
    width: float = 1.5,
    factor: float = 1.0,
    within: tuple[float, float] = (-np.inf, np.inf),
) -> None:
    epochs, values = _column(rows, name)
    if len(epochs):
        every = 1 + len(epochs) // _MARKED
        drawn = (factor * values).clip(*within)
        axes.plot(
            *(epochs, drawn, style),
            **{"color": colour, "lw": width, "label": label, "clip_on": False},
            **{"marker": mark, "ms": 4, "markevery": every},
        )


def _column(rows: Rows, name: str) -> tuple[Any, Any]:
    """Give the epochs at which a column holds a finite number, and the numbers: float64, two of one length."""
    pairs = np.array([(_number(row.get("epoch")), _number(row.get(name))) for row in rows], np.float64).reshape(-1, 2)
    epochs, values = pairs[np.isfinite(pairs).all(axis=1)].T
    return epochs, values


def _number(entry: Any) -> float:
    try:
        return float(entry)
    except (TypeError, ValueError):
        return float("nan")
