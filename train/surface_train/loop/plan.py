"""A training laid out over so many steps, and how many steps fit into so many seconds.

    spent | warm-up … decay … average | validations, a state and curves after every epoch | the end
          `------ steps × step_s -----'

The number of steps is fixed before the first one and kept with the run's state, so that a resumed run does what the
first one set out to do, bit for bit, on whatever machine. Epochs, and with them averaging and validations, keep their
numbers: they get longer or shorter.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from surface_train.settings import TrainingSettings

_MARGIN = 1.15  # on what was measured: later steps and validations are a little slower than the first
_LEAST_STEPS_PER_EPOCH = 4
_PICTURE_S = 1.0  # of a validation's first case, on a slow core
_LOSS_STEPS = 2  # what the loss of a validation's four patches takes, forward only, in steps
_WARMUP_SHARE = 0.1  # of the steps, at most
_TRAINING_SHARE = 0.5  # of the seconds; where steps get less, validations during the training are left out


class PlanError(ValueError):
    """A training that cannot be laid out as asked for."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What the parts of a training take, in seconds, as they were measured."""

    step_s: float
    """A step with its patches."""
    volume_s: float
    """The prediction of a validation case of mean size."""
    score_s: float
    """Its score at one threshold."""
    epoch_s: float
    """What an epoch takes beside its steps and its validation: state, weights, log and curves."""


@dataclass(frozen=True, kw_only=True)
class Ending:
    """What the settings alone do not say of how a training is validated and how it ends."""

    cases: int
    """Cases of a validation, of one process; 0: nothing is validated."""
    fold: int
    """Cases of the whole fold, of one process."""
    saved: int
    """Cases whose logits are written, of one process."""
    thresholds: int
    """Thresholds that are scored at the end; 0 where the settings name one."""
    batchnorm_steps: int
    """Batches for the averaged weights' statistics; 0 without BatchNorm."""


@dataclass(frozen=True, kw_only=True)
class SchedulePlan:
    """A training that fits into the seconds that were asked for."""

    costs: Costs
    """That it was made with."""
    settings: TrainingSettings
    """As they were, with steps, warm-up and validations laid out."""
    expected_s: float
    """What the training takes in all, what was spent before it included."""
    text: str
    """The plan in a line."""
    cuts: tuple[str, ...]
    """What was left out to make it fit, each in a line."""

    @property
    def steps(self) -> int:
        """All steps of the training."""
        return self.settings.epochs * self.settings.steps_per_epoch


def laid_out(settings: TrainingSettings, steps: int, every_epochs: int | None = None) -> TrainingSettings:
    """Return settings of the same epochs over so many steps, the rest of a division by the epochs left out.

    The warm-up keeps its steps, but is a tenth of all at most.

    Args:
        settings: the run's.
        steps: in all.
        every_epochs: from one validation to the next; None: as the settings have it.

    Raises:
        PlanError: for fewer steps than epochs.
    """
    if steps < settings.epochs:
        raise PlanError(f"steps: expected at least the {settings.epochs} epochs of the settings, got {steps}")
    per_epoch = steps // settings.epochs
    warmup = min(settings.optimiser.warmup_steps, int(_WARMUP_SHARE * per_epoch * settings.epochs))
    samples = min(settings.average.samples_per_epoch, per_epoch)
    every = settings.validation.every_epochs if every_epochs is None else every_epochs
    return replace(
        settings,
        steps_per_epoch=per_epoch,
        optimiser=replace(settings.optimiser, warmup_steps=warmup),
        average=replace(settings.average, samples_per_epoch=samples),
        validation=replace(settings.validation, every_epochs=every),
    )


