"""The end of a training: the averaged weights are validated against the single best, and the better ones ship."""

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import nn

from surface_kernel.networks import weights
from surface_kernel.networks.network import restore
from surface_kernel.networks.placing import place
from surface_train.checks.sentinel import violation
from surface_train.checks.validate import Predicted, Validated
from surface_train.loop.average import recompute_batchnorm
from surface_train.loop.budget import Budget
from surface_train.loop.parts import TrainingParts

log = logging.getLogger("surface_train")


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """Weights that may ship."""

    name: str
    """Of their file in the run's folder, without its ending."""
    network: nn.Module
    result: Validated | None = None
    """Their validation, None without one."""
    predicted: list[Predicted] = field(default_factory=list)
    """This process's predictions of that validation."""
    n_averaged: int = 0


def finish(parts: TrainingParts, budget: Budget, *, save_logits: bool) -> Path:
    """Choose between averaged and single weights, search the threshold, and write the weights to ship.

    The threshold is searched where the settings name none.

    Where there are no validation cases, or no time is left for them, the averaged weights ship, else the latest, and
    their metadata says "ungated". It also says whether the run is finished: one that was stopped by its time limit is
    not, and can be resumed.

    Args:
        parts: of the training.
        budget: its time limit.
        save_logits: whether the weights that ship write their logits of the fold, in time.

    Returns:
        The weights file.
    """
    training, writer = parts.training, parts.writer
    # Clocks differ: one process decides for all, or the others would wait for its cases for ever.
    in_time = parts.group.as_rank_0(budget.left_s > parts.timings.finish_s)
    chosen = _averaged(parts, in_time) if training.average.count else None
    if chosen is None or (chosen.result and training.progress.best_epoch and not _passes_gate(parts, chosen.result)):
        chosen = _single(parts, in_time)
    result = chosen.result
    more: dict[str, object] = {
        "shipped": chosen.name,
        "n_averaged": chosen.n_averaged,
        "finished": training.is_done and (in_time or not parts.validator.cases),
    }
    if result and in_time and parts.settings.mask.threshold is None:
        swept = parts.validator.sweep(chosen.predicted)
        result = max(swept, key=lambda row: (not _fault(parts, row), row.score))
        more["score_by_threshold"] = {f"{row.threshold:.2f}": round(row.score, 6) for row in swept}
    path, progress = writer.folder.weights, training.progress
    writer.write_weights(path, chosen.network, progress=progress, result=result, more=more)
    if result and (fault := _fault(parts, result)):
        log.error("error: %s: the weights predict the same everywhere: %s; nothing better was trained", path, fault)
    # The weights are safe: what follows takes long, and reads cases that nothing has read before.
    if result and in_time and (whole := _whole_fold(parts, chosen.network, budget, threshold=result.threshold)):
        more["whole_fold"] = {"cases": len(parts.validator.fold), **whole.rounded()}
        writer.write_weights(path, chosen.network, progress=progress, result=result, more=more)
    if save_logits and in_time and _has_time_for_fold(parts, budget, "logits of the fold not written"):
        parts.validator.save_logits(chosen.network, writer.folder.logits)
    return path


def _fault(parts: TrainingParts, result: Validated) -> str:
    """Return in what way a validation was uniform, empty where it was not."""
    return violation(parts.settings.sentinel, result.foreground, result.variance)


def _averaged(parts: TrainingParts, in_time: bool) -> _Candidate:
    """Return the averaged weights, with BatchNorm statistics of their own, validated where that is possible."""
    settings, average, writer = parts.settings, parts.training.average, parts.writer
    network = place(restore(settings.network, average.mean), parts.device)
    first = settings.epochs * settings.steps_per_epoch * settings.optimiser.accumulate  # batches that no step has seen
    unseen = parts.sampler.batches(first, first + settings.average.batchnorm_steps)
    recompute_batchnorm(network, (torch.from_numpy(batch.images)[:, None] for batch in unseen), parts.device)
    parts.group.share(network)  # each process has measured the statistics on batches of its own
    result, predicted = None, list[Predicted]()
    if parts.validator.cases and in_time:
        result, predicted = parts.validate(network, f"Average of {average.count}")
    else:
        reason = "time budget exhausted" if parts.validator.cases else "no validation cases"
        log.info("averaged weights (%d snapshots) not validated: %s", average.count, reason)
    path, progress = writer.folder.averaged, parts.training.progress
    writer.write_weights(path, network, progress=progress, result=result, more={"n_averaged": average.count})
    return _Candidate(name=path.stem, network=network, result=result, predicted=predicted, n_averaged=average.count)


def _passes_gate(parts: TrainingParts, averaged: Validated) -> bool:
    """Whether the averaged weights ship.

    They do unless they score worse than the best single ones by more than the margin, or predict the same everywhere,
    which the best single ones do not.
    """
    progress, margin = parts.training.progress, parts.settings.average.gate_margin
    fault = _fault(parts, averaged)
    if fault:
        log.info("the averaged weights predict the same everywhere: %s", fault)
    passes = not fault and averaged.score >= progress.best_score - margin
    log.info(
        "using the %s weights: score %.4f averaged, %.4f best single (epoch %d), difference %+.4f, margin %.4f",
        "averaged" if passes else "best single",
        averaged.score,
        progress.best_score,
        progress.best_epoch,
        averaged.score - progress.best_score,
        margin,
    )
    return passes


def _single(parts: TrainingParts, in_time: bool) -> _Candidate:
    """Return the best single weights, else the latest."""
    folder, progress = parts.writer.folder, parts.training.progress
    if not progress.best_epoch:
        validated = progress.stale > 0
        reason = "every validation was uniform" if validated else "no averaging and no validation happened"
        log.info("using the latest weights: %s", reason)
        latest = _Candidate(name=folder.last.stem, network=parts.training.network)
        if not (validated and in_time):
            return latest
        result, predicted = parts.validate(latest.network, "Latest")
        return replace(latest, result=result, predicted=predicted)
    metadata, tensors = weights.load(folder.best)
    network = place(restore(metadata.architecture, tensors), parts.device)
    if not in_time:
        return _Candidate(name=folder.best.stem, network=network)
    result, predicted = parts.validate(network, "Best")
    return _Candidate(name=folder.best.stem, network=network, result=result, predicted=predicted)


def _whole_fold(parts: TrainingParts, network: nn.Module, budget: Budget, *, threshold: float) -> Validated | None:
    """Validate on the whole fold at the chosen threshold, where it is more than the cases of every validation."""
    validator = parts.validator
    if not parts.settings.validation.whole_fold or len(validator.fold) <= len(validator.cases):
        return None
    if not _has_time_for_fold(parts, budget, "whole fold not validated"):
        return None
    return validator.validate_fold(network, threshold)


def _has_time_for_fold(parts: TrainingParts, budget: Budget, otherwise: str) -> bool:
    """Whether there are cases, and time left to predict them all; where not, say what is not done."""
    cases, fold = len(parts.validator.cases), len(parts.validator.fold)
    if not cases:
        log.info("%s: no validation cases", otherwise)
        return False
    needed_s = parts.timings.fold_s(fold / cases)
    if parts.group.as_rank_0(budget.left_s < needed_s):
        log.info("%s: its %d cases take about %.0f s", otherwise, fold, needed_s)
        return False
    return True
