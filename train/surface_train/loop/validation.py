"""Validation of a run: a few whole cases of its fold, and a loss on fixed patches of them."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from surface_kernel import disk
from surface_kernel.networks.device import Device
from surface_train.checks import validate
from surface_train.checks.validate import Predicted, Validated
from surface_train.data.cases import Case
from surface_train.data.patches import Batch, Sampler
from surface_train.data.store import Store
from surface_train.distributed import Group
from surface_train.loop.budget import Timings
from surface_train.losses.terms import label_maps
from surface_train.records.by_products import by_product
from surface_train.settings import Augment, TrainingSettings

log = logging.getLogger("surface_train")

_MOST_LOGIT = float(np.finfo(np.float16).max)
_LOSS_BATCHES = 4  # of the validation cases, on which the loss is measured: the same ones every time


class Validator:
    """Predicts and scores cases of the fold, shared out over the processes of a run; all of them get the results."""

    def __init__(
        self, *, settings: TrainingSettings, fold: Sequence[Case], device: Device, group: Group, timings: Timings
    ) -> None:
        """Choose the cases.

        Args:
            settings: the run's.
            fold: all its validation cases; none where the run trains on every case.
            device: where the networks are.
            group: the processes of the run.
            timings: where the time of scoring is noted.
        """
        self.fold = tuple(fold)
        self.cases = spread_over_scrolls(self.fold, settings.validation.cases)
        self._settings, self._device, self._group, self._timings = settings, device, group, timings
        chosen = settings.mask.threshold
        self._threshold = validate.TRAINING_THRESHOLD if chosen is None else chosen

    def measure_loss(self, measure: Callable[[Batch], dict[str, Tensor]], name: str) -> float:
        """Return the mean loss of fixed patches of the cases, as `measure` computes it, and log its terms.

        Args:
            measure: `Stepper.measure`.
            name: of the weights, for the log.
        """
        measured = [measure(self._unvaried.batch(index)) for index in range(_LOSS_BATCHES)]
        means = {key: torch.stack([row[key] for row in measured]).mean().item() for key in measured[0]}
        terms = {key: value for key, value in means.items() if key not in ("loss", "variance_of_p")}
        log.info("%s Val - Loss: %.4f (%s)", name, means["loss"], listed(terms))
        return means["loss"]

    def validate(self, network: nn.Module, name: str) -> tuple[Validated, list[Predicted]]:
        """Predict and score the cases.

        Args:
            network: on the device.
            name: of its weights, for the log.

        Returns:
            The means over all cases, at the settings' threshold, and this process's predictions.
        """
        predicted = list(self._predict(network, self.cases))
        with self._timings.score():
            result = validate.check(predicted, self._threshold, self._group)
        log.info(
            "%s Val - %s, Dice: %.4f, threshold %.2f, foreground %.2f %% of %.2f %%, variance of p %.4f",
            name,
            _scores(result),
            result.dice,
            result.threshold,
            100 * result.foreground,
            100 * result.truth,
            result.variance,
        )
        return result, predicted

    def sweep(self, predicted: Sequence[Predicted]) -> list[Validated]:
        """Score everybody's predictions at every threshold, and log the scores."""
        swept = validate.sweep(predicted, self._group)
        log.info("score by threshold: %s", ", ".join(f"{row.threshold:.2f}: {row.score:.4f}" for row in swept))
        return swept

    def validate_fold(self, network: nn.Module, threshold: float) -> Validated | None:
        """Predict and score the whole fold at a threshold; one volume is held at a time.

        Returns:
            The means; None where some process could not: the score of weights that are chosen already can be missed.
        """
        rows: list[Validated] = []
        with by_product("the score of the whole fold"):
            rows = [validate.check_case(row, threshold) for row in self._predict(network, self.fold)]
        gathered = self._group.gather(rows)
        if len(gathered) < len(self.fold):
            return None
        result = validate.mean_validated(gathered)
        log.info("Whole fold (%d cases) Val - %s, threshold %.2f", len(self.fold), _scores(result), threshold)
        return result

    def save_logits(self, network: nn.Module, folder: Path) -> None:
        """Predict the whole fold and write its logits, float16 (z, y, x), to `folder`/{id}.npy, a volume at a time."""
        with by_product("logits of the fold"):
            folder.mkdir(exist_ok=True)
            for row in self._predict(network, self.fold):
                with disk.replacing(folder / f"{row.case.name}.npy") as partial, partial.open("wb") as file:
                    np.save(file, row.field.clip(-_MOST_LOGIT, _MOST_LOGIT).astype(np.float16))
            log.info("logits of the fold: %s", folder)

    @cached_property
    def _unvaried(self) -> Sampler:
        """Patches of the cases, as they are."""
        # Whatever training counts unlabelled voxels as, the loss shown beside the score ignores them as the score does.
        settings = replace(self._settings, augment=Augment.none(), label_2="ignored")
        return Sampler(Store(self.cases, settings), settings, maps=label_maps(settings.loss))

    def _predict(self, network: nn.Module, cases: Sequence[Case]) -> Iterator[Predicted]:
        return validate.predict(network, cases, settings=self._settings, device=self._device, group=self._group)


def spread_over_scrolls(cases: Sequence[Case], count: int) -> list[Case]:
    """Return up to `count` cases, evenly spread over the scrolls, the same ones every time."""
    ordered = sorted(cases, key=lambda case: (case.scroll, case.name))
    if len(ordered) <= count:
        return ordered
    return [ordered[index * len(ordered) // count] for index in range(count)]


def listed(terms: Mapping[str, float]) -> str:
    """Return the loss's terms as the log lists them."""
    return ", ".join(f"{name}: {value:.4f}" for name, value in terms.items())


def _scores(result: Validated) -> str:
    return (
        f"score: {result.score:.4f}, surface Dice: {result.surface_dice:.4f}, "
        f"topology: {result.topo_score:.4f}, VOI score: {result.voi_score:.4f}"
    )
