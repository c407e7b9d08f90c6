"""The end of a training: the averaged weights are checked against the single best, and the better ones shipped."""

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from surface_kernel.networks import weights
from surface_kernel.networks.network import restore
from surface_kernel.networks.placing import place
from surface_train.checks import validate
from surface_train.checks.validate import Checked, Predicted
from surface_train.loop.average import recompute_batchnorm
from surface_train.loop.budget import Budget
from surface_train.loop.run import Run

log = logging.getLogger("surface_train")


@dataclass(frozen=True)
class _Candidate:
    """Weights that may be shipped: where they lie, the network, what it scored and predicted."""

    name: str
    network: nn.Module
    result: Checked | None
    predicted: list[Predicted]
    n_averaged: int = 0


def finish(run: Run, budget: Budget) -> Path:
    """Choose between averaged and single weights, find the threshold, and write the weights to ship; give the file.

    Where there is nothing to check on, or no time left to, the averaged weights ship, else the latest, and their
    metadata says "ungated". It also says whether the run is finished: one that the budget ended is not, and goes on.
    """
    in_time = run.group.as_rank_0(budget.left_s > run.finish_s)
    chosen = _averaged(run, in_time) if run.average.count else None
    if chosen is None or (chosen.result and not _passes(run, chosen.result)):
        chosen = _single(run, in_time) or chosen
    assert chosen is not None
    more: dict[str, object] = {"shipped": chosen.name, "n_averaged": chosen.n_averaged}
    more["finished"] = run.progress.epoch >= run.last_epoch and (in_time or not run.checked)
    result = chosen.result
    if result and in_time:
        swept = validate.sweep(chosen.predicted, run.group)
        result = max(swept, key=lambda row: row.score)
        log.info("score by threshold: %s", ", ".join(f"{row.threshold:.2f}: {row.score:.4f}" for row in swept))
        more["score_by_threshold"] = {f"{row.threshold:.2f}": round(row.score, 6) for row in swept}
        if whole := _whole_fold(run, chosen.network, result, budget):
            more["whole_fold"] = {"cases": len(run.sides.validation), **whole.rounded()}
    if run.group.primary:
        run.write(run.record.weights, chosen.network, result, **more)
    return run.record.weights


def _averaged(run: Run, in_time: bool) -> _Candidate:
    """Give the averaged weights, with BatchNorm statistics of their own, validated where that can be."""
    settings = run.settings
    averaged = place(restore(settings.network, run.average.mean), run.device)
    first = settings.epochs * settings.steps_per_epoch * settings.optimiser.accumulate  # batches that no step has seen
    unseen = run.sampler.batches(first, first + settings.average.batchnorm_steps)
    recompute_batchnorm(averaged, (torch.from_numpy(batch.images)[:, None] for batch in unseen), run.device)
    run.group.share(averaged)
    result, predicted = None, list[Predicted]()
    if run.checked and in_time:
        result, predicted = run.validate(averaged, f"Average of {run.average.count}")
    if run.group.primary:
        run.write(run.record.averaged, averaged, result, n_averaged=run.average.count)
    if result is None:
        log.info("the average of %d is not checked: %s", run.average.count, _why(run))
    return _Candidate(run.record.averaged.stem, averaged, result, predicted, run.average.count)


def _why(run: Run) -> str:
    return "the budget ends" if run.checked else "there are no cases to check on"


def _passes(run: Run, averaged: Checked) -> bool:
    """Gate the averaged weights: they ship unless they validate worse, by more than the margin."""
    best, margin = run.progress.best_score, run.settings.average.gate_margin
    passes = averaged.score >= best - margin
    log.info(
        "shipping %s: score %.4f averaged, %.4f best single (epoch %d), a difference of %+.4f, margin %.4f",
        *("the averaged weights" if passes else "the single best", averaged.score, best, run.progress.best_epoch),
        *(averaged.score - best, margin),
    )
    return passes


def _single(run: Run, in_time: bool) -> _Candidate | None:
    """Give the single best weights, else the latest; None where an average must do because nothing was validated."""
    if not run.progress.best_epoch:
        log.info("shipping the latest weights: none were averaged and none were checked")
        return _Candidate(run.record.last.stem, run.network, None, [])
    metadata, tensors = weights.load(run.record.best)
    network = place(restore(metadata.architecture, tensors), run.device)
    result, predicted = None, list[Predicted]()
    if in_time:
        result, predicted = run.validate(network, "Best")
    return _Candidate(run.record.best.stem, network, result, predicted)


def _whole_fold(run: Run, network: nn.Module, result: Checked, budget: Budget) -> Checked | None:
    """Score the whole fold at the chosen threshold, a volume at a time, where it is more than what was checked."""
    cases = run.sides.validation
    if not run.settings.validation.whole_fold or len(cases) <= len(run.checked):
        return None
    needed_s = 1.2 * run.validation_s * len(cases) / len(run.checked)
    if run.group.as_rank_0(budget.left_s < needed_s):
        log.info("the whole fold is not scored: its %d cases take about %.0f s", len(cases), needed_s)
        return None
    predictions = validate.predict(network, cases, run.settings, run.device, run.group)
    rows = run.group.gather([validate.check_case(row, result.threshold) for row in predictions])
    whole = validate.mean_checked(rows)
    log.info(
        "the whole fold, %d cases at threshold %.2f: score %.4f, surface Dice %.4f, topology %.4f, VOI score %.4f",
        *(len(cases), result.threshold, whole.score, whole.surface_dice, whole.topo_score, whole.voi_score),
    )
    return whole
