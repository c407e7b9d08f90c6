"""A run at a glance: its log as curves, epoch by epoch."""

import dataclasses
import io
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from surface_kernel import disk
from surface_train.loss_weights import LossWeights
from surface_train.records.figures import new_figure
from surface_train.settings import Sentinel

Rows = Sequence[Mapping[str, Any]]

# Okabe and Ito's palette, distinct for every kind of colour vision; grey for its yellow, which is lost on white.
_BLACK, _GREY = "#000000", "#767676"
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", _GREY)
_BLUE, _RED, _GREEN, *_ = _COLOURS
_MARKS = ("o", "s", "^", "D", "v", "P", "X")
_MARKED = 25  # points of a curve that are marked, about
_UPPER_VARIANCE = 0.25  # of values in [0, 1]: half of them 0, half 1
_SHARES = (0.0001, 0.001, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99, 0.999, 0.9999)


def draw(rows: Rows, path: Path, loss: LossWeights | None = None, limits: Sentinel | None = None) -> None:
    """Draw the rows of a log into a PNG: loss and terms, variance, scores, foreground, learning rate.

    Args:
        rows: as in log.csv, numbers or their text. Missing columns, empty entries and what is not a finite number are
            left out, so that no rows at all draw empty axes.
        path: the PNG; it appears complete or not at all.
        loss: the weights with which the terms add up to the loss; the default preset's without it.
        limits: the sentinel's, drawn beside the foreground; the defaults without them.
    """
    figure = new_figure(figsize=(12, 12), layout="constrained")
    from matplotlib.ticker import MaxNLocator

    places = figure.add_gridspec(3, 2, height_ratios=(1.25, 1, 1))
    whole = figure.add_subplot(places[0, :])
    variances, scores, shares, rate = (figure.add_subplot(places[row, column]) for row in (1, 2) for column in (0, 1))
    _losses(whole, rows, loss or LossWeights())
    _variances(variances, rows)
    _scores(scores, rows)
    _foreground(shares, rows, limits or Sentinel())
    _line(rate, rows, "learning_rate", label="learning rate", colour=_BLUE)
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
    png = io.BytesIO()
    figure.savefig(png, dpi=100, format="png", metadata={"Software": None})
    disk.put(path, png.getbuffer())


def _losses(axes: Any, rows: Rows, loss: LossWeights) -> None:
    weights = {
        field.name.removesuffix("_weight"): getattr(loss, field.name)
        for field in dataclasses.fields(loss)
        if field.name.endswith("_weight")
    }
    _line(axes, rows, "loss", label="loss", colour=_BLACK, width=2.5)
    _line(axes, rows, "val_loss", label="loss, validation", colour=_BLACK, mark="s", style="--")
    for (term, weight), colour, mark in zip(weights.items(), cycle(_COLOURS), cycle(_MARKS)):
        _line(axes, rows, term, label=f"{weight:g} × {term}", colour=colour, mark=mark, factor=weight)
    axes.set_title("Training loss, the sum of these weighted terms")
    _legend(axes, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def _variances(axes: Any, rows: Rows) -> None:
    axes.axhline(_UPPER_VARIANCE, color=_GREY, linestyle="--", label=f"upper bound, {_UPPER_VARIANCE}")
    _line(axes, rows, "variance_of_p", label="patches, training", colour=_BLUE)
    _line(axes, rows, "val_variance", label="whole volumes, validation", colour=_RED, mark="s")
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
        _line(axes, rows, f"val_{name}", label=label, colour=colour, mark=mark)
    _line(axes, rows, "val_threshold", label="threshold", colour=_GREY, mark="X", style=":")
    axes.set_title("Validation: scores and threshold")
    axes.set_ylim(0, 1.02)
    _legend(axes, fontsize="small")


def _foreground(axes: Any, rows: Rows, limits: Sentinel) -> None:
    edges = (_SHARES[0], _SHARES[-1])
    _line(axes, rows, "val_foreground", label="predicted", colour=_RED, mark="s", within=edges)
    _line(axes, rows, "val_truth", label="truth", colour=_GREEN, mark="^", style="--", within=edges)
    for limit in (limits.least_foreground, limits.most_foreground):
        axes.axhline(limit, color=_BLACK, linestyle=":", label=f"sentinel's limit, {100 * limit:g} %")
    axes.set_title("Validation: share of foreground")
    # Both ends matter: 0.1 % and 1 % must look different, as 95 % and 99.9 %. Shares of 0 and 1 are at the edges.
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
    *,
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
        axes.plot(
            epochs,
            (factor * values).clip(*within),
            linestyle=style,
            linewidth=width,
            color=colour,
            label=label,
            clip_on=False,
            marker=mark,
            markersize=4,
            markevery=every,
        )


def _column(rows: Rows, name: str) -> tuple[Any, Any]:
    """Return the epochs at which a column holds a finite number, and the numbers: two float64 arrays of one length."""
    pairs = np.array([(_number(row.get("epoch")), _number(row.get(name))) for row in rows], np.float64).reshape(-1, 2)
    epochs, values = pairs[np.isfinite(pairs).all(axis=1)].T
    return epochs, values


def _number(entry: Any) -> float:
    try:
        return float(entry)
    except (TypeError, ValueError):
        return float("nan")
