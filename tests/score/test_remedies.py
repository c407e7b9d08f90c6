"""Points worked out by hand."""

from dataclasses import replace

import pytest

from surface_score.betti import Matching, Octant
from surface_score.breakdown import worst_first
from surface_score.explain import HOLES, MERGES, SMALL_COMPONENTS, remedies
from surface_score.leaderboard import CaseScore

BOX = (slice(0, 4),) * 3


def case(components, tunnels, cavities=(0, 0, 0), split=1.0, merge=1.0):
    counts = [Matching(*dimension) for dimension in (components, tunnels, cavities)]
    return CaseScore(
        topo_score=0.5,
        surface_dice=0.5,
        voi_score=1 / (1 + 0.3 * (split + merge)),
        voi_split=split,
        voi_merge=merge,
        dice=0.5,
        predicted_share=0.1,
        truth_share=0.1,
        octants=(Octant(BOX, tuple(counts)), Octant(BOX, (Matching(0, 0, 0),) * 3)),
    )


def test_without_false_tunnels_their_term_leaves_the_mean():
    """61 true components, 50 of 121 matched; 270 tunnels where none is true."""
    found = remedies(case((50, 121, 61), (0, 270, 0)))
    components, tunnels = 2 * 50 / 182, 0.5 / 270.5
    whole = (0.34 * components + 0.33 * tunnels) / 0.67
    assert found[HOLES] == pytest.approx(0.3 * (components - whole))
    assert found[SMALL_COMPONENTS] == pytest.approx(0.3 * 0.34 * (2 * 50 / 111 - components) / 0.67)
    assert found[MERGES] == pytest.approx(0.35 * (1 / 1.3 - 1 / 1.6))
    assert list(found) == [HOLES, SMALL_COMPONENTS, MERGES]


def test_where_tunnels_match_losing_them_costs():
    found = remedies(case((2, 2, 2), (3, 4, 4), merge=0.0))
    assert found[HOLES] == pytest.approx(0.3 * -0.33 * (6 / 8) / 0.67)
    assert (found[SMALL_COMPONENTS], found[MERGES]) == (0, 0)


def test_the_line_of_a_case_names_the_step():
    lines = worst_first({"a": case((50, 121, 61), (0, 270, 0)), "b": case((2, 2, 2), (3, 4, 4), merge=0.0)})
    assert "would have helped: no holes +0.0809 (slit), no false components +0.0" in lines
    assert "would have helped: no step of post-processing\n" in lines


def test_of_a_mean_over_cases_nothing_is_known():
    assert remedies(replace(case((1, 1, 1), (0, 0, 0)), octants=())) == {}
