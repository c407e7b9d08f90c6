import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from surface_score.surface_dice import surface_dice
from surface_study import measure
from surface_train.checks.validate import THRESHOLDS


def world() -> tuple[np.ndarray, np.ndarray]:
    """Eight voxels labelled 1, 1, 0, 0, 0, 0 and twice 2, with their probabilities."""
    label = np.array([1, 1, 0, 0, 0, 0, 2, 2], np.uint8).reshape(2, 2, 2)
    probability = np.array([0.9, 0.4, 0.6, 0.1, 0.1, 0.1, 0.9, 0.2], np.float32).reshape(2, 2, 2)
    return probability, label


def test_a_world_by_hand() -> None:
    found = measure.of_probability("a", *world())
    assert found.foreground == pytest.approx(2 / 6)
    assert found.truth == pytest.approx(2 / 6)
    assert found.foreground_whole == pytest.approx(3 / 8)
    assert found.truth_whole == pytest.approx(4 / 8)
    assert found.dice == pytest.approx(2 * 1 / (2 + 2))
    assert found.dice_whole == pytest.approx(2 * 2 / (3 + 4))
    values = [0.9, 0.4, 0.6, 0.1, 0.1, 0.1]
    assert found.variance == pytest.approx(np.var(values), rel=1e-6)
    assert found.variance_whole == pytest.approx(np.var([*values, 0.9, 0.2]), rel=1e-6)
    assert found.entropy == pytest.approx(np.mean([-p * math.log(p) - (1 - p) * math.log(1 - p) for p in values]))


def test_predictions_on_label_2_change_only_what_counts_all_voxels() -> None:
    probability, label = world()
    one = measure.of_probability("a", probability, label)
    two = measure.of_probability("a", np.where(label == 2, 1 - probability, probability), label)
    for name in ("foreground", "truth", "variance", "entropy", "dice", "surface_dice", "surface_dice_at"):
        assert getattr(one, name) == getattr(two, name)
    assert one.foreground_whole == two.foreground_whole  # one of the two voxels in either
    assert one.variance_whole != two.variance_whole


def test_surface_dice_is_the_scores_over_labelled_voxels_at_every_threshold() -> None:
    rng = np.random.default_rng(0)
    probability, label = rng.random((12, 14, 16), np.float32), rng.integers(0, 3, (12, 14, 16)).astype(np.uint8)
    found = measure.of_probability("a", probability, label)
    assert found.surface_dice_at is not None
    assert len(found.surface_dice_at) == len(THRESHOLDS)
    labelled = label != 2
    for threshold, value in zip((*THRESHOLDS, 0.5), (*found.surface_dice_at, found.surface_dice), strict=True):
        assert value == surface_dice((probability > threshold) & labelled, label == 1)


def test_a_volume_without_a_labelled_voxel() -> None:
    found = measure.of_probability("a", np.full((3, 3, 3), 0.9, np.float32), np.full((3, 3, 3), 2, np.uint8))
    assert (found.foreground, found.truth, found.variance, found.entropy) == (0, 0, 0, 0)
    assert (found.dice, found.surface_dice, found.dice_whole) == (1, 1, 1)


def test_everything_foreground_has_the_dice_of_its_shares() -> None:
    _, label = world()
    found = measure.of_mask("a", np.ones(label.shape, bool), label)
    share, whole = 2 / 6, 4 / 8
    assert found.dice == pytest.approx(2 * share / (1 + share))
    assert found.dice_whole == pytest.approx(2 * whole / (1 + whole))
    assert (found.variance, found.entropy, found.surface_dice_at) == (0, 0, None)


@given(st.floats(0, 1))
def test_entropy_is_nothing_when_sure_and_the_same_from_both_sides(p: float) -> None:
    one, other = measure.entropy(np.array([p, 1 - p]))
    assert one == pytest.approx(other, abs=1e-9)
    assert 0 <= one <= math.log(2) + 1e-12
    assert measure.entropy(np.array([0.0, 1.0])).tolist() == [0, 0]


def test_the_best_grey_value_is_that_of_brute_force() -> None:
    rng = np.random.default_rng(3)
    label = rng.integers(0, 3, (9, 10, 11)).astype(np.uint8)
    image = (rng.normal(100, 20, label.shape) + 25 * (label == 1)).clip(0, 255).astype(np.uint8)
    labelled = label != 2
    found = measure.dice(measure.best_grey_mask(image, label) & labelled, label == 1)
    assert found == max(measure.dice((image >= grey) & labelled, label == 1) for grey in range(256))
