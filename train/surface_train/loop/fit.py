"""The story of a training: cases, fold, epochs, averaged weights, their validation, one weights file."""

import logging
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from surface_kernel.interrupts import Stopped
from surface_kernel.networks.device import DeviceError
from surface_kernel.networks.placing import choose, share_threads
from surface_train.data import cases
from surface_train.data.check import check, refusal
from surface_train.data.folds import ALL, Split, described, split
from surface_train.distributed import Group, joined
from surface_train.loop import counted
from surface_train.loop.budget import Budget
from surface_train.loop.epoch import run_epoch
from surface_train.loop.estimate import ending, estimate, measure
from surface_train.loop.finish import finish
from surface_train.loop.parts import TrainingParts, assemble
from surface_train.loop.plan import PlanError, SchedulePlan, laid_out, plan
from surface_train.loop.state import planned
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
    plan_s: float | None = None
    """Seconds over which a new run's schedule is laid out; None: it is as the settings have it."""
    steps: int | None = None
    """All steps of a new run, the same by hand."""
    save_logits: bool = False
    """Whether the weights that ship write their logits of the validation fold."""


def fit(request: Request) -> Path:
    """Train, average and validate, and return the weights file to ship.

    Raises:
        ValueError, RuntimeError, OSError: from the parts, those of settings and data before hours are spent.
        Stopped: when a signal ended it; its state is saved.
    """
    budget, began_s = Budget(request.budget_s), time.monotonic()
    with joined() as group:
        prepared = _prepare(request, group)
        _check_cases(prepared.split, group)
        parts, laid = _planned(prepared, request, began_s)
        folder = parts.writer.folder
        with folder.held(resume=request.resume) if group.primary else nullcontext():
            try:
                made = _train(parts, request, budget=budget, laid=laid)
            except BaseException:
                if group.primary and not request.resume and not parts.training.progress.step:
                    folder.discard()  # or what was mended would be refused for the files of a start that failed
                raise
        if laid:
            log.info("took %.0f s; the plan said about %.0f s", time.monotonic() - began_s, laid.expected_s)
        return made


def _train(parts: TrainingParts, request: Request, *, budget: Budget, laid: SchedulePlan | None) -> Path:
    training = parts.training
    try:
        with budget.stop:
            with budget.stop.held():
                _begin(parts, request)
                if laid and parts.group.primary:
                    costs = asdict(laid.costs) | {"plan_s": request.plan_s, "steps": laid.steps}
                    parts.writer.folder.write_plan(costs)
            while not training.is_done:
                if not run_epoch(parts, budget):
                    log.info("time limit: saved at step %d; continue with --resume", training.progress.step)
                    break
            return finish(parts, budget, save_logits=request.save_logits)
    except Stopped as stopped:
        step = training.progress.step
        where = f"stopped at step {step}; resume with --resume" if step else "stopped before the first step"
        raise Stopped(stopped.number, where) from None


def forecast(request: Request) -> str:
    """Return the expected time and memory of a training, measured on a few steps; nothing is written.

    Where there is no GPU, what it would take of one is counted and logged first.
    """
    with joined() as group:
        parts = _prepare(request, group)
        if not parts.device.is_gpu:
            log.info("%s", counted.described(request.settings))
        return estimate(parts).text


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
    if not group.primary:
        log.setLevel(logging.WARNING)  # the first process speaks for all
    sides = _split(request)
    device = precise(choose(_device_name(request.device, group)), request.settings.optimiser)
    # Patches have one shape: what convolutions find out about it in the first step holds for all.
    torch.backends.cudnn.benchmark = device.is_gpu
    share_threads(device)
    # The device's own batch is that of tiles in validations.
    per_batch = f"{request.settings.patches.batch} patches a batch"
    processes = f", {group.size} processes" if group.size > 1 else ""
    log.info("training on %s, %s, %s, %d threads%s", device.name, device.dtype, per_batch, device.threads, processes)
    return assemble(
        settings=request.settings,
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


def _device_name(asked: str | None, group: Group) -> str | None:
    """Return the device of this process: of several each has a GPU of its own. Raises DeviceError."""
    if group.size == 1 or asked == "cpu":
        return asked
    if asked not in (None, "cuda"):
        raise DeviceError(f'--device: expected cpu or cuda for {group.size} processes, a GPU for each, got "{asked}"')
    return f"cuda:{group.local_rank}" if asked or torch.cuda.is_available() else "cpu"


def _planned(parts: TrainingParts, request: Request, began_s: float) -> tuple[TrainingParts, SchedulePlan | None]:
    """Lay the schedule out where that was asked for; a run that is resumed keeps the steps that it began with."""
    group, state_file = parts.group, parts.writer.folder.state
    kept = group.as_rank_0(planned(state_file) if request.resume and state_file.is_file() else None)
    if kept is not None:
        steps, every = kept
        if request.steps not in (None, steps):
            expected = (
                f"{steps}, as the run in {request.out} has" if steps else f"none, as for the run in {request.out}"
            )
            raise PlanError(f"--steps: expected {expected}, got {request.steps}")
        return (_assembled(parts, request, laid_out(parts.settings, steps, every)) if steps else parts), None
    if request.plan_s is not None:
        parts.writer.folder.refuse_others(resume=request.resume)
        # Clocks differ: all processes plan with what the first one measured, and come to the same.
        costs, spent_s = group.as_rank_0((measure(parts), time.monotonic() - began_s))
        made = plan(
            parts.settings,
            costs,
            ending(parts, save_logits=request.save_logits),
            plan_s=request.plan_s,
            spent_s=spent_s,
        )
        for line in (made.text, *made.cuts):
            log.info("%s", line)
        return _assembled(parts, request, made.settings), made
    if request.steps is not None:
        return _assembled(parts, request, laid_out(parts.settings, request.steps)), None
    return parts, None


def _assembled(parts: TrainingParts, request: Request, settings: TrainingSettings) -> TrainingParts:
    """Make the parts anew, with settings that were laid out: steps that were only measured have moved the weights."""
    return assemble(
        settings=settings,
        split=parts.split,
        folder=parts.writer.folder,
        device=parts.device,
        group=parts.group,
        init=request.init,
        planned=True,
    )


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
