"""The commands, as a person types them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from package.fake_bundle import make_bundle, make_competition

from surface_package import __main__ as rooms
from surface_package.build import manifest
from surface_package.rehearsal.rehearsal_record import RehearsalRecord
from surface_package.rehearsal.rehearse import Rehearsal

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


def command(*words: object, **variables: str) -> subprocess.CompletedProcess[str]:
    rooms = [str(manifest.ROOT / room) for room in ("kernel", "package")]
    line = [sys.executable, "-m", "surface_package", *map(str, words)]
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(rooms), PYTHONDONTWRITEBYTECODE="1") | variables
    return subprocess.run(line, capture_output=True, text=True, env=environment)


def test_verify_says_what_submit_py_says(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    good = command("verify", bundle)
    assert good.stdout == f"bundle verified: {bundle}, manifest sha256 {manifest.digest(bundle)}\n"
    assert good.returncode == 0
    (bundle / "settings.json").unlink()
    bad = command("verify", bundle)
    assert bad.returncode == 1
    assert bad.stdout.startswith("finding: 'settings.json': expected 25 bytes, got no such file")


@pytest.mark.slow
def test_a_rehearsal_prints_what_it_measured(tmp_path: Path) -> None:
    data, bundle = make_competition(tmp_path / "data", a7=(2, 3, 4)), make_bundle(tmp_path / "bundle", python=[HERE])
    run = command("rehearse", bundle, "--data_dir", data, "--out", tmp_path / "out", CI="")
    assert run.returncode == 0, run.stdout + run.stderr
    for said in ("1 volumes in ", " s each; at most ", " MB", "isolation: ", "rehearsal passed: "):
        assert said in run.stdout
    assert "120 volumes of 320³ would take " in run.stdout
    assert f"Pythons: expected one besides {HERE} that the bundle lists" in run.stdout
    assert "installed on 0 other Pythons; 15 other mounts tried" in run.stdout
    assert run.stdout.count(": stopped, as expected, ") == 11
    assert run.stdout.count(": started, ") == 4
    assert (tmp_path / "out" / "submission.zip").is_file()


def test_a_python_that_is_given_must_run(tmp_path: Path) -> None:
    data, bundle = make_competition(tmp_path / "data", a7=(2, 3, 4)), make_bundle(tmp_path / "bundle")
    run = command("rehearse", bundle, "--data", data, "--python", tmp_path / "none")
    assert run.returncode == 1
    assert re.search(r"\nerror: .*none: expected CPython 3\.11 or newer that runs, got .*\n\Z", run.stdout)


def test_an_error_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"\x80\x04N.")
    words = ("build", "--weights", tmp_path / "weights", "--out", tmp_path / "bundle", "--offline")
    for run, thing in (
        (command(*words), "weights"),
        (command("rehearse", tmp_path, "--data", tmp_path), tmp_path.name),
    ):
        assert run.returncode == 1
        assert run.stderr == ""
        (line,) = run.stdout.splitlines()
        assert re.match(rf"error: \S*{thing}: ", line)


@pytest.mark.parametrize("passed", [True, False])
def test_a_rehearsal_leaves_a_page_beside_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], passed: bool
) -> None:
    """Of a passed one; the page of an earlier rehearsal is gone either way, and a failure is a line."""
    pages = []

    def rehearse(asked: Rehearsal) -> RehearsalRecord:
        if passed:
            (asked.out / "submission.zip").touch()
        findings = () if passed else ("something",)
        texts = dict.fromkeys(("manifest_sha256", "date", "isolation", "python"), "")
        return RehearsalRecord(passed=passed, full=False, findings=findings, **texts)

    def leave(out: Path, **inputs: Path) -> str:
        assert inputs["submission"].is_file()
        pages.append((out, inputs["images"]))
        return "no page: reasons"

    monkeypatch.setattr(rooms.rehearse, "rehearse", rehearse)
    monkeypatch.setattr(rooms, "leave_page", leave)
    (tmp_path / "bundle.rehearsed.html").write_text("of an earlier one")
    assert rooms.main(["rehearse", str(tmp_path / "bundle"), "--data", "data"]) == (0 if passed else 1)
    assert pages == ([(tmp_path / "bundle.rehearsed.html", Path("data/test_images"))] if passed else [])
    assert ("no page: reasons" in capsys.readouterr().out) == passed
    assert not (tmp_path / "bundle.rehearsed.html").exists()
