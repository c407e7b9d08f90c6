"""Best weights, patience, plateaus and the sentinel: decisions after a validation, as a pure function of results."""

from dataclasses import dataclass, replace

from surface_train.checks import sentinel
from surface_train.checks.validate import Validated
from surface_train.loop.state import TrainingProgress
from surface_train.settings import TrainingSettings


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What to do after a validation."""

    progress: TrainingProgress
    """The run's progress from here on."""
    is_best: bool
    """Whether these weights score better than all before, and do not predict the same everywhere."""
    ends_early: bool
    """Whether patience is exhausted: averaging begins with the next epoch instead of its planned one."""
    collapse: str
    """Why the run must stop; empty while the predictions look like surface."""


def decide(progress: TrainingProgress, result: Validated, settings: TrainingSettings) -> Decision:
    """Return what follows from a validation.

    Args:
        progress: after the epoch that was validated.
        result: of its validation.
        settings: the run's.
    """
    # All surface or none can score well: an empty mask has no topology to get wrong.
    uniform = sentinel.violation(settings.sentinel, result.foreground, result.variance)
    is_best = not uniform and result.score > progress.best_score
    if is_best:
        after = replace(progress, best_score=result.score, best_epoch=progress.epoch, stale=0, plateau=0)
    else:
        after = replace(progress, stale=progress.stale + 1, plateau=progress.plateau + 1)
    if after.plateau >= settings.optimiser.plateau_validations:
        after = replace(after, drops=after.drops + 1, plateau=0)
    # Averaging that begins with the next epoch anyway is not brought forward.
    ends_early = after.stale >= settings.validation.patience and after.epoch + 1 < after.averaging_from
    if ends_early:
        after = replace(after, averaging_from=after.epoch + 1)
    collapse = ""
    if after.step >= settings.optimiser.warmup_steps:
        strikes, collapse = sentinel.watch(
            settings.sentinel,
            after.strikes,
            foreground=result.foreground,
            truth=result.truth,
            variance=result.variance,
        )
        after = replace(after, strikes=strikes)
    return Decision(progress=after, is_best=is_best, ends_early=ends_early, collapse=collapse)
