"""The story of a training: cases, fold, epochs, averaged weights, their validation, one weights file."""

import logging
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from surface_kernel.interrupts import Stopped
from surface_kernel.networks.placing import choose, share_threads
from surface_train.data import cases
from surface_train.data.check import check, refusal
from surface_train.data.folds import ALL, Split, described, split
from surface_train.distributed import Group, joined
from surface_train.loop.budget import Budget
from surface_train.loop.epoch import run_epoch
from surface_train.loop.estimate import estimate
from surface_train.loop.finish import finish
from surface_train.loop.parts import TrainingParts, assemble
from surface_train.loop.step import precise
from surface_train.records.run_folder import RunFolder
from surface_train.settings import TrainingSettings

log = logging.getLogger("surface_train")


@dataclass(frozen=True, kw_only=True)
class Request:
    """One training, as asked for on the command line."""

    settings_file: Path
    """Copied into the run's folder."""
    settings: TrainingSettings
    """The settings read from it."""
    data: Path
    """The competition's folder, with train.csv."""
    fold: str
    """The validation fold, "0" and up, or "all" to train on every case."""
    out: Path
    """The run's folder."""
    init: Path | None = None
    """Weights file to initialise from."""
    resume: bool = False
    """Whether to resume the run in `out`."""
    device: str | None = None
    """"cpu", "cuda" or "cuda:N"; without it a GPU, where there is one."""
    budget_s: float = float("inf")
    """Time limit of this session."""


def fit(request: Request) -> Path:
    """Train, average and validate, and return the weights file to ship.

    Raises:
        ValueError, RuntimeError, OSError: from the parts, those of settings and data before hours are spent.
        Stopped: when a signal ended it; its state is saved.
    """
    budget = Budget(request.budget_s)
    with joined() as group:
        parts = _prepare(request, group)
        _check_cases(parts.split, group)
        folder = parts.writer.folder
        with folder.held(resume=request.resume) if group.primary else nullcontext():
            try:
                return _train(parts, request, budget)
            except BaseException:
                if group.primary and not request.resume and not parts.training.progress.step:
                    folder.discard()  # or what was mended would be refused for the files of a start that failed
                raise


def _train(parts: TrainingParts, request: Request, budget: Budget) -> Path:
    training = parts.training
    try:
        with budget.stop:
            with budget.stop.held():
                _begin(parts, request)
            while not training.is_done:
                if not run_epoch(parts, budget):
                    log.info("time limit: saved at step %d; continue with --resume", training.progress.step)
                    break
            return finish(parts, budget)
    except Stopped as stopped:
        step = training.progress.step
        where = f"stopped at step {step}; resume with --resume" if step else "stopped before the first step"
        raise Stopped(stopped.number, where) from None


def forecast(request: Request) -> str:
    """Return the expected time and memory of a training, measured on a few steps; nothing is written."""
    with joined() as group:
        return estimate(_prepare(request, group)).text


def _begin(parts: TrainingParts, request: Request) -> None:
    """Make the run's folder and save its first state, or resume from the last one."""
    training, folder, group = parts.training, parts.writer.folder, parts.group
    resumable = group.primary and folder.begin(
        request.settings_file, parts.split, resume=request.resume, init=request.init
    )
    if not group.as_rank_0(resumable):
        training.save(folder.state)
        return
    training.load(folder.state)
    if group.primary:
        folder.forget_after(training.progress.epoch - bool(training.progress.trained))
    log.info("resumed after step %d, in epoch %d", training.progress.step, training.progress.epoch + 1)


def _prepare(request: Request, group: Group) -> TrainingParts:
    settings = request.settings
    if not group.primary:
        log.setLevel(logging.WARNING)  # the first process speaks for all
    sides = _split(request)
    name = request.device or (f"cuda:{group.local_rank}" if group.size > 1 else None)
    device = precise(choose(name), settings.optimiser)
    share_threads(device)
    per_batch = f"{settings.patches.batch} patches a batch"  # the device's own number is that of tiles in validations
    processes = f", {group.size} processes" if group.size > 1 else ""
    log.info("training on %s, %s, %s, %d threads%s", device.name, device.dtype, per_batch, device.threads, processes)
    return assemble(
        settings=settings,
        split=sides,
        folder=RunFolder(request.out),
        device=device,
        group=group,
        init=request.init,
    )


def _check_cases(sides: Split, group: Group) -> None:
    """Judge the files of all cases, those too that only the end of a run reads. Raises CasesError in every process."""
    listed = (*sides.training, *sides.validation)
    if refused := group.as_rank_0(refusal(check(listed)) if group.primary else ""):
        raise cases.CasesError(refused)


def _split(request: Request) -> Split:
    settings = request.settings
    listed, missing = cases.read(request.data, settings.exclude, settings.labels_dir)
    if missing:
        log.info("%d rows of train.csv skipped: image or label missing", missing)
    sides = split(listed, request.fold, kind=settings.folds, count=settings.fold_count)
    if request.fold != ALL:
        log.info("%s", described(listed, settings.folds, settings.fold_count))
    for name, side in (("training", sides.training), ("validation", sides.validation)):
        scrolls = ", ".join(f"scroll {scroll}: {count}" for scroll, count in cases.sizes_by_scroll(side).items())
        log.info("%s: %d cases%s", name, len(side), f" ({scrolls})" if scrolls else "")
    return sides
