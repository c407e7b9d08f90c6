import json

import pytest
from scenes import names_in

from surface_kernel.report import PREDICTED, ZEROS, RunReport, VolumeReport

GOOD = VolumeReport("a", (320, 314, 314), PREDICTED, 12.34, foreground=0.053, variance=0.01)
BAD = VolumeReport("b", (320, 320, 320), ZEROS, reason="b.tif: found no such file, wanted it")


def test_a_run_is_complete_when_every_volume_was_predicted():
    assert RunReport([GOOD], "cpu", 1.0).complete
    assert not RunReport([GOOD, BAD], "cpu", 1.0).complete


def test_lines_by_hand():
    assert GOOD.line() == "a  320×314×314  12.3 s  foreground 5.30%"
    assert BAD.line() == "b  320×320×320  zeros: b.tif: found no such file, wanted it"


@pytest.mark.parametrize(
    ("foreground", "warns"), [(0, True), (0.0009, True), (0.001, False), (0.95, False), (0.9988, True), (1, True)]
)
def test_a_uniform_mask_is_warned_of(foreground, warns):
    report = VolumeReport("a", (1, 1, 1), PREDICTED, 1.0, foreground, variance=0.1)
    assert bool(report.warning) is warns
    assert ("WARNING the mask is uniform" in report.line()) is warns


@pytest.mark.parametrize(("variance", "warns"), [(0, True), (0.0009, True), (0.001, False), (0.25, False)])
def test_uniform_probabilities_are_warned_of(variance, warns):
    report = VolumeReport("a", (1, 1, 1), PREDICTED, 1.0, foreground=0.05, variance=variance)
    assert ("WARNING the probabilities are uniform" in report.line()) is warns


def test_zeros_that_nobody_predicted_are_no_uniform_prediction():
    assert BAD.warning == ""


def test_both_forms_say_the_same(tmp_path):
    RunReport([GOOD, BAD], "cpu, float32", 61.26).write(tmp_path)
    assert names_in(tmp_path) == ["run_report.json", "run_report.txt"]
    entries = json.loads((tmp_path / "run_report.json").read_text())
    assert entries["verdict"] == "degraded"
    assert entries["device"] == "cpu, float32"
    assert entries["wall_s"] == 61.26
    assert [volume["case"] for volume in entries["volumes"]] == ["a", "b"]
    assert entries["volumes"][0]["shape_zyx"] == [320, 314, 314]
    assert entries["volumes"][0]["foreground"] == 0.053
    assert entries["volumes"][1]["status"] == "zeros"
    assert entries["volumes"][1]["reason"] == BAD.reason
    assert (tmp_path / "run_report.txt").read_text().splitlines() == [
        "degraded: 1 of 2 volumes predicted in 61 s on cpu, float32",
        GOOD.line(),
        BAD.line(),
    ]
