import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from masks import mask_settings
from torch import nn

from surface_kernel.networks.device import Device
from surface_kernel.probability import logit
from surface_train.checks import validate
from surface_train.checks.validate import THRESHOLDS, Predicted
from surface_train.data import cases
from surface_train.data.cases import Case
from surface_train.data.patches import Batch
from surface_train.distributed import Group
from surface_train.loop import budget
from surface_train.loop.budget import Timings
from surface_train.loop.validation import Validator, spread_over_scrolls
from surface_train.settings import Patches, TrainingSettings, Validation

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = Device(name="cpu", dtype="float32", batch=2, threads=1)
RUN = replace(
    TrainingSettings(), patches=Patches(shape_zyx=(32, 32, 32), batch=2), overlap=0.25, validation=Validation(cases=2)
)


def made(fold: Sequence[Case], timings: Timings | None = None) -> Validator:
    timings = timings or Timings(thresholds=len(THRESHOLDS), batchnorm_steps=1)
    return Validator(settings=RUN, fold=fold, device=CPU, group=Group(), timings=timings)


def case(name: str, scroll: str) -> Case:
    return Case(name=name, scroll=scroll, image=Path(), label=Path())


def predicted(probability: float) -> Predicted:
    """One case of two layers, the first surface, all of it of one probability."""
    label = np.zeros((2, 8, 8), np.uint8)
    label[0] = 1
    return Predicted(
        case=case("1", "5"),
        image=label,
        label=label,
        field=np.full(label.shape, logit(probability), np.float32),
        scanned=None,
        mask_settings=mask_settings(),
        variance=0.01,
        entropy=0.3,
    )


# --- which cases


def test_the_cases_to_validate_are_few_fixed_and_of_many_scrolls() -> None:
    fold = tuple(case(f"{scroll}{n}", scroll) for scroll in "abcd" for n in range(5))
    found = spread_over_scrolls(fold, 4)
    assert [case.scroll for case in found] == ["a", "b", "c", "d"]
    assert spread_over_scrolls(fold[::-1], 4) == found
    assert len(spread_over_scrolls(fold, 7)) == 7
    assert spread_over_scrolls(fold[:3], 7) == list(fold[:3])
    assert spread_over_scrolls((), 4) == []


def test_a_validator_takes_as_many_as_the_settings_say_and_knows_the_whole_fold() -> None:
    fold = [case(str(n), "a") for n in range(5)]
    assert [row.name for row in made(fold).cases] == ["0", "2"]
    assert made(fold).fold == tuple(fold)
    assert made([]).cases == []


# --- validations


def test_a_validation_is_the_check_at_the_settings_threshold(
    world: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "surface_train")
    timings = Timings(thresholds=11, batchnorm_steps=1)
    clock = SimpleNamespace(now_s=0.0)
    monkeypatch.setattr(budget, "time", SimpleNamespace(monotonic=lambda: clock.now_s))
    real = validate.check

    def check_of_7_s(*given: Any) -> Any:
        clock.now_s += 7
        return real(*given)

    monkeypatch.setattr(validate, "check", check_of_7_s)
    validator, network = made(cases.read(world.data)[0], timings), nn.Conv3d(1, 1, 1)
    nn.init.ones_(network.weight), nn.init.zeros_(network.bias)
    result, rows = validator.validate(network, "Epoch 3")
    assert [row.case.name for row in rows] == [row.name for row in validator.cases] == ["11", "21"]
    assert result == real(rows, 0.5, Group())
    assert timings.score_s == 7
    (line,) = caplog.messages
    assert line.startswith(f"Epoch 3 Val - score: {result.score:.4f}, surface Dice: {result.surface_dice:.4f}, ")
    assert line.endswith(f"variance of p {result.variance:.4f}")


def test_a_sweep_scores_every_threshold_and_logs_each(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "surface_train")
    rows = [predicted(0.42)]
    swept = made([]).sweep(rows)
    assert swept == validate.sweep(rows, Group())
    (line,) = caplog.messages
    assert line.startswith(f"score by threshold: 0.20: {swept[0].score:.4f}, 0.25: ")


def test_the_whole_fold_is_the_mean_of_all_its_cases_one_at_a_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "surface_train")
    fold, held = [case(str(n), "a") for n in range(3)], []

    def predict(network: nn.Module, asked: Sequence[Case], **_: object) -> Any:
        assert list(asked) == fold
        for n, probability in enumerate((0.1, 0.9, 0.9)):
            held.append(n)
            yield predicted(probability)

    real = validate.check_case

    def check_case(row: Predicted, threshold: float) -> Any:
        assert len(held) == 1  # no other was predicted before this one was scored
        held.clear()
        return real(row, threshold)

    monkeypatch.setattr(validate, "predict", predict)
    monkeypatch.setattr(validate, "check_case", check_case)
    result = made(fold).validate_fold(nn.Identity(), 0.5)
    one, other = (real(predicted(probability), 0.5) for probability in (0.1, 0.9))
    assert result.dice == pytest.approx((one.dice + 2 * other.dice) / 3)
    assert caplog.messages[0].startswith("Whole fold (3 cases) Val - score: ")


def test_the_loss_is_measured_on_the_same_unvaried_patches_every_time(
    world: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "surface_train")
    seen: list[Batch] = []

    def measure(batch: Batch) -> dict[str, torch.Tensor]:
        seen.append(batch)
        values = {"loss": float(len(seen)), "dice": 0.25, "variance_of_p": 0.1}
        return {name: torch.tensor(value) for name, value in values.items()}

    validator = made(cases.read(world.data)[0])
    assert validator.measure_loss(measure, "Epoch 2") == pytest.approx(2.5)  # of 1, 2, 3 and 4
    assert caplog.messages == ["Epoch 2 Val - Loss: 2.5000 (dice: 0.2500)"]
    validator.measure_loss(measure, "Epoch 4")
    for one, again in zip(seen[:4], seen[4:], strict=True):
        np.testing.assert_array_equal(one.images, again.images)
        np.testing.assert_array_equal(one.labels, again.labels)
    plain = {row.name: row.load() for row in validator.cases}
    tables = {name: RUN.intensity.table(image)[image] for name, (image, _) in plain.items()}
    for batch in seen[:4]:
        for patch in batch.images:  # cut out of a case as it is
            assert any(holds(fed, patch) for fed in tables.values())


def holds(volume: np.ndarray, patch: np.ndarray) -> bool:
    """Whether a patch stands somewhere in a volume of nearly its size, value by value."""
    starts = [range(whole - part + 1) for whole, part in zip(volume.shape, patch.shape, strict=True)]
    return any(
        np.array_equal(volume[z : z + patch.shape[0], y : y + patch.shape[1], x : x + patch.shape[2]], patch)
        for z in starts[0]
        for y in starts[1]
        for x in starts[2]
    )
