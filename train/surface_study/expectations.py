"""The guide's expected results (its Part 7), row by row, compared with what was measured."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from surface_study import table
from surface_study.arm import ArmResult
from surface_study.measure import Measured
from surface_study.table import OverSeeds

SHARES = (0.01, 0.1, 0.5, 1.0)  # of a training: the guide's epochs 1, 10, 50 and 100
EVERYTHING = "everything is foreground"  # a trivial prediction
_EPOCHS = (1, 10, 50, 100)

Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class ProgressRow:
    """A row of the guide's table of progress."""

    metric: str
    column: str
    """Of log.csv, where the same is logged."""
    ranges: tuple[Range, Range, Range, Range]
    """At SHARES of the training."""


PROGRESS = (
    ProgressRow(
        metric="variance term", column="variance", ranges=((0.80, 0.90), (0.40, 0.60), (0.10, 0.15), (0.05, 0.10))
    ),
    ProgressRow(
        metric="entropy term", column="entropy", ranges=((0.20, 0.30), (0.05, 0.10), (0.00, 0.02), (0.00, 0.01))
    ),
    ProgressRow(metric="total loss", column="loss", ranges=((0.30, 0.40), (0.15, 0.25), (0.08, 0.12), (0.05, 0.08))),
)
DICE_AT_END, FOREGROUND_AT_END, VARIANCE_AT_END = (0.65, 0.75), (0.55, 0.70), (0.15, 0.25)
TRIVIAL_DICE, COLLAPSED_FOREGROUND, COLLAPSED_VARIANCE = (0.56, 0.57), (0.9988, 0.9988), (0.0001, 0.0001)


def verdict(value: OverSeeds, expected: Range, digits: int) -> str:
    """Return where a mean, rounded as the guide rounds, lies relative to a range that includes its ends."""
    if math.isnan(value.mean):
        return "not measured"
    mean = round(value.mean, digits)
    return "above" if mean > expected[1] else "below" if mean < expected[0] else "inside"


def text(
    *,
    surface: Sequence[ArmResult],
    ignored: Sequence[ArmResult],
    original: Sequence[ArmResult],
    trivial: Mapping[str, Sequence[Measured]],
) -> list[str]:
    """Return the paragraphs of the comparison.

    Args:
        surface: The guide's own loss with label 2 as surface, as the guide counted it.
        ignored: The same with label 2 ignored.
        original: The guide's old loss with label 2 as surface.
        trivial: Predictions that need no network, by name.
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
        "Before the fix, as the guide reports it, compared with the old loss and with no network (label 2 as surface):",
        grid(["guide's row", "guide", "measured on", "measured", "agrees"], _before(original, trivial)),
    ]


def _progress(surface: Sequence[ArmResult], ignored: Sequence[ArmResult]) -> list[list[str]]:
    lines = []
    for row in PROGRESS:
        for place, (epoch, expected) in enumerate(zip(_EPOCHS, row.ranges, strict=True)):
            cells = []
            for results in (surface, ignored):
                values = [table.at_shares(result.epochs, row.column, SHARES)[place] for result in results]
                value = table.mean_and_std(values)
                cells += [value.text(3), verdict(value, expected, 2)]
            lines.append([row.metric, str(epoch), _range(expected), *cells])
    return lines


def _end(surface: Sequence[ArmResult], ignored: Sequence[ArmResult]) -> list[list[str]]:
    """Return the rows measured at the end: each convention for label 2 by its own columns."""
    whole, labelled = table.over_seeds(surface), table.over_seeds(ignored)
    rows = (
        ("Dice", DICE_AT_END, whole["dice_whole"], labelled["dice"]),
        ("foreground", FOREGROUND_AT_END, whole["foreground_whole"], labelled["foreground"]),
        ("raw variance of p", VARIANCE_AT_END, whole["variance_whole"], labelled["variance"]),
    )
    return [
        [name, "100", _range(expected), *_measured(one, expected), *_measured(two, expected)]
        for name, expected, one, two in rows
    ]


def _measured(value: OverSeeds, expected: Range) -> tuple[str, str]:
    return value.text(3), verdict(value, expected, 2)


def _before(original: Sequence[ArmResult], trivial: Mapping[str, Sequence[Measured]]) -> list[list[str]]:
    old = table.over_seeds(original)
    everything = table.of_volumes(trivial[EVERYTHING])
    share = float(np.mean([row.truth_whole for row in trivial[EVERYTHING]]))
    rows = (
        ("foreground", COLLAPSED_FOREGROUND, "`original`", old["foreground_whole"], 4),
        ("variance of p", COLLAPSED_VARIANCE, "`original`", old["variance_whole"], 4),
        ("Dice of a trivial solution", TRIVIAL_DICE, "`original`", old["dice_whole"], 2),
        ("the same", TRIVIAL_DICE, EVERYTHING, OverSeeds(everything["dice_whole"], math.nan), 2),
        ("the same", TRIVIAL_DICE, "the true share of labels 1 and 2", OverSeeds(share, math.nan), 2),
    )
    return [
        [name, _range(expected), what, value.text(4), verdict(value, expected, digits)]
        for name, expected, what, value, digits in rows
    ]


def _range(expected: Range) -> str:
    low, high = expected
    return f"{low:g}" if low == high else f"{low:.2f}–{high:.2f}"


def grid(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown; every row has one cell per head."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
