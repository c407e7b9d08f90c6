import ast
import math
import re

import numpy as np
import pytest
from scenes import ROOT

from surface_study import expectations, guide, page, worlds
from surface_study.arm import Result
from surface_study.expectations import EVERYTHING
from surface_study.measure import Measured
from surface_study.page import BY_HAND, END_BY_HAND, Findings
from surface_study.plan import FULL, Arm, Plan
from surface_study.reading import Reading
from surface_study.table import Number
from surface_study.worlds import Shares, World

READING = Reading(0.15, 0.14, 0.13, 0.9813, 0.9988)


def measured(foreground: float, surface_dice: float, seed: int = 0) -> Measured:
    shifted = surface_dice + 0.01 * seed
    return Measured("a", foreground, 0.1, foreground, 0.58, 0.05, 0.06, 0.2, 0.4, 0.7, shifted, (shifted,) * 11)


def findings(calibrated: float, foreground: float = 0.2, plan: Plan = FULL) -> Findings:
    """Make up a study: every loss alike, but for the calibrated one's surface Dice and the original's foreground."""
    names = ("loss", "dice", "focal", "variance", "entropy", "variance_of_p")
    epochs = tuple({"epoch": float(n), **dict.fromkeys(names, 1 - 0.05 * n)} for n in range(1, 11))
    results = []
    for arm in plan.arms():
        score = calibrated if arm.preset == "calibrated" else 0.6
        share = foreground if arm.preset == "original" else 0.2
        volumes = (measured(share, score, arm.seed),)
        results.append(Result(arm, epochs, volumes, 200.0, 20.0, np.zeros((4, 4), np.float32)))
    readings = {(arm.preset, arm.label_2): (READING, 60.0) for arm in plan.read_arms()}
    label = np.array([0, 1, 2, 2] * 16, np.uint8).reshape(4, 4, 4)
    trivial = page.trivial([World("a", (label * 60).astype(np.uint8), label)])
    return Findings(plan, Shares(0.05, 0.58, 0.16, 0.12), results, readings, trivial)


def test_the_verdicts_follow_from_the_numbers() -> None:
    better = page.page(findings(0.7), "")
    assert "`calibrated` is better than `rebalanced` by more than the spread" in better
    assert "+0.100 at 0.5 (spread over seeds 0.010)" in better
    assert "none of 24 networks" in better
    assert "15.00 % foreground as we read them, 98.13 % with" in better
    worse = page.page(findings(0.605, foreground=0.97), "")
    assert "`calibrated` is not better than `rebalanced`" in worse
    assert "6 of 24 networks: original-ignored-0, original-surface-0" in worse


def test_what_is_by_hand_is_found_again_and_stands_once() -> None:
    text = page.page(findings(0.7), "One judgement.\n\nAnother.")
    assert page.kept(text) == "One judgement.\n\nAnother."
    assert page.kept(page.page(findings(0.6), page.kept(text))) == "One judgement.\n\nAnother."
    assert page.kept("# a page of somebody else's") == ""
    assert page.kept(f"{BY_HAND} never closed") == ""
    assert page.kept(f"{BY_HAND}\n\n{END_BY_HAND}") == ""


def test_every_loss_and_every_prediction_without_a_network_has_its_row() -> None:
    text = page.page(findings(0.7), "")
    for preset in ("original", "topology_first", "rebalanced", "calibrated"):
        assert len(re.findall(rf"^\| `{preset}` \|", text, re.MULTILINE)) == 2
        assert len(re.findall(rf"^\| `{preset}`, label 2", text, re.MULTILINE)) == 2
    assert f"| {EVERYTHING} | 100.0 |" in text


def test_the_best_grey_threshold_finds_what_grey_tells() -> None:
    found = findings(0.7).trivial["the best grey threshold"][0]
    assert (found.dice, found.surface_dice) == (1, 1)


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        (0.44, "below"),
        (0.446, "inside"),
        (0.5, "inside"),
        (0.604, "inside"),
        (0.61, "above"),
        (math.nan, "not measured"),
    ],
)
def test_agreement_is_judged_in_the_guides_digits(value: float, verdict: str) -> None:
    assert expectations.verdict(Number(value, 0.1), (0.45, 0.60), 2) == verdict


def test_the_guides_progress_is_held_against_the_same_shares_of_the_training() -> None:
    text = page.page(findings(0.7), "")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| variance term")]
    assert [(row[1], row[2], row[3].split(" ")[0], row[4]) for row in rows] == [
        ("1", "0.80–0.90", "0.950", "above"),
        ("10", "0.40–0.60", "0.950", "above"),
        ("50", "0.10–0.15", "0.750", "above"),
        ("100", "0.05–0.10", "0.500", "above"),
    ]


def test_the_guides_trivial_dice_is_no_dice_but_the_share() -> None:
    text = page.page(findings(0.7), "")
    share = 0.75  # of labels 1 and 2 in the made-up world
    assert f"| the same | 0.56–0.57 | {EVERYTHING} | {2 * share / (1 + share):.4f} | above |" in text
    assert f"| the same | 0.56–0.57 | the true share of labels 1 and 2 | {share:.4f} | above |" in text


def test_every_test_that_the_page_names_exists() -> None:
    for row in guide.ROWS:
        assert row.shown
        for one in row.shown:
            if one.startswith(guide.HERE):
                continue
            file, _, name = one.partition("::")
            tree = ast.parse((ROOT / "tests" / "train" / file).read_text())
            assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, one


def test_every_part_of_the_guide_is_in_the_table() -> None:
    assert sorted({row.part for row in guide.ROWS}) == [str(part) for part in range(1, 9)]


def test_shares_are_counted_by_hand() -> None:
    one = np.array([0, 0, 1, 2, 2, 2, 2, 2], np.uint8).reshape(2, 2, 2)
    two = np.full((2, 2, 2), 2, np.uint8)
    found = worlds.count([one, two])
    assert found.surface == pytest.approx(1 / 16)
    assert found.both == pytest.approx((6 / 8 + 1) / 2)
    assert found.both_spread == pytest.approx(1 / 8)
    assert found.surface_of_labelled == pytest.approx((1 / 3 + 0) / 2)


def test_an_arm_is_named_by_what_differs() -> None:
    assert Arm("topology_first", "surface", 2).name == "topology_first-surface-2"
    assert len({arm.name for arm in FULL.arms()}) == 24
