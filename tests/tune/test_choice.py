import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from surface_tune.choice import choose, interval, leave_out


def test_the_simplest_chain_within_one_standard_error_of_the_best():
    """Differences to the best, the third: 0.03 ± 0.01 of the first, and 0.01 ± 0.02 of the second."""
    scores = np.array(
        [
            [0.47, 0.57, 0.67, 0.77],
            [0.51, 0.55, 0.73, 0.77],
            [0.50, 0.60, 0.70, 0.80],
        ]
    )
    scores[0] -= [0.00, 0.02, 0.00, 0.02]
    assert choose(scores, sizes=[1, 2, 3]) == 1
    assert choose(scores, sizes=[1, 4, 3]) == 2
    assert choose(scores[:, :1], sizes=[1, 2, 3]) == 1  # of a single volume the best one


def test_of_equally_simple_chains_the_best_is_taken():
    scores = np.array([[0.50, 0.60, 0.71], [0.51, 0.60, 0.70], [0.40, 0.40, 0.40]])
    assert choose(scores, sizes=[2, 2, 1]) == 0
    assert choose(scores[[1, 0, 2]], sizes=[2, 2, 1]) == 1


@settings(max_examples=60)
@given(arrays(np.float64, (4, 6), elements=st.floats(0, 1)), st.permutations(range(6)))
def test_the_order_of_volumes_does_not_matter(scores, order):
    sizes = [1, 2, 3, 4]
    np.testing.assert_allclose(
        scores.mean(axis=1)[choose(scores, sizes)], scores.mean(axis=1)[choose(scores[:, order], sizes)], atol=0.5
    )


def test_a_scroll_is_reported_by_what_was_chosen_without_it():
    """On the first scroll the second chain is better, on the others the first."""
    scores = np.array([[0.2, 0.3, 0.8, 0.9, 0.7], [0.6, 0.7, 0.4, 0.5, 0.3]])
    rows = leave_out(scores, [1, 1], ["a", "a", "b", "b", "c"])
    assert [(row.group, row.volumes, row.chosen, row.best) for row in rows] == [
        ("a", 2, 0, 1),
        ("b", 2, 1, 0),
        ("c", 1, choose(scores[:, :4], [1, 1]), 0),
    ]
    assert rows[0].score == pytest.approx(0.25)
    assert rows[0].best_score == pytest.approx(0.65)
    with pytest.raises(ValueError, match="expected two scrolls or more, got 1"):
        leave_out(scores, [1, 1], ["a"] * 5)


def test_the_interval_holds_the_mean_and_shrinks_with_the_spread():
    scores = np.random.default_rng(0).normal(0.6, 0.05, 24)
    low, high = interval(scores)
    assert low < scores.mean() < high
    assert 0.02 < high - low < 0.06  # 2 × 1.96 × 0.05 / √24
    assert interval(np.full(5, 0.5)) == (0.5, 0.5)
