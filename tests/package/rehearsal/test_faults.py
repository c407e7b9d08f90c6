"""What a rehearsal finds when a bundle or submit.py does not meet a fault as it must. Others test namespaces."""

import re
from pathlib import Path

import pytest
from package.fake_bundle import SUBMIT, make_bundle, result_line

from surface_package.build import manifest
from surface_package.rehearsal import faults, mixed
from surface_package.rehearsal.faults import MountCase
from surface_package.rehearsal.sandbox import AUDIT_HOOK, BUNDLE_AT, COMPETITION_AT, FLAT

ZIP = "import zipfile\nzipfile.ZipFile(place.working / 'submission.zip', 'w').close()\n"
SITE = "(place.scratch / 'site').mkdir(parents=True)\n"


def ending(code: int = 1, verdict: str = "no submission", reason: str = "no_competition", **entries: object) -> str:
    """How a script ends that says so in submit.py's own line."""
    line = result_line("submit", verdict, reason=reason, message=f"for {reason}", **entries)
    return f"print({line!r})\nsys.exit({code})"


def one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str, reason: str = "", predict: bool = False, names: str = ""
) -> list[str]:
    """Try one case, flat, with a fake engine's code; return the findings."""
    bundle, small = make_bundle(tmp_path / "bundle", code), mixed.make_small(tmp_path / "small")
    mounts = {BUNDLE_AT[FLAT]: bundle, COMPETITION_AT[FLAT]: small}
    case = MountCase(name="the case", mounts=mounts, reason=reason, names=names)
    monkeypatch.setattr(faults, "mount_cases", lambda *_: [case])
    tried, findings = faults.try_mounts(bundle, small, tmp_path / "faults", isolation=AUDIT_HOOK, predict=predict)
    assert tried == ["the case"]
    assert all(finding.endswith(" (the case)") for finding in findings)
    assert list((tmp_path / "faults").iterdir()) == []
    return findings


def test_every_way_of_mounting_and_every_fault_is_a_case(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    cases = list(faults.mount_cases(bundle, tmp_path, tmp_path / "faults"))
    assert len({case.name for case in cases}) == len(cases)
    good = [set(case.mounts) for case in cases if not case.reason]
    flat, nested = (BUNDLE_AT["flat"], COMPETITION_AT["flat"]), (BUNDLE_AT["nested"], COMPETITION_AT["nested"])
    assert good == [set(flat), {flat[0], nested[1]}, {nested[0], flat[1]}, {*flat, *nested}]
    reasons = [case.reason for case in cases if case.reason]
    assert len(reasons) == 11
    assert set(reasons) == {"bundle_damaged", "no_bundle", "no_competition", "several_bundles"}
    assert {case.names for case in cases if case.reason == "bundle_damaged"} == {"settings.json"}
    wrong, other = tmp_path / "faults" / "wrong", tmp_path / "faults" / "other"
    assert manifest.verify(bundle) == []
    assert manifest.verify(other) == []
    assert manifest.digest(other) != manifest.digest(bundle)
    (line,) = manifest.verify(wrong)
    assert line.startswith("'settings.json': expected sha256 ")


@pytest.mark.parametrize("reason", ["bundle_damaged", "no_bundle", "no_competition", "several_bundles"])
def test_the_reasons_are_those_of_submit_py(reason: str) -> None:
    assert f'"{reason}"' in SUBMIT.read_text()


@pytest.mark.parametrize(
    ("script", "found"),
    [
        (ending(), []),
        (ending(code=0), ["expected exit code 1 and the reason no_competition, got exit code 0 and no_competition"]),
        (ending(reason="no_bundle"), ["and the reason no_competition, got exit code 1 and no_bundle (for no_bundle)"]),
        (ending(verdict="failed"), ["expected exit code 1 and the reason no_competition, got exit code 1"]),
        (
            "print('error: expected one competition, got none'); sys.exit(1)",
            ["got exit code 1 and no result (expected"],
        ),
        (ZIP + ending(), ["output: expected nothing of a run that must stop, got submission.zip"]),
        (SITE + ending(), ["expected it to stop before it installs anything, got wheels unpacked"]),
        (
            "(place.working / 'a.tif').write_text('')\n" + ending(),
            ["output: expected nothing of a run that must stop, got a.tif", "expected no .tif beside the zip"],
        ),
    ],
    ids=["stops", "goes on", "another reason", "another verdict", "prose only", "zip", "wheels", "stray"],
)
def test_a_script_that_does_not_stop_as_it_must_is_a_finding(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, found: list[str]
) -> None:
    replace_submit(monkeypatch, tmp_path, script)
    findings = one(monkeypatch, tmp_path, "", "no_competition")
    assert len(findings) == len(found)
    assert all(text in finding for text, finding in zip(found, findings, strict=True))


def test_a_changed_file_must_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    replace_submit(monkeypatch, tmp_path, ending(reason="bundle_damaged", findings=["'other.json': changed"]))
    (finding,) = one(monkeypatch, tmp_path, "", "bundle_damaged", names="settings.json")
    assert "expected exit code 1 and the reason bundle_damaged with settings.json, got exit code 1" in finding


def replace_submit(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    """Let a script run in submit.py's place; `place` has its folders."""
    head = "import argparse, pathlib, sys\nparser = argparse.ArgumentParser()\n"
    head += "for name in ('input', 'working', 'scratch'):\n    parser.add_argument('--' + name, type=pathlib.Path)\n"
    path = folder / "submit.py"
    path.write_text(f"{head}place = parser.parse_args()\n{script}\n")
    monkeypatch.setattr(manifest, "submit_script", lambda: path)


@pytest.mark.parametrize(
    ("code", "predict", "found"),
    [
        ("submit()", False, []),
        ("submit()", True, []),
        ("place.budget_s = 1\nsubmit()", False, ["expected zeros of an engine .*, got the verdict 'complete'"]),
        ("submit()\nsys.exit(3)", True, ["expected every volume predicted .*, got the verdict 'degraded'"]),
        pytest.param("sys.exit(3)", False, ["expected exit code 0, got 1 .*got no such file"], marks=pytest.mark.slow),
        (
            f"submit(lambda masks: masks.update({{'{mixed.CASE}.tif': mask(2, 3, 4)}}))",
            False,
            [r"expected a mask of \(40, 48, 56\) as its image has, got \(2, 3, 4\)"],
        ),
    ],
    ids=["starts", "predicts", "ignores its budget", "lacks a mask", "no zip", "shape"],
)
def test_an_engine_that_does_not_start_as_it_must_is_a_finding(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str, predict: bool, found: list[str]
) -> None:
    findings = one(monkeypatch, tmp_path, code, predict=predict)
    assert len(findings) == len(found)
    for pattern, finding in zip(found, findings, strict=True):
        assert re.search(pattern, finding)
