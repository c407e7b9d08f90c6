from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surface_train.checks.validate import Validated
from surface_train.loop.patience import Decision, decide
from surface_train.loop.state import TrainingProgress
from surface_train.settings import Average, Optimiser, Sentinel, TrainingSettings, Validation

# Ten epochs, the last three averaged; validated after each. Patience 3, plateau 2, two strikes, no warm-up.
RUN = TrainingSettings(
    epochs=10,
    steps_per_epoch=5,
    average=Average(start_epoch=8),
    validation=Validation(every_epochs=1, patience=3),
    optimiser=Optimiser(schedule="plateau", plateau_validations=2, warmup_steps=0),
    sentinel=Sentinel(validations=2),
)
START = TrainingProgress(settings="a", split="b", averaging_from=8, step=5, epoch=1)


def scored(score: float, **changes: float) -> Validated:
    usual = dict.fromkeys((field.name for field in fields(Validated)), 0.1)
    return Validated(**usual | {"score": score} | changes)


DEAD = {"foreground": 0.999}


@pytest.mark.parametrize(
    ("before", "result", "after", "says"),
    [
        # The first validation is the best so far, even one of score 0.
        ({}, scored(0.4), {"best_score": 0.4, "best_epoch": 1}, {"is_best": True}),
        ({}, scored(0.0), {"best_score": 0.0, "best_epoch": 1}, {"is_best": True}),
        # A better one ends a row of worse ones.
        (
            {"epoch": 4, "best_score": 0.4, "best_epoch": 1, "stale": 2, "plateau": 1},
            scored(0.41),
            {"best_score": 0.41, "best_epoch": 4, "stale": 0, "plateau": 0},
            {"is_best": True},
        ),
        # An equal one is not better.
        (
            {"epoch": 2, "best_score": 0.4, "best_epoch": 1},
            scored(0.4),
            {"stale": 1, "plateau": 1},
            {},
        ),
        # The second on a plateau lowers the rate; patience counts on.
        (
            {"epoch": 3, "best_score": 0.4, "best_epoch": 1, "stale": 1, "plateau": 1},
            scored(0.3),
            {"stale": 2, "plateau": 0, "drops": 1},
            {},
        ),
        # The third without a best exhausts patience: the next epoch is averaged.
        (
            {"epoch": 4, "best_score": 0.4, "best_epoch": 1, "stale": 2},
            scored(0.3),
            {"stale": 3, "plateau": 1, "averaging_from": 5},
            {"ends_early": True},
        ),
        # It cannot bring forward what begins with the next epoch anyway, or has begun.
        (
            {"epoch": 7, "best_score": 0.4, "best_epoch": 1, "stale": 2},
            scored(0.3),
            {"stale": 3, "plateau": 1},
            {},
        ),
        (
            {"epoch": 5, "best_score": 0.4, "best_epoch": 1, "stale": 3, "averaging_from": 5},
            scored(0.3),
            {"stale": 4, "plateau": 1},
            {},
        ),
        # A uniform one is never the best. The sentinel counts it, and starts again with a sound one.
        ({}, scored(0.4, **DEAD), {"strikes": 1, "stale": 1, "plateau": 1}, {}),
        (
            {"epoch": 2, "best_score": 0.4, "best_epoch": 1, "strikes": 1},
            scored(0.3),
            {"stale": 1, "plateau": 1, "strikes": 0},
            {},
        ),
        (
            {"epoch": 2, "best_score": 0.4, "best_epoch": 1, "strikes": 1},
            scored(0.3, variance=0.0),
            {"stale": 1, "plateau": 1, "strikes": 2},
            {"collapse": "expected a variance of at least 0.001, got 0"},
        ),
    ],
)
def test_what_follows_from_a_validation(
    before: dict[str, float], result: Validated, after: dict[str, float], says: dict[str, object]
) -> None:
    start = replace(START, **before)
    decision = decide(start, result, RUN)
    assert decision.progress == replace(start, **after)
    assert (decision.is_best, decision.ends_early) == (says.get("is_best", False), says.get("ends_early", False))
    assert bool(decision.collapse) == ("collapse" in says)
    assert str(says.get("collapse", "")) in decision.collapse


def test_in_warm_up_the_sentinel_looks_away() -> None:
    run = replace(RUN, optimiser=replace(RUN.optimiser, warmup_steps=6))
    assert decide(START, scored(0.4, **DEAD), run).progress.strikes == 0
    assert decide(replace(START, step=6), scored(0.4, **DEAD), run).progress.strikes == 1


@given(st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.5]), min_size=1, max_size=20))
def test_a_whole_run_ends_after_patience_and_keeps_its_best(scores: list[float]) -> None:
    progress, decisions = replace(START, averaging_from=100), list[Decision]()
    for epoch, score in enumerate(scores, start=1):
        decisions.append(decide(replace(progress, epoch=epoch), scored(score), RUN))
        progress = decisions[-1].progress
    assert progress.best_score == max(scores)
    assert progress.best_epoch == scores.index(max(scores)) + 1
    bests = [max(scores[: index + 1]) > max(scores[:index], default=-1) for index in range(len(scores))]
    assert [decision.is_best for decision in decisions] == bests
    worse = "".join("." if best else "w" for best in bests)
    ended = worse.find("www")
    assert [index for index, decision in enumerate(decisions) if decision.ends_early] == (
        [] if ended < 0 else [ended + 2]
    )
