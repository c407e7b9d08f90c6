import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from surface_train.loop import state
from surface_train.loop.average import WeightAverage
from surface_train.loop.state import StateError, TrainingProgress

pytestmark = pytest.mark.usefixtures("one_thread")
PROGRESS = TrainingProgress(
    settings="settings-a",
    split="split-a",
    averaging_from=5,
    step=31,
    epoch=3,
    best_score=0.625,
    best_epoch=2,
    stale=1,
    plateau=1,
    drops=2,
    strikes=3,
    scaler={"scale": 1024.0, "growth_tracker": 7},
)
TOTALS = torch.tensor([1 / 3, 2.0], dtype=torch.float64)


class Learner:
    """A network with BatchNorm, its optimiser and its average, some steps in."""

    def __init__(self, seed: int, steps: int) -> None:
        torch.manual_seed(seed)
        self.network = nn.Sequential(nn.Conv3d(1, 3, 3), nn.BatchNorm3d(3), nn.Conv3d(3, 1, 1))
        self.network.to(memory_format=torch.channels_last_3d)
        self.optimiser = torch.optim.AdamW(self.network.parameters(), 0.1)
        self.average = WeightAverage()
        for step in range(steps):
            self.step(step)

    def step(self, number: int) -> None:
        images = torch.randn((2, 1, 6, 6, 6), generator=torch.Generator().manual_seed(number))
        self.optimiser.zero_grad()
        self.network(images).square().mean().backward()
        self.optimiser.step()
        self.average.add(self.network.state_dict())

    def save(self, path: Path, progress: TrainingProgress = PROGRESS) -> None:
        state.save(
            path,
            progress=progress,
            network=self.network,
            optimiser=self.optimiser,
            average=self.average,
            totals=TOTALS,
        )


def load(path: Path, into: Learner, decay: float | None = None, expected: TrainingProgress = PROGRESS) -> Any:
    return state.load(path, expected=expected, network=into.network, optimiser=into.optimiser, decay=decay)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_learner_put_back_learns_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    learner = Learner(0, steps=3)
    learner.save(tmp_path / "s", replace(PROGRESS))
    other = Learner(1, steps=1)
    progress, other.average, totals = load(tmp_path / "s", other)
    assert torch.equal(totals, TOTALS)
    assert progress == replace(PROGRESS, averaged=3)  # the average says how many it holds
    assert other.average.count == 3
    for step in (7, 8):
        learner.step(step)
        other.step(step)
    assert same(learner.network.state_dict(), other.network.state_dict())
    assert same(learner.average.mean, other.average.mean)


def test_momentum_is_put_back_too(tmp_path: Path) -> None:
    learner, other = Learner(0, steps=0), Learner(1, steps=0)
    for one in (learner, other):
        one.optimiser = torch.optim.SGD(one.network.parameters(), 0.1, 0.9, nesterov=True)
    learner.step(0)
    learner.save(tmp_path / "s")
    _, other.average, _ = load(tmp_path / "s", other)
    for one in (learner, other):
        one.step(1)
    assert same(learner.network.state_dict(), other.network.state_dict())


def test_an_optimiser_that_has_not_stepped_and_an_empty_average(tmp_path: Path) -> None:
    learner = Learner(0, steps=0)
    new = TrainingProgress(settings="a", split="b", averaging_from=1)
    learner.save(tmp_path / "s", new)
    progress, average, _ = load(tmp_path / "s", learner, decay=0.9, expected=new)
    assert (progress, average.count, average.mean, average.decay) == (new, 0, {}, 0.9)


@pytest.mark.parametrize("entry", ["settings", "split"])
def test_another_runs_state_is_refused_and_nothing_is_touched(tmp_path: Path, entry: str) -> None:
    Learner(0, steps=1).save(tmp_path / "s")
    stranger = Learner(1, steps=0)
    stranger.network = nn.Sequential(nn.Linear(2, 2))  # the network may differ too: the digests are checked first
    before = {name: tensor.clone() for name, tensor in stranger.network.state_dict().items()}
    message = f"expected the state of a run with this {entry} \\(b…\\), got {entry} {entry}-a"
    with pytest.raises(StateError, match=message):
        load(tmp_path / "s", stranger, expected=replace(PROGRESS, **{entry: "b"}))
    assert same(before, stranger.network.state_dict())


def test_what_is_no_state_is_refused(tmp_path: Path) -> None:
    learner = Learner(0, steps=0)
    (tmp_path / "torn").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    for name in ("none", "torn"):
        with pytest.raises(StateError, match=f"{name}: expected a training state .*, got no readable"):
            load(tmp_path / name, learner)
    save_file({"network/x": torch.zeros(1)}, tmp_path / "weights", {"format": '"surface-weights/1"'})
    with pytest.raises(StateError, match='\\(surface-training/2\\), got format "surface-weights/1"'):
        load(tmp_path / "weights", learner)


def test_a_save_that_fails_leaves_the_last_one_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = Learner(0, steps=1)
    learner.save(tmp_path / "s")
    before = (tmp_path / "s").read_bytes()

    def torn(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
        path.write_bytes(before[: len(before) // 2])
        raise OSError("no space left on device")

    monkeypatch.setattr(state, "save_file", torn)
    learner.step(5)
    with pytest.raises(OSError, match="no space left"):
        learner.save(tmp_path / "s")
    assert (tmp_path / "s").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_a_state_has_the_entries_that_it_always_had(tmp_path: Path) -> None:
    Learner(0, steps=1).save(tmp_path / "s")
    with safetensors.safe_open(tmp_path / "s", framework="pt") as opened:
        metadata = opened.metadata()
    # Runs that were begun with earlier versions are resumed, and the package reads the step from here.
    assert json.loads(metadata["progress"]) == {
        "settings": "settings-a",
        "split": "split-a",
        "averaging_from": 5,
        "step": 31,
        "epoch": 3,
        "averaged": 1,
        "planned_steps": 0,
        "planned_every": 0,
        "best_score": 0.625,
        "best_epoch": 2,
        "stale": 1,
        "plateau": 1,
        "drops": 2,
        "strikes": 3,
        "skipped": 0,
        "skipped_in_a_row": 0,
        "init": "",
        "scaler": {"scale": 1024.0, "growth_tracker": 7},
    }
    assert metadata["format"] == "surface-training/2"


def test_the_file_is_plain_safetensors(tmp_path: Path) -> None:
    learner = Learner(0, steps=1)
    learner.save(tmp_path / "s")
    names = set(load_file(tmp_path / "s"))
    assert {"network/0.weight", "average/1.running_mean", "optimiser/0/exp_avg", "optimiser/0/step"} <= names


def test_a_full_disk_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise safetensors.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(state, "save_file", full)
    said = r"No space left on device: expected [\d,]+ bytes free, got [\d,]+: '.*/state'"
    with pytest.raises(OSError, match=said):
        Learner(0, steps=1).save(tmp_path / "state")
    assert list(tmp_path.iterdir()) == []
