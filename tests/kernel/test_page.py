"""A page is left by a process of its own; whatever happens in it is one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from worlds_of_pages import score_row, write_scores

from surface_kernel import page
from surface_kernel.page import leave_page


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A function that puts a `surface_report` of these lines before any other."""

    def put(code: str) -> None:
        (tmp_path / "rooms" / "surface_report").mkdir(parents=True)
        (tmp_path / "rooms" / "surface_report" / "__main__.py").write_text(code)
        (tmp_path / "rooms" / "surface_report" / "__init__.py").touch()
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "rooms"))

    return put


def test_the_page_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    scores = write_scores(tmp_path / "s.json", {"1": score_row()})
    assert leave_page(tmp_path / "page.html", score=scores) == f"page: {tmp_path / 'page.html'}"
    assert (tmp_path / "page.html").read_text().startswith("<!DOCTYPE html>")


def test_what_goes_wrong_is_one_line(tmp_path: Path, installed) -> None:
    installed("import sys; print('first'); print('the reason\\x1b', file=sys.stderr); sys.exit(1)")
    said = leave_page(tmp_path / "page.html", run=tmp_path)
    assert said == "no page: surface_report exited with 1: the reason\\x1b"


def test_a_page_that_hangs_is_given_up(tmp_path: Path, installed) -> None:
    installed("import time; time.sleep(60)")
    said = leave_page(tmp_path / "page.html", 0.5, run=tmp_path)
    assert said == "no page: surface_report was stopped after 0 s"


def test_no_python_to_start_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    assert leave_page(tmp_path / "page.html", run=tmp_path).startswith("no page: surface_report could not be started")


def test_nothing_is_said_where_it_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "MODULE", "surface_report_of_nobody")
    monkeypatch.setattr(subprocess, "run", lambda *given, **named: pytest.fail("started"))
    assert leave_page(tmp_path / "page.html", run=tmp_path) == ""
