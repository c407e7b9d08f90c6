"""A training whose schedule is laid out over seconds or steps: the number of steps is fixed before the first one."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from surface_kernel.networks import weights
from surface_train.distributed import joined
from surface_train.loop import fit as story
from surface_train.loop.estimate import ending, measure
from surface_train.loop.fit import fit
from surface_train.loop.plan import Costs, Ending, PlanError
from surface_train.records.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("one_thread")
COSTS = Costs(step_s=0.5, volume_s=1.0, score_s=1.0, epoch_s=0.25)


@pytest.fixture(autouse=True)
def _small(with_small_networks: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    with_small_networks(monkeypatch)
    monkeypatch.setattr(RunFolder, "picture", lambda run, predicted, threshold, name: None)
    monkeypatch.setattr(RunFolder, "show", lambda run, row, loss, picture: None)


@pytest.fixture
def costs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A machine on which everything costs what COSTS says; lists how often it was measured."""
    measured: list[str] = []

    def measure(parts: Any) -> Costs:
        for batch in parts.sampler.batches(0, 1):
            parts.stepper.step([batch], 1.0)  # measuring moves the weights, here far
        measured.append("measured")
        return COSTS

    monkeypatch.setattr(story, "measure", measure)
    return measured


def bits(path: Path) -> dict[str, torch.Tensor]:
    return weights.load(path)[1]


def assert_same(one: Path, other: Path) -> None:
    first, second = bits(one), bits(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_plan_is_the_same_training_as_its_steps_by_hand(
    world: Any,
    tmp_path: Path,
    costs: list[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level("INFO", "surface_train")
    monkeypatch.setattr(story, "time", SimpleNamespace(monotonic=lambda: 0.0))  # nothing is spent before the plan
    # 4 epochs: 1 s. A case takes 2 s, its picture 1 s: validated once, with its loss of 1 s, and twice at the end; 11
    # thresholds, BatchNorm's two batches, a fold of two cases. Steps must get half of the time, so one validation is
    # left out, and 22 steps fit, which are five an epoch.
    beside_s = 1 + (3 + 1) + 2 * 3 + 11 + 2 * 0.5 + 2 * 2
    asked = world.request(tmp_path / "planned", plan_s=1.15 * (beside_s + 22 * 0.5))
    planned = fit(asked)
    assert [line for line in caplog.messages if line.startswith("plan: 20 steps of 0.50 s in 4 epochs, ")]
    assert any(line.startswith("took ") and "the plan said about" in line for line in caplog.messages)
    record = json.loads((asked.out / "plan.json").read_text())
    assert record["steps"] == 20
    assert record["step_s"] == 0.5
    assert "plan: validated every 4 epochs instead of 2, to fit" in caplog.messages
    by_hand = world.request(tmp_path / "by_hand", steps=20)
    rarer = replace(by_hand.settings.validation, every_epochs=4)
    by_hand = fit(replace(by_hand, settings=replace(by_hand.settings, validation=rarer)))
    assert_same(planned, by_hand)
    told = weights.describe(planned).provenance
    assert (told["steps"], told["epochs"], costs) == (20, 4, ["measured"])


def test_a_resumed_run_keeps_its_plan_and_does_not_measure_again(
    world: Any, tmp_path: Path, costs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit(world.request(tmp_path / "whole", steps=12))
    begun = world.request(tmp_path / "begun", steps=12)
    run_epoch, ended = story.run_epoch, []

    def first_epoch_only(parts: Any, budget: Any) -> bool:
        if ended:
            raise KeyboardInterrupt
        ended.append(run_epoch(parts, budget))
        return True

    with monkeypatch.context() as patched:
        patched.setattr(story, "run_epoch", first_epoch_only)
        with pytest.raises(KeyboardInterrupt):
            fit(begun)
    resumed = fit(replace(begun, steps=None, plan_s=9999.0, resume=True))
    assert costs == []
    assert_same(whole, resumed)
    with pytest.raises(PlanError, match=r"--steps: expected 12, as .*begun.*, got 16"):
        fit(replace(begun, steps=16, resume=True))


def test_what_does_not_fit_is_told_before_anything_is_written(world: Any, tmp_path: Path, costs: list[str]) -> None:
    with pytest.raises(PlanError, match=r"--plan-s: expected at least \d+ s on this machine, got 5: 16 steps"):
        fit(world.request(tmp_path / "run", plan_s=5.0))
    assert not (tmp_path / "run").exists()


def test_costs_are_measured_on_the_runs_own_steps_and_cases(world: Any, tmp_path: Path) -> None:
    request = world.request(tmp_path / "run")
    with joined() as group:
        parts = story._prepare(request, group)
        costs = measure(parts)
        expected = Ending(cases=1, fold=2, saved=2, thresholds=11, batchnorm_steps=2)
        assert ending(parts, save_logits=True) == expected
    assert 0 < costs.step_s < 10
    assert 0 < costs.volume_s < 10
    assert 0 < costs.score_s < 10
    assert 1 < costs.epoch_s < 10
    assert not (tmp_path / "run").exists()


def test_a_plan_and_steps_are_not_both_given(capsys: pytest.CaptureFixture[str]) -> None:
    from surface_train.__main__ import main

    with pytest.raises(SystemExit) as ended:
        main(["fit", "--settings", "a", "--data", "b", "--fold", "0", "--plan-s", "5", "--steps", "9"])
    assert ended.value.code == 2
    assert "not allowed with argument" in capsys.readouterr().err
