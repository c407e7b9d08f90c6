from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from surface_kernel import surface
from surface_kernel.device import Device
from surface_kernel.predict import PredictionError
from surface_score import score_case
from surface_train import validate
from surface_train.cases import Case, CasesError
from surface_train.settings import Patches, Settings
from surface_train.validate import THRESHOLDS, Predicted, best_threshold, check

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = Device("cpu", "float32", batch=2, threads=1)
RUN = replace(Settings(), patches=Patches((32, 32, 32)), overlap=0.25)


def predicted(label: np.ndarray, probability: np.ndarray, name: str = "1") -> Predicted:
    case = Case(name, "5", Path(), Path())
    return Predicted(case, np.zeros(label.shape, np.uint8), label, probability.astype(np.float32))


def dice(row: Predicted, threshold: float) -> float:
    found, truth = (row.probability > threshold) & (row.label != 2), row.label == 1
    total = found.sum() + truth.sum()
    return 2 * (found & truth).sum() / total if total else 1.0


# --- the threshold


def test_the_thresholds_are_those_of_the_plan() -> None:
    assert THRESHOLDS == (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7)


@given(st.integers(0, 2**32), st.integers(1, 3), st.floats(0.3, 4))
@settings(max_examples=60, deadline=None)
def test_the_best_threshold_is_that_of_brute_force(seed, cases, power) -> None:
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(cases):
        label = rng.choice([0, 1, 2], (4, 5, 6), p=[0.5, 0.2, 0.3]).astype(np.uint8)
        rows.append(predicted(label, np.clip(rng.random(label.shape) ** power + 0.1 * (label == 1), 0, 1)))
    means = [np.mean([dice(row, threshold) for row in rows]) for threshold in THRESHOLDS]
    assert means[THRESHOLDS.index(best_threshold(rows))] == pytest.approx(max(means), abs=1e-12)


def test_the_lowest_of_equal_thresholds_is_taken_and_label_2_has_no_say() -> None:
    label = np.array([0, 0, 1, 1, 2, 2], np.uint8).reshape(1, 1, 6)
    probability = np.array([0.1, 0.33, 0.61, 0.9, 0.69, 0.99]).reshape(1, 1, 6)
    assert best_threshold([predicted(label, probability)]) == 0.35


def test_a_case_without_surface_does_not_stop_it() -> None:
    nothing = predicted(np.full((2, 2, 2), 2, np.uint8), np.full((2, 2, 2), 0.5))
    assert best_threshold([nothing]) == 0.2
    assert check([nothing], 0.2).variance == 0
    assert check([nothing], 0.2).dice == 1


# --- the check


def test_a_check_is_the_mean_of_the_cases_scores_at_the_threshold() -> None:
    label = np.zeros((6, 8, 10), np.uint8)
    label[2:4] = 1
    label[:, :2] = 2
    good = np.where(label == 1, 0.6, 0.1)
    half = good.copy()
    half[2] = 0.3  # at 0.4 one of the two layers is lost
    for part in (good, half):
        part[:, :2] = 0.99  # unlabelled: no score may see it
    rows = [predicted(label, good, "a"), predicted(label, half, "b")]
    found = check(rows, 0.4)
    scores = [score_case(row.probability > 0.4, row.label) for row in rows]
    assert found.threshold == 0.4
    assert found.dice == pytest.approx((1 + 2 / 3) / 2)
    assert found.surface_dice == pytest.approx(np.mean([score.surface_dice for score in scores]))
    assert found.voi_score == pytest.approx(np.mean([score.voi_score for score in scores]))
    assert found.truth == pytest.approx(2 / 6)
    assert found.foreground == pytest.approx((2 / 6 + 1 / 6) / 2)
    variances = [part[:, 2:].var() for part in (good, half)]
    assert found.variance == pytest.approx(np.mean(variances), rel=1e-5)


# --- the prediction


class Same(nn.Module):
    """Gives its input back as logits, and remembers in which mode it ran."""

    def __init__(self) -> None:
        super().__init__()
        self.modes: set[bool] = set()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.modes.add(self.training)
        return images


def test_a_network_that_changes_nothing_gives_the_kernels_input_back(
    tmp_path: Path, write_case: Callable, make_sheet: Callable
) -> None:
    image, label = make_sheet(0, (36, 40, 20))
    case = write_case(tmp_path, "1", "5", image, label)
    network = Same().train()
    (found,) = validate.predict(network, [case], RUN, CPU)
    np.testing.assert_array_equal(found.image, image)
    np.testing.assert_array_equal(found.label, label)
    fed = RUN.intensity.table(image)[image]
    np.testing.assert_allclose(found.probability, surface.probability(fed), atol=1e-5)
    assert found.probability.dtype == np.float32
    assert network.modes == {False}
    assert network.training


def test_logits_that_are_no_numbers_are_refused(tmp_path: Path, write_case: Callable, make_sheet: Callable) -> None:
    case = write_case(tmp_path, "1", "5", *make_sheet(0))
    network = nn.Conv3d(1, 1, 1)
    nn.init.constant_(network.weight, float("nan"))
    with pytest.raises(PredictionError, match="not finite"):
        validate.predict(network, [case], RUN, CPU)


def test_a_label_of_another_shape_is_refused_before_the_network_runs(
    tmp_path: Path, write_case: Callable, make_sheet: Callable
) -> None:
    image, label = make_sheet(0)
    case = write_case(tmp_path, "1", "5", image, label[:-1])
    network = Same()
    with pytest.raises(CasesError, match="found a label of"):
        validate.predict(network, [case], RUN, CPU)
    assert not network.modes
