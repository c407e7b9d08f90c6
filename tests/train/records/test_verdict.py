import math

import pytest

from surface_train.records.verdict import Verdict


def _verdict(dice: float = 0.6, start: float | None = 0.5, threshold: float = 0.34, predicted: float = 0.15) -> Verdict:
    return Verdict(dice=dice, start_dice=start, threshold_dice=threshold, predicted_share=predicted, truth_share=0.14)


@pytest.mark.parametrize(
    ("verdict", "faults"),
    [
        (_verdict(), []),
        (
            _verdict(dice=0.438, start=0.3, predicted=0.30),
            ["at least 0.490", "7.0% to 28.0%"],
        ),  # seen on a slow machine
        (_verdict(dice=0.52, start=0.48), ["add at least 0.05 of Dice to its start's 0.480, got 0.520"]),
        (_verdict(dice=0.52, start=None), []),
        (_verdict(predicted=0.06), ["7.0% to 28.0%"]),
        (_verdict(predicted=0.07), []),
        (_verdict(predicted=0.28), []),
        (_verdict(dice=math.nan), ["got nan", "got nan"]),
    ],
)
def test_every_part_of_the_bar_that_is_missed_is_named_with_what_to_do(verdict: Verdict, faults: list[str]) -> None:
    assert len(verdict.faults) == len(faults)
    for said, expected in zip(verdict.faults, faults, strict=True):
        assert expected in said
        assert said.endswith("as in: PLAN_S=300 scripts/demo.sh")
    assert verdict.to_entries()["met"] is (not faults)
