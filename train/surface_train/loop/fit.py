"""The story of a training: cases, fold, patches, steps, averaged weights, their check, one weights file."""

import logging
from dataclasses import dataclass
from pathlib import Path

from surface_kernel.networks.placing import choose, share_threads
from surface_train.data import cases
from surface_train.data.folds import ALL, Split, described, split
from surface_train.distributed import Group, joined
from surface_train.loop import estimate
from surface_train.loop.budget import Budget
from surface_train.loop.finish import finish
from surface_train.loop.run import Run
from surface_train.loop.step import precise
from surface_train.records.run_folder import RunFolder
from surface_train.settings import Settings

log = logging.getLogger("surface_train")


@dataclass(frozen=True)
class Request:
    """What a person asks of one training."""

    settings_file: Path
    settings: Settings
    data: Path
    fold: str
    out: Path
    init: Path | None = None
    resume: bool = False
    device: str | None = None
    budget_s: float = float("inf")


def fit(request: Request) -> Path:
    """Train, average, check; give the weights to ship. Raises what the parts raise, before hours are spent."""
    budget = Budget(request.budget_s)
    with joined() as group:
        run = _run(request, group)
        record = run.record
        resumable = (
            record.begin(request.settings_file, run.sides, resume=request.resume, init=request.init)
            if group.primary
            else False
        )
        if group.as_rank_0(resumable):
            run.resume()
        else:
            run.save()
        while run.progress.epoch < run.last_epoch:
            if not run.epoch(budget):
                log.info("stopping at step %d: the budget ends; --resume goes on from here", run.progress.step)
                break
        return finish(run, budget)


def forecast(request: Request) -> str:
    """Tell what a training would take, from a few of its steps; nothing is written."""
    with joined() as group:
        return estimate.estimate(_run(request, group)).text


def _run(request: Request, group: Group) -> Run:
    settings = request.settings
    if not group.primary:
        log.setLevel(logging.WARNING)  # the first process speaks for all
    sides = _sides(request)
    named = request.device or (f"cuda:{group.local_rank}" if group.size > 1 else None)
    device = precise(choose(named), settings.optimiser)
    share_threads(device)
    log.info("training on %s%s", device, f", {group.size} processes" if group.size > 1 else "")
    return Run(settings, sides, RunFolder(request.out), device, group, request.init)


def _sides(request: Request) -> Split:
    settings = request.settings
    whole, missing = cases.read(request.data, settings.exclude, settings.labels_dir)
    if missing:
        log.info("%d rows of train.csv have no image or no label and are left out", missing)
    sides = split(whole, request.fold, settings.folds, settings.fold_count)
    if request.fold != ALL:
        log.info("%s", described(whole, settings.folds, settings.fold_count))
    for name, side in (("training", sides.training), ("validation", sides.validation)):
        scrolls = ", ".join(f"scroll {scroll}: {count}" for scroll, count in cases.sizes_by_scroll(side).items())
        log.info("%s: %d cases%s", name, len(side), f" ({scrolls})" if scrolls else "")
    return sides
