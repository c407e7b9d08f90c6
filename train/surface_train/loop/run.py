"""A training in progress: its steps, its epochs, and what is kept so that it can go on after any interruption."""

import logging
import math
import time
from contextlib import closing
from dataclasses import asdict, fields, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from surface_kernel.networks import weights
from surface_kernel.networks.device import Device
from surface_kernel.networks.network import build, restore
from surface_kernel.networks.weights import Metadata
from surface_train.checks import validate
from surface_train.checks.sentinel import Watch
from surface_train.checks.validate import Checked, Predicted
from surface_train.data.cases import Case
from surface_train.data.folds import Split
from surface_train.data.patches import Sampler
from surface_train.data.store import Store
from surface_train.distributed import Group
from surface_train.loop import state
from surface_train.loop.average import Average
from surface_train.loop.budget import Budget
from surface_train.loop.schedule import learning_rate
from surface_train.loop.state import Progress
from surface_train.loop.step import Stepper
from surface_train.records.environment import commit, origin
from surface_train.records.run_folder import RunFolder
from surface_train.settings import Augment, Settings

log = logging.getLogger("surface_train")

_LOSS_BATCHES = 4  # of the validation cases, on which the loss is looked at: the same ones every time
_VALIDATED = ("loss", *(field.name for field in fields(Checked)))  # the columns of a validation, empty without one
_UNVARIED = Augment(False, False, 0, 0, 0, 0, 0, 0, 0)


