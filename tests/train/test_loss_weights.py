import math
from dataclasses import fields
from typing import get_args

import pytest

from surface_train.loss_weights import PRESETS, LossWeights, Preset

TERMS = ("dice", "focal", "boundary", "cldice", "connectivity", "variance", "entropy")


@pytest.mark.parametrize(
    ("preset", "numbers", "total", "background", "kind"),
    [
        ("original", (0.4, 0.2, 0, 0, 0, 0.2, 0), 0.8, 0.25, "clamped"),
        ("topology_first", (0.4, 0.2, 0.2, 0.1, 0.1, 0.1, 0), 1.1, 0.25, "clamped"),
        ("rebalanced", (0.3, 0.15, 0.15, 0.05, 0.05, 0.25, 0.05), 1.0, 0.75, "exponential"),
        ("calibrated", (0.3, 0.15, 0.15, 0.05, 0.05, 0.25, 0), 0.95, 0.75, "matched"),
    ],
)
def test_the_presets_hold_the_guides_numbers(
    preset: Preset, numbers: tuple[float, ...], total: float, background: float, kind: str
) -> None:
    found = LossWeights.from_preset(preset, {})
    assert tuple(getattr(found, f"{term}_weight") for term in TERMS) == numbers
    assert sum(numbers) == pytest.approx(total)
    assert (found.preset, found.focal_background, found.variance_kind) == (preset, background, kind)


def test_all_presets_are_in_the_table_above_and_the_default_is_rebalanced() -> None:
    assert tuple(PRESETS) == get_args(Preset)
    assert LossWeights() == LossWeights.from_preset("rebalanced", {})


def test_weights_are_named_as_the_guide_names_them() -> None:
    assert [field.name for field in fields(LossWeights) if field.name.endswith("_weight")] == [
        f"{term}_weight" for term in TERMS
    ]


def test_weights_are_listed_by_term() -> None:
    weights = LossWeights.from_preset("original", {})
    assert weights.by_term == {term: getattr(weights, f"{term}_weight") for term in TERMS}


def test_entries_stand_in_for_the_presets_numbers_and_leave_the_others() -> None:
    found = LossWeights.from_preset("original", {"dice_weight": 1.0, "variance_kind": "matched"})
    assert (found.dice_weight, found.focal_weight, found.variance_kind) == (1.0, 0.2, "matched")
    assert PRESETS["original"]["dice_weight"] == 0.4


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"dice_weight": -0.1}, r"loss\.dice_weight: expected a finite number >= 0, got -0\.1"),
        ({"focal_gamma": math.nan}, r"loss\.focal_gamma: expected a finite number >= 0, got nan"),
        ({"entropy_target": math.inf}, r"loss\.entropy_target: expected a finite number >= 0, got inf"),
        ({f"{term}_weight": 0.0 for term in TERMS}, "loss: expected a weight > 0 for at least one term, got 0 for all"),
        ({"focal_background": 1.5}, r"loss\.focal_background: expected a share from 0 to 1, got 1\.5"),
        ({"boundary_theta_voxels": 0.0}, r"loss\.boundary_theta_voxels: expected a number > 0, got 0"),
        ({"variance_kind": "linear"}, r"loss\.variance_kind: expected 'exponential' or 'clamped' or .*, got 'linear'"),
    ],
)
def test_what_cannot_be_used_is_refused(entries: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LossWeights.from_preset("rebalanced", entries)


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(ValueError, match=r"loss\.preset: expected 'original' or 'topology_first' or .*, got 'best'"):
        LossWeights(preset="best")  # type: ignore[arg-type]
