"""The guide's expected results (its Part 7), row by row, beside what was measured."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from surface_study import table
from surface_study.arm import Result
from surface_study.markdown import grid
from surface_study.measure import Measured
from surface_study.table import Number

SHARES = (0.01, 0.1, 0.5, 1.0)  # of a training: the guide's epochs 1, 10, 50 and 100
EVERYTHING = "everything is foreground"  # a trivial prediction
_EPOCHS = (1, 10, 50, 100)

Range = tuple[float, float]


@dataclass(frozen=True)
class Row:
    """A row of the guide's table of progress: its ranges at SHARES, and the column of log.csv that holds the same."""

    metric: str
    column: str
    ranges: tuple[Range, Range, Range, Range]


PROGRESS = (
    Row("variance term", "variance", ((0.80, 0.90), (0.40, 0.60), (0.10, 0.15), (0.05, 0.10))),
    Row("entropy term", "entropy", ((0.20, 0.30), (0.05, 0.10), (0.00, 0.02), (0.00, 0.01))),
    Row("total loss", "loss", ((0.30, 0.40), (0.15, 0.25), (0.08, 0.12), (0.05, 0.08))),
)
DICE_AT_END, FOREGROUND_AT_END, VARIANCE_AT_END = (0.65, 0.75), (0.55, 0.70), (0.15, 0.25)
TRIVIAL_DICE, COLLAPSED_FOREGROUND, COLLAPSED_VARIANCE = (0.56, 0.57), (0.9988, 0.9988), (0.0001, 0.0001)


def verdict(value: Number, wanted: Range, digits: int) -> str:
    """Say whether a mean, rounded as the guide rounds, lies in a range, both ends included."""
    if math.isnan(value.mean):
        return "not measured"
    mean = round(value.mean, digits)
    return "above" if mean > wanted[1] else "below" if mean < wanted[0] else "inside"


def text(
    surface: Sequence[Result],
    ignored: Sequence[Result],
    original: Sequence[Result],
    trivial: Mapping[str, Sequence[Measured]],
) -> list[str]:
    """Write the comparison.

    surface, ignored: the guide's own loss with label 2 as surface, as the guide counted it, and ignored. original: its
    old loss with label 2 as surface.
    """
    return [
        "The guide trains its rebalanced loss for 100 epochs on real data and counts label 2 as surface. Here its "
        "epochs 1, 10, 50 and 100 are 1, 10, 50 and 100 % of a far shorter training on phantoms; a value is the mean "
        "of the epoch that ends there, or of the first. Dice, foreground and the raw variance were measured on unseen "
        "volumes and at the end only.",
        grid(
            ["guide's row", "at epoch", "guide", "measured, 2 as surface", "agrees", "measured, 2 ignored", "agrees"],
            [*_progress(surface, ignored), *_end(surface, ignored)],
        ),
        "Before the fix, as the guide tells it, beside the old loss and beside no network at all (label 2 as surface):",
        grid(["guide's row", "guide", "measured on", "measured", "agrees"], _before(original, trivial)),
    ]


def _progress(surface: Sequence[Result], ignored: Sequence[Result]) -> list[list[str]]:
    lines = []
    for row in PROGRESS:
        for place, (epoch, wanted) in enumerate(zip(_EPOCHS, row.ranges, strict=True)):
            cells = []
            for results in (surface, ignored):
                values = [table.at_shares(result.epochs, row.column, SHARES)[place] for result in results]
                value = table.number(values)
                cells += [value.text(3), verdict(value, wanted, 2)]
            lines.append([row.metric, str(epoch), _range(wanted), *cells])
    return lines


def _end(surface: Sequence[Result], ignored: Sequence[Result]) -> list[list[str]]:
    """Compare what was measured at the end: each reading of label 2 by its own columns."""
    whole, labelled = table.over_seeds(surface), table.over_seeds(ignored)
    rows = (
        ("Dice", DICE_AT_END, whole["dice_whole"], labelled["dice"]),
        ("foreground", FOREGROUND_AT_END, whole["foreground_whole"], labelled["foreground"]),
        ("raw variance of p", VARIANCE_AT_END, whole["variance_whole"], labelled["variance"]),
    )
    return [
        [name, "100", _range(wanted), *_measured(one, wanted), *_measured(two, wanted)]
        for name, wanted, one, two in rows
    ]


def _measured(value: Number, wanted: Range) -> tuple[str, str]:
    return value.text(3), verdict(value, wanted, 2)


def _before(original: Sequence[Result], trivial: Mapping[str, Sequence[Measured]]) -> list[list[str]]:
    old = table.over_seeds(original)
    everything = table.of_volumes(trivial[EVERYTHING])
    share = float(np.mean([row.truth_whole for row in trivial[EVERYTHING]]))
    rows = (
        ("foreground", COLLAPSED_FOREGROUND, "`original`", old["foreground_whole"], 4),
        ("variance of p", COLLAPSED_VARIANCE, "`original`", old["variance_whole"], 4),
        ("Dice of a trivial solution", TRIVIAL_DICE, "`original`", old["dice_whole"], 2),
        ("the same", TRIVIAL_DICE, EVERYTHING, Number(everything["dice_whole"], math.nan), 2),
        ("the same", TRIVIAL_DICE, "the true share of labels 1 and 2", Number(share, math.nan), 2),
    )
    return [
        [name, _range(wanted), what, value.text(4), verdict(value, wanted, digits)]
        for name, wanted, what, value, digits in rows
    ]


def _range(wanted: Range) -> str:
    low, high = wanted
    return f"{low:g}" if low == high else f"{low:.2f}–{high:.2f}"
