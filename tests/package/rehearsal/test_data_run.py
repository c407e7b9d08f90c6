"""What is read of the engine's report, and that nothing is taken for granted where it says nothing."""

import json
from pathlib import Path

import pytest

from surface_kernel.runs.report import RunReport, VolumeReport
from surface_package.rehearsal.data_run import ReportedVolume, ReportError, read_report

VOLUME = {"case": "7", "warning": "odd", "seconds": 1.5}
HOW = {"device": {"name": "cuda:0"}}


def test_the_kernels_own_report_is_read(tmp_path: Path) -> None:
    volume = VolumeReport(case="7", shape_zyx=(8, 8, 8), stages=1, wanted=1, seconds=2.5, foreground=0.0, variance=0.1)
    RunReport(volumes=[volume], device="cpu", wall_s=3.0, budget_s=9.0, how=HOW).write(tmp_path)
    (read,), device = read_report(tmp_path / "run_report.json")
    assert (read.case, read.warning, read.seconds, device) == ("7", volume.warning, 2.5, "cuda:0")
    assert read.warning


def test_a_report_that_says_enough_is_read(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps({"volumes": [VOLUME], "how": HOW, "more": 1}))
    assert read_report(tmp_path / "r.json") == ([ReportedVolume(case="7", warning="odd", seconds=1.5)], "cuda:0")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"r\.json: no such file; expected the engine's report on every volume"),
        ("{", "expected the engine's report on every volume, got JSONDecodeError"),
        ("[]", "got TypeError"),
        (json.dumps({"volumes": [VOLUME], "how": {}}), "got KeyError: 'device'"),
        (json.dumps({"how": HOW}), "got KeyError: 'volumes'"),
        (json.dumps({"volumes": [{"case": "7", "seconds": 1}], "how": HOW}), "got KeyError: 'warning'"),
        (json.dumps({"volumes": [VOLUME | {"seconds": "long"}], "how": HOW}), "got ValueError"),
        (json.dumps({"volumes": [7], "how": HOW}), "got TypeError"),
    ],
)
def test_any_other_is_an_error(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "r.json").write_text(content)
    with pytest.raises(ReportError, match=message):
        read_report(tmp_path / "r.json")
