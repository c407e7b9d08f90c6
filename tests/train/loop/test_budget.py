from types import SimpleNamespace

import pytest

from surface_train.loop import budget
from surface_train.loop.budget import Budget, Timings


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    made = SimpleNamespace(now_s=1000.0)
    monkeypatch.setattr(budget, "time", SimpleNamespace(monotonic=lambda: made.now_s))
    return made


def test_a_budget_runs_down(clock: SimpleNamespace) -> None:
    made = Budget(60)
    clock.now_s += 70
    assert (made.is_limited, made.left_s) == (True, -10)


def test_without_a_limit_there_is_always_time(clock: SimpleNamespace) -> None:
    made = Budget(float("inf"))
    clock.now_s += 1e9
    assert (made.is_limited, made.left_s) == (False, float("inf"))


def test_the_longest_time_counts_and_a_slow_step_is_forgotten(clock: SimpleNamespace) -> None:
    made = Timings(thresholds=11, batchnorm_steps=5)
    for seconds in (2, 7, 3):
        for part in (made.save, made.validation, made.score, made.step):
            with part():
                clock.now_s += seconds
    assert (made.save_s, made.validation_s, made.score_s) == (7, 7, 7)
    assert made.step_s == pytest.approx(0.9 * 7)


def test_what_fails_is_not_timed(clock: SimpleNamespace) -> None:
    made = Timings(thresholds=11, batchnorm_steps=5, save_s=7)

    def fails() -> None:
        with made.save():
            clock.now_s += 100
            raise OSError

    with pytest.raises(OSError):  # noqa: PT011
        fails()
    assert made.save_s == 7


def test_the_end_of_a_run_is_two_validations_all_thresholds_and_the_batchnorm() -> None:
    made = Timings(thresholds=11, batchnorm_steps=5, step_s=2, save_s=3, score_s=4)
    assert made.finish_s == 0  # nothing was validated yet: there may be nothing to validate
    assert made.next_step_s == pytest.approx(1.2 * (2 + 3))
    made.validation_s = 30
    assert made.finish_s == 2 * 30 + 11 * 4 + 5 * 2
    assert made.next_step_s == pytest.approx(1.2 * (2 + 3 + 114))
    assert made.fold_s(2.5) == pytest.approx(1.2 * 75)
