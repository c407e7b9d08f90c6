"""One epoch of a run: train, validate when it is due, write, and act on the result."""

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, fields, replace

from surface_train.checks.sentinel import Collapse
from surface_train.checks.validate import Validated
from surface_train.loop.budget import Budget
from surface_train.loop.parts import TrainingParts
from surface_train.loop.patience import decide
from surface_train.loop.validation import listed

log = logging.getLogger("surface_train")

_VALIDATED = ("loss", *(field.name for field in fields(Validated)))  # the columns of a validation, empty without one


def run_epoch(parts: TrainingParts, budget: Budget) -> bool:
    """Train an epoch, or what is left of it, and save the state.

    Returns:
        Whether the epoch ended; False when the time limit came first.

    Raises:
        Collapse: when the sentinel stops the run; the state is saved then, too.
        Stopped: after a signal, once the state of the latest step is saved.
        OSError: where the disk has no room for the epoch's files.
    """
    stop, training, state = budget.stop, parts.training, parts.writer.folder.state
    with stop.held():
        if not training.progress.trained:  # else it was, and the run ended before its validation did
            parts.writer.check_room(training)
            started_s = time.monotonic()
            means = training.train_epoch(budget)
            if means is None:
                training.save(state)
                return False
            row = _trained(parts, means, time.monotonic() - started_s)
            training.accept(replace(training.progress, trained=row))
            # BatchNorm's statistics are each process's own: what is validated is written.
            parts.group.share(training.network)
        due = _is_due(parts)
        if due:  # a validation takes minutes and may fail or be stopped: the epoch is safe before it begins
            training.save(state)
        else:
            _finish_epoch(parts, None, None)
    if due:
        loss, result = _validate(parts)
        with stop.held():
            _finish_epoch(parts, loss, result)
    return True


def _finish_epoch(parts: TrainingParts, loss: float | None, result: Validated | None) -> None:
    """Write what an epoch leaves, and act on its validation, where it had one. Raises Collapse."""
    training, folder = parts.training, parts.writer.folder
    row = training.progress.trained | _validated(loss, result)
    number = training.progress.epoch
    parts.writer.write_row(row, folder.folder / f"epoch_{number}.png" if result else None)
    parts.writer.write_weights(folder.last, training.network, progress=training.progress, result=result)
    collapse = _act_on(parts, result) if result else ""
    training.accept(replace(training.progress, trained={}))
    # The state comes last: a run that is killed before it finishes the epoch again and writes the same files once more.
    training.save(folder.state)
    if collapse:
        raise Collapse(collapse)


def _trained(parts: TrainingParts, means: Mapping[str, float], seconds: float) -> dict[str, object]:
    """Log the epoch's loss and its terms, and return the first columns of its row."""
    number = parts.training.progress.epoch
    terms = {name: value for name, value in means.items() if name not in ("loss", "variance_of_p")}
    log.info("Epoch %d Train - Loss: %.4f (%s)", number, means["loss"], listed(terms))
    return {
        "epoch": number,
        "seconds": round(seconds, 1),
        "learning_rate": parts.training.latest_rate,
        "loss": means["loss"],
        **terms,
        "variance_of_p": means["variance_of_p"],
    }


def _is_due(parts: TrainingParts) -> bool:
    training, every = parts.training, parts.settings.validation.every_epochs
    return bool(parts.validator.cases) and (training.progress.epoch % every == 0 or training.is_last_epoch)


def _validate(parts: TrainingParts) -> tuple[float, Validated]:
    name = f"Epoch {parts.training.progress.epoch}"
    loss = parts.validator.measure_loss(parts.stepper.measure, name)
    result, _ = parts.validate(parts.training.network, name)
    return loss, result


def _validated(loss: float | None, result: Validated | None) -> dict[str, object]:
    """Return the last columns of an epoch's row."""
    values: Mapping[str, object] = {"loss": loss, **asdict(result)} if result else dict.fromkeys(_VALIDATED, "")
    return {f"val_{name}": values[name] for name in _VALIDATED}


def _act_on(parts: TrainingParts, result: Validated) -> str:
    """Do what follows from a validation; return why the run must stop, empty when it need not."""
    training, writer = parts.training, parts.writer
    decision = decide(training.progress, result, parts.settings)
    after = decision.progress
    training.accept(after)
    if decision.is_best:
        writer.write_weights(writer.folder.best, training.network, progress=after, result=result)
    if decision.ends_early:
        log.info(
            "early stopping: %d consecutive validations did not improve on epoch %d's %.4f; averaging weights over the "
            "next %d epochs, then the run ends",
            after.stale,
            after.best_epoch,
            after.best_score,
            parts.settings.average_epochs,
        )
    return decision.collapse
