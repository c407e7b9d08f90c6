from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from surface_score.betti import Matching, Octant, match_octants, octants, topo_score, total
from surface_score.matching import match

NONE = Matching(0, 0, 0)


def in_octants(prediction, truth, threads=1):
    with ThreadPoolExecutor(threads) as pool:
        return match_octants(prediction, truth, pool)


@pytest.mark.parametrize(
    ("counts", "f1"),
    [
        ((0, 0, 0), None),
        ((2, 2, 2), 1.0),
        ((1, 2, 4), 1 / 3),
        ((0, 3, 4), 0.0),
        ((0, 0, 4), 0.0),
        ((0, 1, 0), 1 / 3),  # 0.5 / 1.5
        ((0, 9, 0), 1 / 19),
    ],
)
def test_f1(counts, f1):
    assert Matching(*counts).f1 == pytest.approx(f1)


@pytest.mark.parametrize(
    ("matchings", "score"),
    [
        ((NONE, NONE, NONE), 1.0),
        ((Matching(1, 1, 1), NONE, NONE), 1.0),
        ((NONE, NONE, Matching(0, 1, 1)), 0.0),
        ((Matching(1, 1, 1), Matching(0, 1, 1), NONE), 0.34 / 0.67),
        ((NONE, Matching(1, 1, 1), Matching(0, 1, 1)), 0.5),
        ((Matching(1, 1, 3), Matching(0, 2, 0), Matching(1, 1, 1)), 0.34 * 0.5 + 0.33 * 0.2 + 0.33),
    ],
)
def test_topo_score(matchings, score):
    assert topo_score(matchings) == pytest.approx(score)


@pytest.mark.parametrize("counts", [(2, 1, 3), (2, 3, 1), (-1, 0, 0)])
def test_a_matching_checks_itself(counts):
    with pytest.raises(ValueError, match="expected 0 <= matched <= predicted and true, got"):
        Matching(*counts)


def test_octants_of_an_odd_shape():
    boxes = octants((5, 2, 7))
    assert len(boxes) == 8
    assert boxes[0] == (slice(0, 3), slice(0, 1), slice(0, 4))
    assert boxes[-1] == (slice(3, 5), slice(1, 2), slice(4, 7))
    covered = np.zeros((5, 2, 7), int)
    for box in boxes:
        covered[box] += 1
    assert (covered == 1).all()


@pytest.mark.parametrize(("shape", "number"), [((1, 1, 1), 1), ((1, 4, 1), 2), ((2, 2, 1), 4), ((2, 2, 2), 8)])
def test_an_axis_of_one_voxel_is_not_cut(shape, number):
    boxes = octants(shape)
    assert len(boxes) == number
    assert all(side.start < side.stop for box in boxes for side in box)


def test_features_are_counted_in_each_octant():
    # Three sheets across x: each of the four columns of octants has all three in it, two in the left half or the right.
    truth = np.zeros((6, 6, 13), bool)
    truth[:, :, [1, 4, 9]] = True
    prediction = truth.copy()
    prediction[1, 1, 2:4] = True  # a bridge in the first octant
    found = in_octants(prediction, truth)
    assert [octant.matchings[0] for octant in found] == [
        *(Matching(0, 0, 1), NONE),
        *(Matching(1, 1, 1), NONE),
        *(Matching(1, 1, 1), NONE),
        *(Matching(1, 1, 1), NONE),
    ]
    assert total(found) == (Matching(3, 3, 4), NONE, NONE)


def test_a_hole_on_the_cut_is_no_tunnel():
    sheet = np.zeros((4, 8, 8), bool)
    sheet[1] = True
    sheet[1, 4, 4] = False  # rows 4 to 7: the hole lies at the octant's rim
    assert match(sheet, sheet)[1] == (1, 1, 1)
    assert total(in_octants(sheet, sheet))[1] == NONE


def test_threads_change_nothing():
    rng = np.random.default_rng(0)
    prediction, truth = (rng.random((21, 19, 17)) < density for density in (0.4, 0.5))
    assert in_octants(prediction, truth, 1) == in_octants(prediction, truth, 3)


def test_total_of_nothing():
    assert total([]) == (NONE, NONE, NONE)
    box = (slice(0, 1), slice(0, 1), slice(0, 1))
    assert total([Octant(box, (Matching(1, 2, 3), NONE, NONE))] * 2)[0] == Matching(2, 4, 6)
