from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from masks import mask_settings
from torch import nn

from surface_kernel import probability
from surface_kernel.inference.predict import PredictionError
from surface_kernel.networks.device import Device
from surface_kernel.postprocess.mask_settings import MaskSettings
from surface_score import score_case
from surface_train.checks import validate
from surface_train.checks.validate import THRESHOLDS, Predicted, check, sweep
from surface_train.data.cases import Case, CasesError
from surface_train.distributed import Group
from surface_train.settings import Patches, TrainingSettings

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = Device(name="cpu", dtype="float32", batch=2, threads=1)
PLAIN = mask_settings(clear_unscanned=False)
RUN = replace(TrainingSettings(), patches=Patches(shape_zyx=(32, 32, 32)), overlap=0.25, mask=mask_settings())


def predicted(label: np.ndarray, probability: np.ndarray, name: str = "1", *, mask: MaskSettings = PLAIN) -> Predicted:
    """Made by hand from probabilities: logits, variance and entropy by their definitions."""
    of = probability[label != 2].astype(np.float64)
    nats = -(of * np.log(of) + (1 - of) * np.log1p(-of)) if of.size else np.zeros(1)
    return Predicted(
        case=Case(name=name, scroll="5", image=Path(), label=Path()),
        image=np.full(label.shape, 9, np.uint8),
        label=label,
        field=np.log(probability / (1 - probability)).astype(np.float32),
        scanned=None,
        mask_settings=mask,
        variance=float(of.var()) if of.size else 0.0,
        entropy=float(nats.mean()),
    )


# --- the threshold


def test_the_thresholds_are_those_of_the_plan() -> None:
    assert THRESHOLDS == (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7)


def test_a_case_without_a_label_does_not_stop_it() -> None:
    nothing = predicted(np.full((2, 2, 2), 2, np.uint8), np.full((2, 2, 2), 0.5))
    found = check([nothing], 0.2, Group())
    assert (found.variance, found.entropy, found.dice) == (0, 0, 1)
    assert found.score == pytest.approx(1)


# --- the mask


def test_a_mask_is_made_as_it_is_submitted() -> None:
    """A prediction of one voxel is submitted as none, so it validates as none."""
    label, probability = np.zeros((8, 8, 8), np.uint8), np.full((8, 8, 8), 0.1)
    label[4, 4, 4:6] = 1
    probability[4, 4, 4] = 0.9
    kept, dropped = (predicted(label, probability, mask=mask_settings(least_voxels=least)) for least in (0, 2))
    assert check([kept], 0.5, Group()).dice == pytest.approx(2 / 3)
    assert check([dropped], 0.5, Group()).dice == 0
    assert dropped.mask(0.5).sum() == 0


def test_what_was_not_scanned_is_background_in_validation_too(tmp_path: Path, write_case: Callable) -> None:
    image, label = np.full((32, 40, 36), 90, np.uint8), np.zeros((32, 40, 36), np.uint8)
    image[:, 20:] = 120
    image[:, :4] = 0
    for rule in (True, False):
        run = replace(RUN, mask=mask_settings(clear_unscanned=rule))
        case = write_case(tmp_path / str(rule), "1", "5", image, label)
        (row,) = validate.predict(Turned(), [case], settings=run, device=CPU, group=Group())
        expected = image == 0  # turned round, the darkest is the likeliest
        np.testing.assert_array_equal(row.mask(0.99), np.zeros_like(label) if rule else expected)


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
    found = check(rows, 0.4, Group())
    scores = [score_case(part > 0.4, label) for part in (good, half)]
    assert found.threshold == 0.4
    assert found.dice == pytest.approx((1 + 2 / 3) / 2)
    for name in ("score", "topo_score", "surface_dice", "voi_score"):
        assert getattr(found, name) == pytest.approx(np.mean([getattr(score, name) for score in scores]))
    assert found.truth == pytest.approx(2 / 6)
    assert found.foreground == pytest.approx((2 / 6 + 1 / 6) / 2)
    assert found.variance == pytest.approx(np.mean([part[:, 2:].var() for part in (good, half)]), rel=1e-5)


def test_a_sweep_is_a_check_at_every_threshold() -> None:
    label = np.zeros((4, 4, 20), np.uint8)
    label[1:3, :, 5:15] = 1
    rows = [predicted(label, np.linspace(0.01, 0.99, label.size).reshape(label.shape))]
    assert sweep(rows, Group()) == [check(rows, threshold, Group()) for threshold in THRESHOLDS]


def test_all_processes_answer_with_everybodys_cases() -> None:
    class Pair(Group):
        def gather(self, own: list[Any]) -> list[Any]:
            return [*own, *own]

    label = np.zeros((4, 4, 4), np.uint8)
    label[1] = 1
    one, two = (predicted(label, np.where(label == 1, inside, 0.1)) for inside in (0.3, 0.9))
    assert check([one, two], 0.5, Group()).dice == 0.5
    assert check([two], 0.5, Pair()).dice == 1.0


# --- the prediction


class Turned(nn.Module):
    """Gives the negative of its input back as logits."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return -images


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
    (found,) = validate.predict(network, [case], settings=RUN, device=CPU, group=Group())
    np.testing.assert_array_equal(found.image, image)
    np.testing.assert_array_equal(found.label, label)
    fed = RUN.intensity.table(image)[image]
    probabilities = probability.probabilities(fed)
    for threshold in THRESHOLDS:
        # Stitching may move a logit by its last bits; what lies that close to a threshold is left out.
        sure = np.abs(probabilities - threshold) > 1e-5
        np.testing.assert_array_equal(found.mask(threshold)[sure], probabilities[sure] > threshold)
    of = probabilities[label != 2].astype(np.float64)
    assert found.variance == pytest.approx(of.var(), rel=1e-4)
    assert found.entropy == pytest.approx(-(of * np.log(of) + (1 - of) * np.log1p(-of)).mean(), rel=1e-4)
    assert network.modes == {False}
    assert network.training


def test_logits_that_are_no_numbers_are_refused(tmp_path: Path, write_case: Callable, make_sheet: Callable) -> None:
    case = write_case(tmp_path, "1", "5", *make_sheet(0))
    network = nn.Conv3d(1, 1, 1)
    nn.init.constant_(network.weight, float("nan"))
    with pytest.raises(PredictionError, match="not finite"):
        list(validate.predict(network, [case], settings=RUN, device=CPU, group=Group()))


def test_a_label_of_another_shape_is_refused_before_the_network_runs(
    tmp_path: Path, write_case: Callable, make_sheet: Callable
) -> None:
    image, label = make_sheet(0)
    case = write_case(tmp_path, "1", "5", image, label[:-1])
    network = Same()
    with pytest.raises(CasesError, match="expected a label of"):
        list(validate.predict(network, [case], settings=RUN, device=CPU, group=Group()))
    assert not network.modes


def test_processes_share_the_cases_out(tmp_path: Path, write_case: Callable, make_sheet: Callable) -> None:
    cases = [write_case(tmp_path, str(number), "5", *make_sheet(number)) for number in range(3)]
    shares = [
        validate.predict(Same(), cases, settings=RUN, device=CPU, group=Group(rank=rank, size=2)) for rank in range(2)
    ]
    seen = [[row.case.name for row in share] for share in shares]
    assert seen == [["0", "2"], ["1"]]
