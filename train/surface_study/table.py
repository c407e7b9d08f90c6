"""From results to rows: means over volumes, then mean and standard deviation over seeds, and the verdicts from them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from surface_study.arm import ArmResult
from surface_study.measure import Measured
from surface_study.plan import CONVENTIONS, PRESETS, Label2
from surface_train.checks.validate import THRESHOLDS
from surface_train.loss_weights import Preset

COLLAPSED = 0.95  # share of foreground from which a prediction counts as collapsed
NEW: Preset = "calibrated"
OLD: Preset = "rebalanced"
COLUMNS = (
    "foreground",
    "truth",
    "foreground_whole",
    "variance",
    "variance_whole",
    "entropy",
    "dice",
    "surface_dice",
    "best_surface_dice",
    "best_threshold",
    "dice_whole",
)
_OF_VOLUMES = tuple(name for name in COLUMNS if not name.startswith("best_"))

Key = tuple[Preset, Label2]


@dataclass(frozen=True)
class OverSeeds:
    """A mean over seeds and its sample standard deviation, NaN for a single seed."""

    mean: float
    std: float

    def text(self, digits: int, scale: float = 1) -> str:
        """Return it as `mean ± std`."""
        mean = f"{scale * self.mean:.{digits}f}"
        return mean if math.isnan(self.std) else f"{mean} ± {scale * self.std:.{digits}f}"


def mean_and_std(values: Sequence[float]) -> OverSeeds:
    """Return mean and sample standard deviation of one or more values."""
    std = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return OverSeeds(float(np.mean(values)), std)


def of_volumes(volumes: Sequence[Measured]) -> dict[str, float]:
    """Return COLUMNS of one network, averaged over its volumes.

    `best_surface_dice` is that of the one threshold of THRESHOLDS that is best for all these volumes together, chosen
    with the labels known. For masks it is the surface Dice, and the threshold NaN.
    """
    row = {name: float(np.mean([getattr(volume, name) for volume in volumes])) for name in _OF_VOLUMES}
    curves = [volume.surface_dice_at for volume in volumes if volume.surface_dice_at is not None]
    if not curves:
        return row | {"best_surface_dice": row["surface_dice"], "best_threshold": math.nan}
    curve = np.mean(curves, axis=0)
    best = int(np.argmax(curve))
    return row | {"best_surface_dice": float(curve[best]), "best_threshold": THRESHOLDS[best]}


def by_loss(results: Sequence[ArmResult]) -> dict[Key, list[ArmResult]]:
    """Return the results grouped by preset and convention, in the order of both; empty groups are left out."""
    keys = [(preset, label_2) for label_2 in CONVENTIONS for preset in PRESETS]
    grouped = {key: [row for row in results if (row.arm.preset, row.arm.label_2) == key] for key in keys}
    return {key: rows for key, rows in grouped.items() if rows}


def over_seeds(results: Sequence[ArmResult]) -> dict[str, OverSeeds]:
    """Return COLUMNS of one loss, with mean and standard deviation over its seeds."""
    rows = [of_volumes(result.volumes) for result in results]
    return {name: mean_and_std([row[name] for row in rows]) for name in COLUMNS}


@dataclass(frozen=True)
class Comparison:
    """Two losses compared by one column."""

    gain: float
    """The difference of the means."""
    std: float
    """The larger of the two standard deviations over seeds, NaN for single seeds."""

    @property
    def is_better(self) -> bool:
        """Whether the gain exceeds the standard deviation; never for a single seed, which has none."""
        return self.gain > self.std


def compare(rows: Mapping[Key, Mapping[str, OverSeeds]], column: str, *, new: Key, old: Key) -> Comparison:
    """Return the gain of one loss over another in a column of `over_seeds`."""
    one, two = rows[new][column], rows[old][column]
    return Comparison(one.mean - two.mean, float(np.max([one.std, two.std])))


def collapsed(results: Sequence[ArmResult]) -> list[str]:
    """Return the names of the arms that predict foreground in at least 95 % of the labelled or of all voxels."""
    rows = {result.arm.name: of_volumes(result.volumes) for result in results}
    return [name for name, row in rows.items() if max(row["foreground"], row["foreground_whole"]) >= COLLAPSED]


def at_shares(epochs: Sequence[Mapping[str, float]], column: str, shares: Sequence[float]) -> list[float]:
    """Return a column of log.csv at shares of the training: of the epoch that ends there, or of the first."""
    return [epochs[max(1, round(share * len(epochs))) - 1].get(column, math.nan) for share in shares]
