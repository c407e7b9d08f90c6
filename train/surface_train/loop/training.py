"""The step loop: network, optimiser and averaged weights, and how far they have come."""

import logging
import math
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from surface_train.data.patches import Sampler
from surface_train.distributed import Group
from surface_train.loop import state
from surface_train.loop.average import WeightAverage
from surface_train.loop.budget import Budget, Timings
from surface_train.loop.schedule import learning_rate
from surface_train.loop.state import TrainingProgress
from surface_train.loop.step import Stepper
from surface_train.settings import TrainingSettings

log = logging.getLogger("surface_train")


class Training:
    """A training in progress. It moves weights and averages them; it validates nothing and writes only its state."""

    def __init__(
        self,
        *,
        settings: TrainingSettings,
        stepper: Stepper,
        sampler: Sampler,
        group: Group,
        timings: Timings,
        progress: TrainingProgress,
    ) -> None:
        self._progress = progress
        self._settings, self._stepper, self._sampler = settings, stepper, sampler
        self._group, self._timings = group, timings
        self.average = WeightAverage(settings.average.decay if settings.average.kind == "ema" else None)
        self._totals = torch.zeros(0, dtype=torch.float64)

    @property
    def progress(self) -> TrainingProgress:
        """How far the run has come."""
        return self._progress

    def accept(self, progress: TrainingProgress) -> None:
        """Go on from other progress: what a validation changes, such as when averaging begins."""
        self._progress = progress

    @property
    def network(self) -> nn.Module:
        """The plain network, with the weights of the latest step."""
        return self._stepper.network

    @property
    def last_epoch(self) -> int:
        """The run's last epoch; patience may have brought it forward."""
        return self._progress.averaging_from + self._settings.average_epochs - 1

    @property
    def is_done(self) -> bool:
        """Whether no epoch is left to train or to finish."""
        return self.is_last_epoch and not self._progress.trained

    @property
    def is_last_epoch(self) -> bool:
        """Whether the run's last epoch was trained."""
        return self._progress.epoch >= self.last_epoch

    @property
    def latest_rate(self) -> float:
        """The learning rate of the latest step."""
        return self._rate(self._progress.step - 1)

    @property
    def state_bytes(self) -> int:
        """The most bytes that a state takes: weights, their moments and their average."""
        per_weight = 4 if self._settings.optimiser.kind == "adamw" else 3
        return per_weight * sum(int(tensor.nbytes) for tensor in self.network.state_dict().values())

    def train_epoch(self, budget: Budget) -> dict[str, float] | None:
        """Train the next epoch, or what is left of it.

        Returns:
            The means over its steps of what `Stepper.step` returns; None when the time limit or a signal came first.

        Raises:
            RuntimeError: when the loss is not finite.
        """
        settings, number = self._settings, self._progress.epoch + 1
        end, accumulate = number * settings.steps_per_epoch, settings.optimiser.accumulate
        batches = self._sampler.batches(self._progress.step * accumulate, end * accumulate)
        with closing(batches), self._bar(number, end) as bar:
            for step in bar:
                if self._is_over(budget):
                    return None
                with self._timings.step():
                    # Networks that draw must draw the same in a resumed run.
                    torch.manual_seed(settings.seed * 1_000_003 + step * self._group.size + self._group.rank)
                    means = self._stepper.step([next(batches) for _ in range(accumulate)], self._rate(step))
                    self._progress = replace(self._progress, step=step + 1)
                    if means is None:
                        self._skip()
                        continue
                    self._add(torch.stack([means[name] for name in means]))
                    self._progress = replace(self._progress, skipped_in_a_row=0)
                    self._take_sample(number, step % settings.steps_per_epoch)
        return self._end_epoch(number)

    def _end_epoch(self, number: int) -> dict[str, float]:
        """Return the means over the steps of an epoch that were made."""
        made = self._settings.steps_per_epoch - self._progress.skipped
        names = self._stepper.names
        values = (self._totals / made).tolist() if made else [math.nan] * len(names)
        if made and not math.isfinite(values[0]):
            raise RuntimeError(f"epoch {number}: expected a finite loss, got {values[0]}; lower the learning rate")
        self._progress = replace(self._progress, epoch=number, skipped=0)
        self._totals = torch.zeros(0, dtype=torch.float64)
        return dict(zip(names, values, strict=True))

    def _skip(self) -> None:
        """Count a step that was not made. Raises RuntimeError where too many were in a row."""
        progress, most = self._progress, self._settings.optimiser.most_skipped_steps
        in_a_row = progress.skipped_in_a_row + 1
        self._progress = replace(progress, skipped=progress.skipped + 1, skipped_in_a_row=in_a_row)
        log.info("step %d skipped: float16 overflowed; the loss's scale is halved", self._progress.step)
        if in_a_row > most:
            raise RuntimeError(
                f"optimiser.most_skipped_steps: expected at most {most} steps in a row without a finite gradient, got "
                f'{in_a_row}; lower the learning rate, or set precision = "float32"'
            )

    def save(self, path: Path) -> None:
        """Write the state of this very step; only the first process of a run does."""
        with self._timings.save():
            self._progress = replace(self._progress, scaler=self._stepper.scaler.state_dict())
            if self._group.primary:
                state.save(
                    path,
                    progress=self._progress,
                    network=self.network,
                    optimiser=self._stepper.optimiser,
                    average=self.average,
                    totals=self._totals,
                )

    def load(self, path: Path) -> None:
        """Go back to a saved state.

        Raises:
            StateError: when it belongs to other settings or another split.
        """
        self._progress, self.average, totals = state.load(
            path,
            expected=self._progress,
            network=self.network,
            optimiser=self._stepper.optimiser,
            decay=self.average.decay,
        )
        self._totals = totals.to(next(self.network.parameters()).device)
        if self._progress.scaler:  # empty after a run on a device that needs none
            self._stepper.scaler.load_state_dict(self._progress.scaler)

    def _bar(self, number: int, end: int) -> "tqdm[int]":
        first, per_epoch = self._progress.step, self._settings.steps_per_epoch
        return tqdm(
            range(first, end),
            desc=f"epoch {number}",
            total=per_epoch,
            initial=first - (end - per_epoch),
            unit="step",
            leave=False,
            disable=None if self._group.primary else True,
        )

    def _rate(self, step: int) -> float:
        progress = self._progress
        return learning_rate(step, self._settings, averaging_from=progress.averaging_from, drops=progress.drops)

    def _add(self, values: Tensor) -> None:
        """Add a step's values to the epoch's sums, on the device: nothing waits for them."""
        wide = values.double()
        self._totals = self._totals + wide if len(self._totals) else wide

    def _take_sample(self, epoch: int, index: int) -> None:
        """Add the weights to the average when they are due, after step `index` of an epoch."""
        if epoch < self._progress.averaging_from:
            return
        steps, samples = self._settings.steps_per_epoch, self._settings.average.samples_per_epoch
        if self.average.decay is not None or (index + 1) * samples // steps > index * samples // steps:
            self.average.add(self.network.state_dict())

    def _is_over(self, budget: Budget) -> bool:
        """Whether a signal ends the run, or another step would leave too little time to save and to validate."""
        # Signals reach the processes of a run at different moments: all go by the first one's.
        budget.stop.number = self._group.as_rank_0(budget.stop.number)
        if budget.stop.number:
            return True
        return budget.is_limited and self._group.as_rank_0(budget.left_s < self._timings.next_step_s)
