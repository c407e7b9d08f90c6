from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from surface_train.distributed import Group
from surface_train.loop import budget
from surface_train.loop.budget import Budget, Timings
from surface_train.loop.state import TrainingProgress
from surface_train.loop.training import Training
from surface_train.settings import Average, Optimiser, TrainingSettings

pytestmark = pytest.mark.usefixtures("one_thread")
# Three epochs of four steps, the last two averaged, two batches a step.
RUN = TrainingSettings(
    epochs=3,
    steps_per_epoch=4,
    average=Average(start_epoch=2, samples_per_epoch=2, learning_rate=1e-4),
    optimiser=Optimiser(learning_rate=1e-2, warmup_steps=0, accumulate=2),
)
NEW = TrainingProgress(settings=RUN.digest, split="s", averaging_from=2)


class CountingStepper:
    """Counts up its only weight, and notes what it was asked."""

    def __init__(self, loss: float = 0.5) -> None:
        self.network = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.network.weight)
        self.optimiser = torch.optim.SGD(self.network.parameters(), 0.1)
        self.scaler = torch.amp.GradScaler("cpu", enabled=False)
        self.names = ["loss", "dice"]
        self.loss, self.asked, self.drawn = loss, list[tuple[Any, float]](), list[float]()

    def step(self, batches: Sequence[Any], rate: float) -> dict[str, Tensor]:
        self.asked.append((list(batches), rate))
        self.drawn.append(torch.rand(()).item())
        with torch.no_grad():
            self.network.weight.add_(1)
        step = self.network.weight.item()
        return {"loss": torch.tensor(self.loss * step), "dice": torch.tensor(0.25)}


class Numbers:
    """Batches that are their own numbers."""

    def batches(self, first: int, end: int) -> Generator[int, None, None]:
        yield from range(first, end)


def training(stepper: CountingStepper, run: TrainingSettings = RUN, **more: Any) -> Training:
    timings = Timings(thresholds=11, batchnorm_steps=1)
    named = {"group": Group(), "timings": timings, "progress": NEW} | more
    return Training(settings=run, stepper=stepper, sampler=Numbers(), **named)  # type: ignore[arg-type]


FOREVER = Budget(float("inf"))


def test_an_epoch_takes_its_batches_and_returns_the_means_of_its_steps() -> None:
    stepper = CountingStepper()
    made = training(stepper)
    assert made.train_epoch(FOREVER) == {"loss": pytest.approx(0.5 * 2.5), "dice": 0.25}
    assert [batches for batches, _ in stepper.asked] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert (made.progress.step, made.progress.epoch, made.is_done) == (4, 1, False)
    assert made.train_epoch(FOREVER)["loss"] == pytest.approx(0.5 * 6.5)  # nothing is left of the first epoch
    assert stepper.asked[-1][0] == [14, 15]
    assert made.latest_rate == stepper.asked[-1][1] == 1e-4
    made.train_epoch(FOREVER)
    assert made.is_done


def test_states_are_averaged_from_their_epoch_on_as_often_as_asked() -> None:
    made = training(CountingStepper())
    made.train_epoch(FOREVER)
    assert made.average.count == 0
    made.train_epoch(FOREVER)
    assert made.average.count == 2
    assert made.average.mean["weight"].item() == (6 + 8) / 2  # after the second and the fourth step of the epoch


def test_averaging_that_is_brought_forward_brings_the_end_forward() -> None:
    made = training(CountingStepper(), replace(RUN, epochs=9, average=replace(RUN.average, start_epoch=7)))
    made.accept(replace(NEW, averaging_from=7))
    assert made.last_epoch == 9
    made.train_epoch(FOREVER)
    made.accept(replace(made.progress, averaging_from=2))
    assert made.last_epoch == 4
    made.train_epoch(FOREVER)
    assert made.average.count == 2


@pytest.mark.parametrize("stopped_after", [1, 3, 4, 5])
def test_a_training_that_was_saved_and_loaded_goes_on_to_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped_after: int
) -> None:
    whole = CountingStepper()
    made = training(whole)
    means = [made.train_epoch(FOREVER) for _ in range(3)]

    clock, first = SimpleNamespace(now_s=0.0), CountingStepper()
    monkeypatch.setattr(budget, "time", SimpleNamespace(monotonic=lambda: clock.now_s))
    real = first.step

    def step_of_10_s(*given: Any) -> dict[str, Tensor]:
        clock.now_s += 10
        return real(*given)

    first.step = step_of_10_s  # type: ignore[method-assign]
    one = training(first)
    limit, ended = Budget(10 * stopped_after + 11.9), list[Any]()  # a step needs 12 s
    while (ended := [*ended, one.train_epoch(limit)])[-1]:
        one.save(tmp_path / "state")
    one.save(tmp_path / "state")
    assert one.progress.step == stopped_after

    torch.manual_seed(12345)  # another process has another past
    second = CountingStepper()
    other = training(second)
    other.load(tmp_path / "state")
    resumed = [other.train_epoch(FOREVER) for _ in range(3 - other.progress.epoch)]
    assert ended[:-1] + resumed == means
    assert first.asked + second.asked == whole.asked
    assert first.drawn + second.drawn == whole.drawn
    assert torch.equal(other.average.mean["weight"], made.average.mean["weight"])
    assert other.progress == replace(made.progress, averaged=other.progress.averaged)


def test_only_the_first_process_saves(tmp_path: Path) -> None:
    training(CountingStepper(), group=Group(rank=1, size=2)).save(tmp_path / "state")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_mean_loss_that_is_not_finite_ends_the_epoch_with_a_sentence(loss: float) -> None:
    made = training(CountingStepper(loss))
    with pytest.raises(RuntimeError, match=f"epoch 1: expected a finite loss, got {loss}; lower the learning rate"):
        made.train_epoch(FOREVER)
    assert made.progress.epoch == 0
