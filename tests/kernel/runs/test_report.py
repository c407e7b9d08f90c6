import json
from dataclasses import replace

import pytest
from scenes import names_in

from surface_kernel.runs.report import Outcome, RunReport, VolumeReport

GOOD = VolumeReport(
    case="a", shape_zyx=(320, 314, 314), stages=1, wanted=1, seconds=12.34, foreground=0.053, variance=0.01
)
PART = VolumeReport(
    case="c",
    shape_zyx=(9, 9, 9),
    stages=2,
    wanted=3,
    seconds=5.0,
    foreground=0.1,
    variance=0.2,
    reason="time budget exhausted",
    notes=("stage 0 was tried again: why",),
)
BAD = VolumeReport(case="b", shape_zyx=(320, 320, 320), stages=0, wanted=1, reason="b.tif: no such file")


def report(*volumes, **changes):
    return RunReport(**{"volumes": volumes, "device": "cpu", "wall_s": 1.0, "budget_s": 9.0, **changes})


def test_a_run_is_complete_when_every_volume_has_all_its_stages():
    assert report(GOOD).outcome == Outcome.COMPLETE
    assert report(GOOD, PART).outcome == Outcome.DEGRADED
    assert report(GOOD, BAD).outcome == Outcome.DEGRADED


def test_lines_by_hand():
    assert GOOD.line() == "a  320×314×314  12.3 s  foreground 5.30%, variance 0.010"
    assert BAD.line() == "b  320×320×320  zeros: b.tif: no such file"
    assert PART.line() == (
        "c  9×9×9  5.0 s  stages 2 of 3: time budget exhausted  foreground 10.00%, variance 0.200"
        "; stage 0 was tried again: why"
    )
    assert [volume.status for volume in (GOOD, PART, BAD)] == ["predicted", "partly", "zeros"]


@pytest.mark.parametrize(
    ("foreground", "warns"), [(0, True), (0.0009, True), (0.001, False), (0.95, False), (0.9988, True), (1, True)]
)
def test_a_uniform_mask_is_warned_of(foreground, warns):
    volume = replace(PART, foreground=foreground, variance=0.1)
    assert bool(volume.warning) is warns
    assert ("WARNING the mask is uniform" in volume.line()) is warns


@pytest.mark.parametrize(("variance", "warns"), [(0, True), (0.0009, True), (0.001, False), (0.25, False)])
def test_uniform_probabilities_are_warned_of(variance, warns):
    volume = replace(GOOD, foreground=0.05, variance=variance)
    assert ("WARNING the probabilities are uniform" in volume.line()) is warns


def test_zeros_that_nobody_predicted_are_no_uniform_prediction():
    assert BAD.warning == ""


def test_both_forms_say_the_same(tmp_path):
    made = {"device": "cpu, float32", "wall_s": 61.26, "budget_s": 30600, "trouble": ["a worker died: SIGKILL"]}
    report(GOOD, BAD, PART, **made).write(tmp_path)
    assert names_in(tmp_path) == ["run_report.json", "run_report.txt"]
    entries = json.loads((tmp_path / "run_report.json").read_text())
    assert (entries["verdict"], entries["device"], entries["wall_s"]) == ("degraded", "cpu, float32", 61.26)
    assert entries["budget_s"] == 30600
    assert entries["trouble"] == ["a worker died: SIGKILL"]
    assert [volume["case"] for volume in entries["volumes"]] == ["a", "b", "c"]
    assert entries["volumes"][0]["shape_zyx"] == [320, 314, 314]
    assert entries["volumes"][0]["foreground"] == 0.053
    assert [volume["status"] for volume in entries["volumes"]] == ["predicted", "zeros", "partly"]
    assert entries["volumes"][1]["reason"] == BAD.reason
    assert (tmp_path / "run_report.txt").read_text().splitlines() == [
        "degraded: 1 of 3 volumes predicted, 1 partly in 61 s of 30600 on cpu, float32",
        "trouble: a worker died: SIGKILL",
        GOOD.line(),
        BAD.line(),
        PART.line(),
    ]
