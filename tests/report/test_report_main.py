"""The command line: what it takes, what it leaves, and its exit codes."""

import json
import shutil

import numpy as np
import pytest
from worlds_of_pages import SHAPE, score_row, write_scores, write_submission, write_volumes

from surface_report import __main__ as command
from surface_report.__main__ import main


@pytest.fixture
def scores(tmp_path):
    return write_scores(tmp_path / "s.json", {"1": score_row(0.4), "2": score_row(0.6)})


def made(tmp_path, *words):
    return main([*map(str, words), "--out", str(tmp_path / "page.html")])


def test_nothing_to_show_is_a_usage_error(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        made(tmp_path, "--truth", tmp_path)
    assert "expected at least one of --run, --submission, --data and --score" in capsys.readouterr().err


def test_a_score_alone_makes_a_page(tmp_path, scores):
    assert made(tmp_path, "--score", scores) == 0
    page = (tmp_path / "page.html").read_text()
    assert page.startswith("<!DOCTYPE html>")
    assert "0.4000" in page
    assert "slices-viewer" not in page.split("<script>")[0]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("{", "expected JSON"),
        ("[]", "expected a JSON object"),
        ('{"cases": {}}', "got no table of cases"),
        ('{"cases": {"1": {"score": 1}}}', "expected scores as"),
        ('{"cases": {"1": 7}}', "expected scores as"),
        ("[" * 5000, "expected JSON"),
    ],
)
def test_a_wrong_score_leaves_the_old_page(tmp_path, capsys, content, named):
    (tmp_path / "s.json").write_text(content)
    (tmp_path / "page.html").write_text("old")
    assert made(tmp_path, "--score", tmp_path / "s.json") == 1
    assert (tmp_path / "page.html").read_text() == "old"
    line = capsys.readouterr().out
    assert named in line
    assert str(tmp_path / "s.json") in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "s.json"]


def test_a_case_that_cannot_be_read_is_named(tmp_path, capsys):
    """The others are shown, and the exit code says that something is missing."""
    # Both sections that look at its voxels name it.
    mask = np.zeros(SHAPE, np.uint8)
    zipped = write_submission(tmp_path / "a.zip", {"1": mask, "2": mask})
    images = write_volumes(tmp_path / "images", {"1": mask + 9, "2": mask[1:] + 9})
    assert made(tmp_path, "--submission", zipped, "--images", images) == 3
    page = (tmp_path / "page.html").read_text()
    assert page.count('<script type="application/json"') == 1
    assert "2: expected volumes of one shape" in page
    assert "not shown: 2: expected volumes of one shape" in capsys.readouterr().out


def test_a_breakdown_of_other_volumes_is_named(tmp_path):
    mask = np.zeros(SHAPE, np.uint8)
    zipped = write_submission(tmp_path / "a.zip", {"1": mask})
    (tmp_path / "explain").mkdir()
    broken = {"shape_zyx": [1, 2, 3], "score": score_row()}
    (tmp_path / "explain" / "1.json").write_text(json.dumps(broken))
    assert made(tmp_path, "--submission", zipped, "--explain", tmp_path / "explain") == 3
    assert "expected the breakdown of a volume of" in (tmp_path / "page.html").read_text()


def test_without_jinja2_the_extra_is_named(tmp_path, scores, capsys, monkeypatch):
    monkeypatch.setattr(command.importlib.util, "find_spec", lambda name: None)
    assert made(tmp_path, "--score", scores) == 1
    assert "pip install 'vesuvius-surface[report]'" in capsys.readouterr().out


def test_truths_without_a_prediction_are_an_error(tmp_path, scored_world, capsys):
    shutil.copytree(scored_world.truth, tmp_path / "labels")
    shutil.copy(tmp_path / "labels" / "7.tif", tmp_path / "labels" / "77.tif")
    assert made(tmp_path, "--submission", scored_world.submission, "--truth", tmp_path / "labels") == 1
    assert "no prediction for 1 id (77)" in capsys.readouterr().out
    assert not (tmp_path / "page.html").exists()
