"""How many steps fit into so many seconds, worked out by hand, and what holds for any costs."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surface_train.loop.plan import Costs, Ending, PlanError, laid_out, plan, validations
from surface_train.settings import Average, Optimiser, TrainingSettings, Validation

RUN = TrainingSettings(
    epochs=10,
    steps_per_epoch=34,
    average=Average(start_epoch=8, samples_per_epoch=3),
    optimiser=Optimiser(warmup_steps=20),
    validation=Validation(every_epochs=5, whole_fold=False),
)
COSTS = Costs(step_s=0.2, volume_s=2.0, score_s=0.5, epoch_s=0.5)
ENDING = Ending(cases=2, fold=2, saved=0, thresholds=0, batchnorm_steps=0)


def steps(plan_s, costs=COSTS, ending=ENDING, settings=RUN, spent_s=0.0):
    return plan(settings, costs, ending, plan_s=plan_s, spent_s=spent_s).steps


@pytest.mark.parametrize(
    ("plan_s", "ending", "settings", "expected"),
    [
        # A validation is 6 s, and 0.4 s for its loss. 10 epochs of 0.5 s, 2 validations, 2 at the end without a loss:
        # 29.8 s. (115 − 1.15 · 29.8) / 0.23 = 351.
        (115, ENDING, RUN, 350),
        # No fold: no validation. (115 − 1.15 · 5) / 0.23 = 475.
        (115, replace(ENDING, cases=0, fold=0), RUN, 470),
        # Eleven thresholds of 2 · 0.5 s more: 40.8 s. (115 − 46.9) / 0.23 = 296.
        (115, replace(ENDING, thresholds=11), RUN, 290),
        # BatchNorm's statistics: 50 batches of 0.2 s: 39.8 s. (115 − 45.8) / 0.23 = 301.
        (115, replace(ENDING, batchnorm_steps=50), RUN, 300),
        # The whole fold, 8 cases of 2.5 s: 49.8 s. (115 − 57.3) / 0.23 = 251.
        (115, replace(ENDING, fold=8), replace(RUN, validation=Validation(every_epochs=5)), 250),
    ],
)
def test_steps_by_hand(plan_s, ending, settings, expected):
    made = plan(settings, COSTS, ending, plan_s=plan_s, spent_s=0)
    assert made.steps == expected
    assert made.cuts == ()
    assert made.expected_s <= plan_s
    assert f"plan: {expected} steps of 0.20 s in 10 epochs, weights averaged over the last 3, " in made.text


def test_what_was_spent_is_not_there_any_more():
    assert steps(115 + 23, spent_s=23) == steps(115)


def test_validations_during_the_training_are_left_out_where_steps_would_get_less_than_half():
    # Steps must get half of 72 s. Validated every 4 epochs: 5 + 3 · 6.4 + 12 s leave them 72 − 41.6 s.
    often = replace(RUN, validation=Validation(every_epochs=1, whole_fold=False))
    made = plan(often, COSTS, ENDING, plan_s=72, spent_s=0)
    # Every 8 epochs, and after the last one: 29.8 s as above. (72 − 34.3) / 0.23 = 164, which take 37 of 72 s.
    assert (made.steps, made.settings.validation.every_epochs, validations(made.settings)) == (160, 8, 2)
    assert made.cuts == ("plan: validated every 8 epochs instead of 1, to fit",)


def test_what_does_not_fit_is_told_with_what_would():
    with pytest.raises(
        PlanError, match=r"--plan-s: expected at least 42 s on this machine, got 30: 40 steps of 0.20 s"
    ):
        steps(30, spent_s=5.5)  # 5.5 + 1.15 · (5 + 6.4 + 12 + 40 · 0.2)
    assert steps(42, spent_s=5.5) == 40


@pytest.mark.parametrize("plan_s", [0, -1, math.inf, math.nan])
def test_what_is_no_time_is_refused(plan_s):
    with pytest.raises(PlanError, match="--plan-s: expected seconds > 0, got "):
        steps(plan_s)


def test_a_schedule_keeps_its_epochs_and_its_warm_up_is_a_tenth_at_most():
    short = laid_out(RUN, 59)
    assert (short.epochs, short.steps_per_epoch) == (10, 5)
    assert short.optimiser.warmup_steps == 5
    assert (short.average.start_epoch, short.average.samples_per_epoch) == (8, 3)
    assert laid_out(RUN, 20).average.samples_per_epoch == 2  # states of an epoch of two steps
    long = laid_out(RUN, 3400)
    assert (long.steps_per_epoch, long.optimiser.warmup_steps) == (340, 20)
    assert laid_out(RUN, 340) == RUN
    assert laid_out(RUN, 340, 10).validation.every_epochs == 10
    with pytest.raises(PlanError, match="steps: expected at least the 10 epochs of the settings, got 9"):
        laid_out(RUN, 9)


SECONDS = st.floats(0.001, 10)
ANY_COSTS = st.builds(Costs, step_s=SECONDS, volume_s=SECONDS, score_s=SECONDS, epoch_s=SECONDS)


@given(ANY_COSTS, st.floats(1, 5000), st.integers(1, 10), st.integers(0, 3), st.integers(0, 40))
def test_a_plan_is_kept_and_does_not_get_shorter_with_twice_the_time(costs, plan_s, every, cases, batchnorm_steps):
    settings = replace(RUN, validation=Validation(every_epochs=every, whole_fold=False))
    ending = Ending(cases=cases, fold=cases, saved=cases, thresholds=11, batchnorm_steps=batchnorm_steps)
    try:
        made = plan(settings, costs, ending, plan_s=plan_s, spent_s=0)
    except PlanError:
        return
    assert made.expected_s <= plan_s * (1 + 1e-9)
    again = plan(settings, costs, ending, plan_s=2 * plan_s, spent_s=0)
    assert again.steps >= made.steps
    assert laid_out(settings, made.steps, made.settings.validation.every_epochs) == made.settings
