import math
from typing import Any

import numpy as np
import pytest

from surface_study import table
from surface_study.arm import ArmResult
from surface_study.measure import Measured
from surface_study.plan import Arm, Label2
from surface_study.table import OverSeeds
from surface_train.checks.validate import THRESHOLDS
from surface_train.loss_weights import Preset


def measured(**changes: Any) -> Measured:
    numbers = {
        **{"foreground": 0.1, "truth": 0.1, "foreground_whole": 0.1, "truth_whole": 0.5, "variance": 0.05},
        **{"variance_whole": 0.05, "entropy": 0.2, "dice": 0.5, "dice_whole": 0.2, "surface_dice": 0.6},
    }
    return Measured(case="a", **(numbers | {"surface_dice_at": (0.6,) * 11} | changes))


def curve(**peaks: float) -> tuple[float, ...]:
    """Make a row of surface Dice by threshold: 0 but at those named, as t30=0.5."""
    return tuple(peaks.get(f"t{round(100 * threshold)}", 0.0) for threshold in THRESHOLDS)


def result(preset: Preset, label_2: Label2, seed: int, *volumes: Measured) -> ArmResult:
    epochs = tuple({"epoch": float(n), "loss": 1 / n} for n in range(1, 11))
    return ArmResult(
        arm=Arm(preset, label_2, seed),
        epochs=epochs,
        volumes=volumes or (measured(),),
        train_s=1.0,
        judge_s=1.0,
        picture=np.zeros((2, 2), np.float32),
    )


def scored(preset: Preset, *scores: float) -> list[ArmResult]:
    return [result(preset, "ignored", seed, measured(surface_dice=score)) for seed, score in enumerate(scores)]


def test_one_threshold_is_chosen_for_all_volumes_of_a_network() -> None:
    one, two = (measured(surface_dice_at=peaks) for peaks in (curve(t30=0.9, t40=0.8), curve(t40=0.6, t70=0.7)))
    row = table.of_volumes([one, two])
    assert (row["best_threshold"], row["best_surface_dice"]) == (0.4, pytest.approx(0.7))


def test_a_mask_has_no_threshold_to_choose() -> None:
    row = table.of_volumes([measured(surface_dice_at=None)])
    assert row["best_surface_dice"] == 0.6
    assert math.isnan(row["best_threshold"])


def test_volumes_are_averaged_before_seeds() -> None:
    results = [
        result("original", "surface", 0, measured(dice=0.2), measured(dice=0.4)),
        result("original", "surface", 1, measured(dice=0.6), measured(dice=0.8)),
    ]
    found = table.over_seeds(results)["dice"]
    assert found.mean == pytest.approx(0.5)
    assert found.std == pytest.approx(np.std([0.3, 0.7], ddof=1))


def test_a_single_seed_has_no_standard_deviation() -> None:
    assert table.mean_and_std([0.25]).text(2) == "0.25"
    assert table.mean_and_std([0.2, 0.4]).text(1, 100) == "30.0 ± 14.1"


def test_losses_are_sorted_and_those_without_results_left_out() -> None:
    results = [result("calibrated", "ignored", 0), result("original", "surface", 0), result("original", "ignored", 1)]
    assert list(table.by_loss(results)) == [
        ("original", "ignored"),
        ("calibrated", "ignored"),
        ("original", "surface"),
    ]


@pytest.mark.parametrize(
    ("new", "old", "better"),
    [
        ((0.70, 0.72), (0.60, 0.62), True),
        ((0.60, 0.80), (0.60, 0.61), False),  # its own standard deviation, 0.14, exceeds the gain
        ((0.61, 0.62), (0.40, 0.70), False),  # the other one's is
        ((0.50, 0.51), (0.60, 0.61), False),
        ((0.70,), (0.60,), False),  # a single seed shows nothing
    ],
)
def test_better_is_better_by_more_than_the_standard_deviation(
    new: tuple[float, ...], old: tuple[float, ...], better: bool
) -> None:
    results = [*scored("calibrated", *new), *scored("rebalanced", *old)]
    rows = {key: table.over_seeds(found) for key, found in table.by_loss(results).items()}
    found = table.compare(rows, "surface_dice", new=("calibrated", "ignored"), old=("rebalanced", "ignored"))
    assert found.gain == pytest.approx(np.mean(new) - np.mean(old))
    assert found.is_better is better


def test_a_collapse_is_named_in_the_labelled_voxels_or_in_all() -> None:
    results = [
        result("original", "ignored", 0, measured(foreground=0.949)),
        result("original", "ignored", 1, measured(foreground=0.95)),
        result("original", "surface", 0, measured(foreground_whole=0.9988)),
        result("rebalanced", "surface", 0, measured(foreground=1.0), measured(foreground=0.8)),
    ]
    assert table.collapsed(results) == ["original-ignored-1", "original-surface-0"]


def test_a_share_of_the_training_is_the_epoch_that_ends_there() -> None:
    epochs = result("original", "ignored", 0).epochs
    assert table.at_shares(epochs, "loss", (0.01, 0.1, 0.5, 1.0)) == [1, 1, 1 / 5, 1 / 10]
    assert math.isnan(table.at_shares(epochs, "boundary", (1.0,))[0])


def test_numbers_are_written_with_their_standard_deviation() -> None:
    assert OverSeeds(0.12345, 0.004).text(3) == "0.123 ± 0.004"