def plan(settings: TrainingSettings, costs: Costs, ending: Ending, *, plan_s: float, spent_s: float) -> SchedulePlan:
    """Return the longest training that fits into `plan_s` seconds.

    Where validations would leave the steps less than half of the time, fewer of them are made during the training;
    the last epoch's and those of the end stay.

    Args:
        settings: the run's.
        costs: as measured.
        ending: what is validated, and what the end consists of.
        plan_s: seconds of the whole training, from its start on.
        spent_s: of them, those that are gone.

    Raises:
        PlanError: when not even the shortest training fits; the message says what would.
    """
    if not 0 < plan_s < math.inf:
        raise PlanError(f"--plan-s: expected seconds > 0, got {plan_s:g}")
    for every in _rarer(settings.validation.every_epochs, settings.epochs):
        rarer = replace(settings, validation=replace(settings.validation, every_epochs=every))
        beside_s = _beside_s(rarer, costs, ending)
        steps = int((plan_s - spent_s - _MARGIN * beside_s) / (_MARGIN * costs.step_s))
        if steps * _MARGIN * costs.step_s >= _TRAINING_SHARE * plan_s:
            break
    least = _LEAST_STEPS_PER_EPOCH * settings.epochs
    if steps < least:
        needed_s = spent_s + _MARGIN * (beside_s + least * costs.step_s)
        raise PlanError(
            f"--plan-s: expected at least {math.ceil(needed_s)} s on this machine, got {plan_s:g}: {least} steps of "
            f"{costs.step_s:.2f} s, {beside_s:.0f} s for {validations(rarer)} validations, states and the end, "
            f"{spent_s:.0f} s until here"
        )
    chosen = laid_out(rarer, steps)
    return _described(chosen, costs, ending, plan_s=plan_s, spent_s=spent_s, every=settings.validation.every_epochs)


def validations(settings: TrainingSettings) -> int:
    """Return how many validations there are during a training; the last epoch is always validated."""
    return math.ceil(settings.epochs / settings.validation.every_epochs)


def _rarer(every: int, epochs: int) -> Iterator[int]:
    """Yield how many epochs may lie between validations: as the settings say, then twice as many, up to all."""
    while every < epochs:
        yield every
        every *= 2
    yield epochs


def _beside_s(settings: TrainingSettings, costs: Costs, ending: Ending) -> float:
    """Return the seconds of everything but the steps."""
    validation_s = ending.cases * (costs.volume_s + costs.score_s) + (_PICTURE_S if ending.cases else 0.0)
    # The averaged weights are validated, and the best single ones once more where the averaged ones are worse.
    end_s = 2 * validation_s + ending.thresholds * ending.cases * costs.score_s + ending.batchnorm_steps * costs.step_s
    if settings.validation.whole_fold and ending.fold > ending.cases:
        end_s += ending.fold * (costs.volume_s + costs.score_s)
    end_s += ending.saved * costs.volume_s
    during_s = validations(settings) * (validation_s + _LOSS_STEPS * costs.step_s) if ending.cases else 0.0
    return settings.epochs * costs.epoch_s + during_s + end_s


def _described(
    chosen: TrainingSettings, costs: Costs, ending: Ending, *, plan_s: float, spent_s: float, every: int
) -> SchedulePlan:
    steps, beside_s = chosen.epochs * chosen.steps_per_epoch, _beside_s(chosen, costs, ending)
    expected_s = spent_s + _MARGIN * (steps * costs.step_s + beside_s)
    count = validations(chosen) if ending.cases else 0
    text = (
        f"plan: {steps} steps of {costs.step_s:.2f} s in {chosen.epochs} epochs, weights averaged over the last "
        f"{chosen.average_epochs}, {count} validations, {beside_s:.0f} s beside the steps: about {expected_s:.0f} of "
        f"{plan_s:g} s"
    )
    cuts = []
    if ending.cases and chosen.validation.every_epochs != every:
        cuts.append(f"plan: validated every {chosen.validation.every_epochs} epochs instead of {every}, to fit")
    return SchedulePlan(costs=costs, settings=chosen, expected_s=expected_s, text=text, cuts=tuple(cuts))
