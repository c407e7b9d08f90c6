"""From results to rows: means over volumes, then mean and spread over seeds, and the verdicts that follow from them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from surface_study.arm import Result
from surface_study.measure import Measured
from surface_study.plan import CONVENTIONS, PRESETS, Label2
from surface_train.checks.validate import THRESHOLDS
from surface_train.loss_weights import Preset

COLLAPSED = 0.95  # share of foreground from which a prediction says nothing
NEW: Preset = "calibrated"
OLD: Preset = "rebalanced"
COLUMNS = (
    *("foreground", "truth", "foreground_whole", "variance", "variance_whole", "entropy", "dice", "surface_dice"),
    *("best_surface_dice", "best_threshold", "dice_whole"),
)
_OF_VOLUMES = tuple(name for name in COLUMNS if not name.startswith("best_"))

Key = tuple[Preset, Label2]


@dataclass(frozen=True)
class Number:
    """A mean over seeds and its sample standard deviation, NaN for a single seed."""

    mean: float
    spread: float

    def text(self, digits: int, scale: float = 1) -> str:
        """Write it as `mean ± spread`."""
        mean = f"{scale * self.mean:.{digits}f}"
        return mean if math.isnan(self.spread) else f"{mean} ± {scale * self.spread:.{digits}f}"


def number(values: Sequence[float]) -> Number:
    """Give mean and sample standard deviation of one or more values."""
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return Number(float(np.mean(values)), spread)


def of_volumes(volumes: Sequence[Measured]) -> dict[str, float]:
    """Average one network over its volumes: COLUMNS.

    best_surface_dice: of the one threshold of THRESHOLDS that is best for all these volumes together, chosen with the
    answers in hand. For masks it is the surface Dice, and the threshold NaN.
    """
    row = {name: float(np.mean([getattr(volume, name) for volume in volumes])) for name in _OF_VOLUMES}
    curves = [volume.surface_dice_at for volume in volumes if volume.surface_dice_at is not None]
    if not curves:
        return row | {"best_surface_dice": row["surface_dice"], "best_threshold": math.nan}
    curve = np.mean(curves, axis=0)
    best = int(np.argmax(curve))
    return row | {"best_surface_dice": float(curve[best]), "best_threshold": THRESHOLDS[best]}


def by_loss(results: Sequence[Result]) -> dict[Key, list[Result]]:
    """Sort results by convention and preset, in the order of both; what has none is left out."""
    keys = [(preset, label_2) for label_2 in CONVENTIONS for preset in PRESETS]
    sorted_ = {key: [row for row in results if (row.arm.preset, row.arm.label_2) == key] for key in keys}
    return {key: rows for key, rows in sorted_.items() if rows}


def over_seeds(results: Sequence[Result]) -> dict[str, Number]:
    """Give COLUMNS of one loss over its seeds."""
    rows = [of_volumes(result.volumes) for result in results]
    return {name: number([row[name] for row in rows]) for name in COLUMNS}


@dataclass(frozen=True)
class Comparison:
    """Two losses by one column. gain: of the means. spread: the larger of the two standard deviations over seeds."""

    gain: float
    spread: float

    @property
    def is_better(self) -> bool:
        """Say whether the gain is more than the spread; a single seed has none to compare with, and says no."""
        return self.gain > self.spread


def compare(rows: Mapping[Key, Mapping[str, Number]], column: str, new: Key, old: Key) -> Comparison:
    """Compare two losses by a column of `over_seeds`."""
    one, two = rows[new][column], rows[old][column]
    return Comparison(one.mean - two.mean, float(np.max([one.spread, two.spread])))


def collapsed(results: Sequence[Result]) -> list[str]:
    """Name the arms whose prediction is foreground in at least 95 % of the labelled or of all voxels."""
    rows = {result.arm.name: of_volumes(result.volumes) for result in results}
    return [name for name, row in rows.items() if max(row["foreground"], row["foreground_whole"]) >= COLLAPSED]


def at_shares(epochs: Sequence[Mapping[str, float]], column: str, shares: Sequence[float]) -> list[float]:
    """Give a column of log.csv at shares of the training: the epoch that ends there, the first one at least."""
    return [epochs[max(1, round(share * len(epochs))) - 1].get(column, math.nan) for share in shares]