class Run:
    """A training in progress: network, optimiser, averages, and how far they have come."""

    def __init__(
        self, settings: Settings, sides: Split, record: RunFolder, device: Device, group: Group, init: Path | None
    ) -> None:
        torch.manual_seed(settings.seed)
        self.settings, self.sides, self.record, self.device, self.group = settings, sides, record, device, group
        self.stepper = Stepper(self._initial(init), settings, device, group)
        self.sampler = Sampler(Store(sides.training, settings), settings, group.rank, group.size)
        self.checked = _spread(sides.validation, settings.validation.cases)
        self.decay = settings.average.decay if settings.average.kind == "ema" else None
        self.average = Average(self.decay)
        parent = origin(init)
        self.progress = Progress(settings.digest, sides.digest, settings.average.start_epoch)
        self.progress.init = parent["sha256"] if parent else ""
        self.totals = torch.zeros(0, dtype=torch.float64)
        self.save_s = self.step_s = self.validation_s = self.score_s = 0.0

    def _initial(self, init: Path | None) -> nn.Module:
        if init is None:
            return build(self.settings.network)
        metadata, tensors = weights.load(init)
        if metadata.architecture != self.settings.network:
            raise ValueError(
                f"{init}: found {metadata.architecture}, wanted {self.settings.network} as in the settings"
            )
        return restore(metadata.architecture, tensors).requires_grad_(True)

    @cached_property
    def _unvaried(self) -> Sampler:
        """Give patches of the cases to check, as they are."""
        settings = replace(self.settings, augment=_UNVARIED, label_2="ignored")
        return Sampler(Store(self.checked, settings), settings)

    @property
    def network(self) -> nn.Module:
        """Give the plain network, with the weights of the latest step."""
        return self.stepper.network

    @property
    def last_epoch(self) -> int:
        """Give the run's last epoch; patience may have brought it forward."""
        return self.progress.averaging_from + self.settings.average_epochs - 1

    def resume(self) -> None:
        """Go back to the last saved step. Raises StateError when it belongs to other settings or another split."""
        found = state.load(self.record.state, self.progress, self.network, self.stepper.optimiser, self.decay)
        self.progress, self.average, self.totals = found
        self.totals = self.totals.to(self.device.name)
        if self.progress.scaler:  # empty after a run on a device that needs none
            self.stepper.scaler.load_state_dict(self.progress.scaler)
        if self.group.primary:
            self.record.forget_after(self.progress.epoch)
        log.info("resuming after step %d, in epoch %d", self.progress.step, self.progress.epoch + 1)

    def save(self) -> None:
        """Write the state of this very step."""
        started_s = time.monotonic()
        self.progress.scaler = self.stepper.scaler.state_dict()
        if self.group.primary:
            optimiser = self.stepper.optimiser
            state.save(self.record.state, self.progress, self.network, optimiser, self.average, self.totals)
        self.save_s = max(self.save_s, time.monotonic() - started_s)

    def epoch(self, budget: Budget) -> bool:
        """Train one epoch, or what is left of it; average, validate when it is due, save.

        False when the budget ends before the epoch does; the state is saved then.
        """
        settings, progress, number = self.settings, self.progress, self.progress.epoch + 1
        started_s = time.monotonic()
        means = self._train(number, budget)
        if means is None:
            self.save()
            return False
        mean_loss, spread = means.pop("loss"), means.pop("variance_of_p")
        log.info("Epoch %d Train - Loss: %.4f (%s)", number, mean_loss, _listed(means))
        progress.epoch = number
        row: dict[str, object] = {
            "epoch": number,
            "seconds": round(time.monotonic() - started_s, 1),
            "learning_rate": self._rate(progress.step - 1),
            **{"loss": mean_loss, **means, "variance_of_p": spread},
        }
        due = number % settings.validation.every_epochs == 0 or number == self.last_epoch
        row |= {f"val_{name}": "" for name in _VALIDATED}
        result = self._validate_epoch(row) if due and self.checked else None
        if self.group.primary:
            self.record.log(row)
            self.record.show(row, settings.loss, self.record.folder / f"epoch_{number}.png" if result else None)
            self.write(self.record.last, self.network, result)
        self.totals = torch.zeros(0, dtype=torch.float64)
        try:
            if result:
                self._learn_from(result)
        finally:
            self.save()  # of a run that the sentinel stops, too
        return True

    def _train(self, number: int, budget: Budget) -> dict[str, float] | None:
        """Train to the end of an epoch; give the means of its steps, None when the budget ended before."""
        settings, progress = self.settings, self.progress
        end, accumulate = number * settings.steps_per_epoch, settings.optimiser.accumulate
        quiet = None if self.group.primary else True
        batches = self.sampler.batches(progress.step * accumulate, end * accumulate)
        steps, done = range(progress.step, end), progress.step - (end - settings.steps_per_epoch)
        shown = {"total": settings.steps_per_epoch, "initial": done, "unit": "step", "leave": False, "disable": quiet}
        bar = tqdm(steps, f"epoch {number}", **shown)
        names: list[str] = []
        with closing(batches), bar:
            for step in bar:
                if self._is_over(budget):
                    return None
                started_s = time.monotonic()
                # Networks that draw must draw the same in a resumed run.
                torch.manual_seed(settings.seed * 1_000_003 + step * self.group.size + self.group.rank)
                means = self.stepper.step([next(batches) for _ in range(accumulate)], self._rate(step))
                names = list(means)
                self._add(torch.stack([means[name] for name in names]))
                progress.step = step + 1
                self._take_sample(number, step % settings.steps_per_epoch)
                self.step_s = max(0.9 * self.step_s, time.monotonic() - started_s)
        found = (self.totals / settings.steps_per_epoch).tolist()
        if not math.isfinite(found[0]):
            raise RuntimeError(
                f"epoch {number}: found a loss of {found[0]}, wanted a finite one: lower the learning rate"
            )
        return dict(zip(names, found, strict=True))

    def _rate(self, step: int) -> float:
        return learning_rate(step, self.settings, self.progress.averaging_from, self.progress.drops)

    def _add(self, values: Tensor) -> None:
        """Add a step's values to the epoch's sums, on the device: nothing waits for it."""
        wide = values.double()
        self.totals = self.totals + wide if len(self.totals) else wide

    def _take_sample(self, epoch: int, index: int) -> None:
        """Take the weights into the average when it is time, after step `index` of an epoch."""
        if epoch < self.progress.averaging_from:
            return
        steps, wanted = self.settings.steps_per_epoch, self.settings.average.samples_per_epoch
        if self.decay is not None or (index + 1) * wanted // steps > index * wanted // steps:
            self.average.add(self.network.state_dict())

    def _is_over(self, budget: Budget) -> bool:
        """Tell whether another step would leave too little time to save, and to check the weights."""
        if budget.left_s == math.inf:
            return False
        needed_s = 1.2 * (self.step_s + self.save_s + self.finish_s)
        return self.group.as_rank_0(budget.left_s < needed_s)

    @property
    def finish_s(self) -> float:
        """Give how long checking and shipping take, from the validations so far; 0 before the first."""
        if not self.validation_s:
            return 0.0
        # The average and the best single weights are predicted and scored, one of them at every threshold.
        scores_s = len(validate.THRESHOLDS) * self.score_s
        return 2 * self.validation_s + scores_s + self.settings.average.batchnorm_steps * self.step_s

    def _validate_epoch(self, row: dict[str, object]) -> Checked:
        number = self.progress.epoch
        measured = [self.stepper.measure(self._unvaried.batch(index)) for index in range(_LOSS_BATCHES)]
        means = {name: torch.stack([found[name] for found in measured]).mean().item() for name in measured[0]}
        listed = {name: value for name, value in means.items() if name not in ("loss", "variance_of_p")}
        log.info("Epoch %d Val - Loss: %.4f (%s)", number, means["loss"], _listed(listed))
        result, _ = self.validate(self.network, f"Epoch {number}")
        row["val_loss"] = means["loss"]
        row |= {f"val_{name}": value for name, value in asdict(result).items()}
        return result

    def validate(self, network: nn.Module, name: str) -> tuple[Checked, list[Predicted]]:
        """Predict and score the cases to check; give the numbers, and this process's predictions."""
        started_s = time.monotonic()
        predicted = list(validate.predict(network, self.checked, self.settings, self.device, self.group))
        predicted_s = time.monotonic()
        result = validate.check(predicted, validate.best_threshold(predicted, self.group), self.group)
        self.score_s = max(self.score_s, time.monotonic() - predicted_s)
        log.info(
            "%s Val - score: %.4f, surface Dice: %.4f, topology: %.4f, VOI score: %.4f, Dice: %.4f, threshold %.2f, "
            "foreground %.2f %% of %.2f %%, variance of p %.4f",
            *(name, result.score, result.surface_dice, result.topo_score, result.voi_score, result.dice),
            *(result.threshold, 100 * result.foreground, 100 * result.truth, result.variance),
        )
        if self.group.primary:
            self.record.picture(predicted[0], result.threshold, name.lower().replace(" ", "_"))
        self.validation_s = max(self.validation_s, time.monotonic() - started_s)
        return result, predicted

    def _learn_from(self, result: Checked) -> None:
        """Keep the best weights, be patient or not, and let the sentinel look. Raises Collapse."""
        settings, progress = self.settings, self.progress
        progress.stale, progress.plateau = progress.stale + 1, progress.plateau + 1
        if result.score > progress.best_score:
            progress.best_score, progress.best_epoch = result.score, progress.epoch
            progress.stale = progress.plateau = 0
            if self.group.primary:
                self.write(self.record.best, self.network, result)
        if progress.plateau >= settings.optimiser.plateau_validations:
            progress.drops, progress.plateau = progress.drops + 1, 0
        if progress.stale >= settings.validation.patience and progress.epoch + 1 < progress.averaging_from:
            progress.averaging_from = progress.epoch + 1
            log.info(
                "early stopping: %d validations in a row were not better than epoch %d's %.4f; weights are averaged "
                "over the next %d epochs, then the run ends",
                *(progress.stale, progress.best_epoch, progress.best_score, settings.average_epochs),
            )
        if progress.step >= settings.optimiser.warmup_steps:
            watch = Watch(settings.sentinel, progress.strikes)
            try:
                watch.see(result.foreground, result.truth, result.variance)
            finally:
                progress.strikes = watch.strikes

    def write(self, path: Path, network: nn.Module, result: Checked | None, **more: object) -> None:
        """Write weights that explain themselves. result: their validation, None where there was none."""
        settings = self.settings
        provenance = {
            "settings_sha256": settings.digest,
            "split_sha256": self.sides.digest,
            "commit": commit(),
            "fold": self.sides.fold,
            "label_2": settings.label_2,
            "loss": settings.loss.preset,
            "init_sha256": self.progress.init,
            "epoch": self.progress.epoch,
            "epochs": settings.epochs,
            "n_averaged": 0,
            "validation": "ungated" if result is None else result.rounded(),
            **more,
        }
        described = Metadata(settings.network, settings.intensity, settings.patches.shape_zyx, settings.overlap)
        described = replace(described, provenance=provenance, threshold=result.threshold if result else 0.5)
        weights.save(path, network.state_dict(), described)


def _listed(parts: dict[str, float]) -> str:
    return ", ".join(f"{name}: {value:.4f}" for name, value in parts.items())


def _spread(cases: tuple[Case, ...], count: int) -> list[Case]:
    """Take up to `count` cases, evenly spread over the scrolls, the same ones every time."""
    ordered = sorted(cases, key=lambda case: (case.scroll, case.name))
    if len(ordered) <= count:
        return ordered
    return [ordered[index * len(ordered) // count] for index in range(count)]
