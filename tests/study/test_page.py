import ast
import math
import re

import numpy as np
import pytest
from scenes import ROOT

from surface_study import expectations, findings, guide, page, phantoms
from surface_study.arm import ArmResult
from surface_study.expectations import EVERYTHING
from surface_study.findings import Findings
from surface_study.measure import Measured
from surface_study.page import BY_HAND, END_BY_HAND
from surface_study.phantoms import LabelledPhantom, LabelShares
from surface_study.plan import FULL, Arm, StudyPlan
from surface_study.reading import Reading
from surface_study.table import OverSeeds

READING = Reading(ours=0.15, once=0.14, once_cleaned=0.13, twice=0.9813, twice_cleaned=0.9988)


def measured(foreground: float, surface_dice: float, seed: int = 0) -> Measured:
    shifted = surface_dice + 0.01 * seed
    return Measured(
        case="a",
        foreground=foreground,
        truth=0.1,
        foreground_whole=foreground,
        truth_whole=0.58,
        variance=0.05,
        variance_whole=0.06,
        entropy=0.2,
        dice=0.4,
        dice_whole=0.7,
        surface_dice=shifted,
        surface_dice_at=(shifted,) * 11,
    )


def made_up(calibrated: float, foreground: float = 0.2, plan: StudyPlan = FULL) -> Findings:
    """Make up a study: every loss alike, but for the calibrated one's surface Dice and the original's foreground."""
    names = ("loss", "dice", "focal", "variance", "entropy", "variance_of_p")
    epochs = tuple({"epoch": float(n), **dict.fromkeys(names, 1 - 0.05 * n)} for n in range(1, 11))
    results = []
    for arm in plan.arms():
        score = calibrated if arm.preset == "calibrated" else 0.6
        share = foreground if arm.preset == "original" else 0.2
        volumes = (measured(share, score, arm.seed),)
        results.append(
            ArmResult(
                arm=arm,
                epochs=epochs,
                volumes=volumes,
                train_s=200.0,
                judge_s=20.0,
                picture=np.zeros((4, 4), np.float32),
            )
        )
    readings = {(arm.preset, arm.label_2): (READING, 60.0) for arm in plan.read_arms()}
    label = np.array([0, 1, 2, 2] * 16, np.uint8).reshape(4, 4, 4)
    return Findings(
        plan=plan,
        shares=LabelShares(surface=0.05, both=0.58, both_std=0.16, surface_of_labelled=0.12),
        results=results,
        readings=readings,
        trivial=findings.trivial([LabelledPhantom("a", (label * 60).astype(np.uint8), label)]),
    )


def test_the_verdicts_follow_from_the_numbers() -> None:
    better = page.page(made_up(0.7), "")
    assert "`calibrated` is better than `rebalanced` by more than the standard deviation over seeds" in better
    assert "+0.100 at 0.5 (standard deviation 0.010)" in better
    assert "none of 24 networks" in better
    assert "15.00 % foreground with our inference, 98.13 % with" in better
    worse = page.page(made_up(0.605, foreground=0.97), "")
    assert "`calibrated` is not better than `rebalanced`" in worse
    assert "6 of 24 networks: original-ignored-0, original-surface-0" in worse


def test_what_is_by_hand_is_kept_and_not_repeated() -> None:
    text = page.page(made_up(0.7), "One judgement.\n\nAnother.")
    assert page.written_by_hand(text) == "One judgement.\n\nAnother."
    assert page.written_by_hand(page.page(made_up(0.6), page.written_by_hand(text))) == "One judgement.\n\nAnother."
    assert page.written_by_hand("# a page of somebody else's") == ""
    assert page.written_by_hand(f"{BY_HAND} never closed") == ""
    assert page.written_by_hand(f"{BY_HAND}\n\n{END_BY_HAND}") == ""


def test_every_loss_and_every_prediction_without_a_network_has_its_row() -> None:
    text = page.page(made_up(0.7), "")
    for preset in ("original", "topology_first", "rebalanced", "calibrated"):
        assert len(re.findall(rf"^\| `{preset}` \|", text, re.MULTILINE)) == 2
        assert len(re.findall(rf"^\| `{preset}`, label 2", text, re.MULTILINE)) == 2
    assert f"| {EVERYTHING} | 100.0 |" in text


def test_the_best_grey_threshold_finds_what_grey_tells() -> None:
    found = made_up(0.7).trivial["the best grey threshold"][0]
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
    assert expectations.verdict(OverSeeds(value, 0.1), (0.45, 0.60), 2) == verdict


def test_the_guides_progress_is_held_against_the_same_shares_of_the_training() -> None:
    text = page.page(made_up(0.7), "")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| variance term")]
    assert [(row[1], row[2], row[3].split(" ")[0], row[4]) for row in rows] == [
        ("1", "0.80–0.90", "0.950", "above"),
        ("10", "0.40–0.60", "0.950", "above"),
        ("50", "0.10–0.15", "0.750", "above"),
        ("100", "0.05–0.10", "0.500", "above"),
    ]


def test_the_guides_trivial_dice_is_no_dice_but_the_share() -> None:
    text = page.page(made_up(0.7), "")
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
            (path,) = (ROOT / "tests" / "train").rglob(file)
            tree = ast.parse(path.read_text())
            assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, one


def test_every_part_of_the_guide_is_in_the_table() -> None:
    assert sorted({row.part for row in guide.ROWS}) == [str(part) for part in range(1, 9)]


def test_shares_are_counted_by_hand() -> None:
    one = np.array([0, 0, 1, 2, 2, 2, 2, 2], np.uint8).reshape(2, 2, 2)
    two = np.full((2, 2, 2), 2, np.uint8)
    found = phantoms.count([one, two])
    assert found.surface == pytest.approx(1 / 16)
    assert found.both == pytest.approx((6 / 8 + 1) / 2)
    assert found.both_std == pytest.approx(1 / 8)
    assert found.surface_of_labelled == pytest.approx((1 / 3 + 0) / 2)


def test_an_arm_is_named_by_what_differs() -> None:
    assert Arm("topology_first", "surface", 2).name == "topology_first-surface-2"
    assert len({arm.name for arm in FULL.arms()}) == 24


def masked(text: str) -> list[str]:
    """Return a page's lines without what depends on the results: numbers, verdicts, and the part by hand."""
    text = re.sub(f"{BY_HAND}.*{END_BY_HAND}", "", text, flags=re.DOTALL)
    text = re.sub("commit .*|Machine: .*|Python [0-9].*", "", text)
    text = re.sub(r"[+-]?[0-9.]+( [–±] ?[+-]?[0-9.]+|–[0-9.]+)?( %)?|–", "#", text)
    text = re.sub("networks: .*", "networks", text)
    return re.sub("above|below|inside|is not better|is better", "?", text).splitlines()


def test_the_page_in_docs_says_what_the_generator_says() -> None:
    """The figures are those of the study; every other word is the generator's."""
    committed = (ROOT / "docs" / "bias_study.md").read_text()
    assert masked(committed) == masked(page.page(made_up(0.6, foreground=0.97), ""))
    assert page.written_by_hand(committed)
