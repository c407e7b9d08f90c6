import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from surface_score import CaseScore, mean_score, score_case

CASE = CaseScore(
    topo_score=0.4,
    surface_dice=0.8,
    voi_score=0.5,
    voi_split=1.0,
    voi_merge=7 / 3,
    dice=0.6,
    predicted_share=0.1,
    truth_share=0.2,
)
PERFECT = {"topo_score": 1.0, "surface_dice": 1.0, "voi_score": 1.0, "voi_split": 0.0, "voi_merge": 0.0, "dice": 1.0}


def label_of(*values):
    return np.array(values, np.uint8).reshape(1, 1, -1)


def measured(case, *names):
    return [getattr(case, name) for name in names]


def test_agrees_with_the_references(golden_world):
    case = score_case(golden_world.prediction, golden_world.label)
    names = ["score", "topo_score", "surface_dice", "voi_score", "voi_split", "voi_merge", "dice"]
    assert measured(case, *names) == pytest.approx([getattr(golden_world, name) for name in names], abs=1e-9)
    assert list(case.betti.values()) == golden_world.betti


def test_label_2_is_background_in_both():
    # Of six voxels two are ignored; of the other four one is hit, one missed, one false.
    case = score_case(label_of(1, 0, 1, 0, 1, 1), label_of(1, 1, 0, 0, 2, 2))
    assert case.dice == 0.5
    assert case.predicted_share == case.truth_share == 0.5
    without = score_case(label_of(1, 0, 1, 0, 0, 0), label_of(1, 1, 0, 0, 2, 2))
    assert case == without


def test_a_predicted_2_and_a_bool_are_foreground():
    label = label_of(1, 1, 0, 0)
    expected = score_case(label_of(1, 1, 0, 0), label)
    assert expected.dice == 1.0
    assert score_case(label_of(2, 255, 0, 0), label) == expected
    assert score_case(label_of(1, 1, 0, 0).astype(bool), label) == expected


@pytest.mark.parametrize(
    ("prediction", "label"), [((0, 0, 0), (0, 0, 0)), ((1, 1, 1), (2, 2, 2)), ((1, 1, 1), (1, 1, 1))]
)
def test_agreement_is_perfect(prediction, label):
    assert PERFECT.items() <= dataclasses.asdict(score_case(label_of(*prediction), label_of(*label))).items()


@pytest.mark.parametrize(("prediction", "label"), [((0, 0, 0), (0, 1, 2)), ((0, 1, 1), (0, 0, 2))])
def test_one_empty_mask(prediction, label):
    case = score_case(label_of(*prediction), label_of(*label))
    assert measured(case, "surface_dice", "dice", "voi_score") == [0.0, 0.0, 1.0]  # one sheet, and one of background


@pytest.mark.parametrize(
    ("prediction", "label", "message"),
    [
        (
            np.ones((2, 3, 4)),
            np.ones((2, 3, 5)),
            r"got a prediction of shape \(2, 3, 4\) and a label of shape \(2, 3, 5\)",
        ),
        (np.ones((3, 4)), np.ones((3, 4)), r"expected a prediction and a label of one shape \(z, y, x\)"),
        (np.ones((0, 3, 4)), np.ones((0, 3, 4)), "expected at least one voxel, got"),
    ],
)
def test_refuses(prediction, label, message):
    with pytest.raises(ValueError, match=message):
        score_case(prediction, label)


def test_all_but_0_and_2_is_surface_and_nan_is_not():
    expected = score_case(label_of(1, 1, 0, 0), label_of(1, 0, 0, 2))
    assert score_case(label_of(1, 1, 0, 0), label_of(255, 0, 0, 2)) == expected
    floats = np.array([0.1, -3, np.nan, np.nan]).reshape(1, 1, -1)
    assert score_case(floats, label_of(1, 0, 0, 2)) == expected
    assert score_case(label_of(1, 1, 0, 0), np.array([1, np.nan, 0, 2]).reshape(1, 1, -1)) == expected


def test_topology_sees_the_background_around_the_foreground():
    # Octants are cut from the whole volume, not from the part that holds foreground: here both sheets lie in one half.
    label = np.zeros((16, 4, 4), np.uint8)
    label[[1, 5]] = 1
    assert score_case(label, label).betti["0"] == [4, 4, 4]
    assert score_case(label[:7], label[:7]).betti["0"] == [0, 0, 0]


def test_score_weighs_the_three():
    assert CASE.score == pytest.approx(0.30 * 0.4 + 0.35 * 0.8 + 0.35 * 0.5)
    assert dataclasses.replace(CASE, topo_score=1.0, surface_dice=1.0, voi_score=1.0).score == pytest.approx(1.0)


def test_what_is_lost_and_what_is_kept_make_one():
    assert CASE.lost == pytest.approx({"topo": 0.18, "surface dice": 0.07, "VOI": 0.175})
    assert CASE.score + sum(CASE.lost.values()) == pytest.approx(1.0)


def test_mean():
    other = dataclasses.replace(CASE, surface_dice=0.4, voi_split=2.0, topo_score=0.5)
    mean = mean_score([CASE, other])
    names = ["topo_score", "surface_dice", "voi_split", "dice", "score"]
    assert measured(mean, *names) == pytest.approx([0.45, 0.6, 1.5, 0.6, (CASE.score + other.score) / 2])
    assert mean.betti is None
    scored = score_case(label_of(1, 0, 1), label_of(1, 0, 1))
    assert mean_score([scored, scored]) == dataclasses.replace(scored, octants=())
    with pytest.raises(ValueError, match="expected at least one case"):
        mean_score([])


@pytest.mark.parametrize(("name", "value"), [("dice", 1.1), ("voi_split", -1.0), ("topo_score", float("nan"))])
def test_a_row_checks_itself(name, value):
    with pytest.raises(ValueError, match=f"{name}.*expected .*, got .*{value}"):
        dataclasses.replace(CASE, **{name: value})


def test_import_compiles_nothing_and_draws_nothing():
    code = (
        "import sys, surface_score.surface_dice as s, surface_score.tunnels as t; "
        "assert not s._count_slab.signatures and not s._encode_slab.signatures and not t._match.signatures; "
        "assert not {'matplotlib', 'torch', 'PIL'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})
