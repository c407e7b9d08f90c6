"""What a rehearsal finds when a bundle or submit.py does not meet a fault as it must. Others test namespaces."""

import re
from pathlib import Path

import pytest
from package.fake_bundle import make_bundle

from surface_package.build import manifest
from surface_package.rehearsal import faults, mixed
from surface_package.rehearsal.faults import Scene
from surface_package.rehearsal.stage import AUDIT_HOOK, BUNDLE_AT, COMPETITION_AT, FLAT

ZIP = "import zipfile\nzipfile.ZipFile(place.working / 'submission.zip', 'w').close()\n"
SITE = "(place.scratch / 'site').mkdir(parents=True)\n"
STOP = "print('error: found none')\nsys.exit(1)"


def one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str, reason: str = "", predict: bool = False
) -> list[str]:
    """Go through one scene, flat, with a fake engine's code; return the findings."""
    bundle, small = make_bundle(tmp_path / "bundle", code), mixed.make_small(tmp_path / "small")
    scene = Scene("the scene", {BUNDLE_AT[FLAT]: bundle, COMPETITION_AT[FLAT]: small}, reason)
    monkeypatch.setattr(faults, "scenes", lambda *_: [scene])
    names, findings = faults.go_through(bundle, small, tmp_path / "faults", AUDIT_HOOK, predict)
    assert names == ["the scene"]
    assert all(finding.endswith(" (the scene)") for finding in findings)
    assert list((tmp_path / "faults").iterdir()) == []
    return findings


def test_every_way_of_mounting_and_every_fault_is_a_scene(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    found = list(faults.scenes(bundle, tmp_path, tmp_path / "faults"))
    assert len({scene.name for scene in found}) == len(found)
    good = [set(scene.mounts) for scene in found if not scene.reason]
    flat, nested = (BUNDLE_AT["flat"], COMPETITION_AT["flat"]), (BUNDLE_AT["nested"], COMPETITION_AT["nested"])
    assert good == [set(flat), {flat[0], nested[1]}, {nested[0], flat[1]}, {*flat, *nested}]
    reasons = [scene.reason for scene in found if scene.reason]
    assert len(reasons) == 11
    assert len(set(reasons)) == 4
    wrong, other = tmp_path / "faults" / "wrong", tmp_path / "faults" / "other"
    assert manifest.verify(bundle)[0]
    assert manifest.verify(other)[0]
    assert manifest.digest(other) != manifest.digest(bundle)
    whole, (line,) = manifest.verify(wrong)
    assert not whole
    assert line.startswith("finding: 'settings.json': found sha256 ")


@pytest.mark.parametrize(
    ("script", "found"),
    [
        (STOP, []),
        ("print('nothing found')", ["found exit code 0 (nothing found), wanted 1 and 'found none'"]),
        ("print('error: found two'); sys.exit(1)", ["found exit code 1 (error: found two), wanted 1 and 'found none'"]),
        ("print('found none'); sys.exit(1)", ["found exit code 1 (found none), wanted 1 and 'found none'"]),
        (ZIP + STOP, ["output: found submission.zip, wanted nothing of a run that must stop"]),
        (SITE + STOP, ["found wheels unpacked, wanted it to stop before"]),
        (
            "(place.working / 'a.tif').write_text('')\n" + STOP,
            ["output: found a.tif, wanted nothing", "no .tif beside"],
        ),
    ],
    ids=["stops", "goes on", "another reason", "no error", "zip", "wheels", "stray"],
)
def test_a_script_that_does_not_stop_as_it_must_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, found: list[str]
) -> None:
    head = "import argparse, pathlib, sys\nparser = argparse.ArgumentParser()\n"
    head += "for name in ('input', 'working', 'scratch'):\n    parser.add_argument('--' + name, type=pathlib.Path)\n"
    path = tmp_path / "submit.py"
    path.write_text(f"{head}place = parser.parse_args()\n{script}\n")
    monkeypatch.setattr(manifest, "submit_script", lambda: path)
    findings = one(monkeypatch, tmp_path, "", "found none")
    assert len(findings) == len(found)
    assert all(wanted in finding for wanted, finding in zip(found, findings, strict=True))


@pytest.mark.parametrize(
    ("code", "predict", "found"),
    [
        ("submit()", False, []),
        ("submit()", True, []),
        ("place.budget_s = 1\nsubmit()", False, ["found 'verdict: complete; .*wanted zeros of an engine"]),
        ("submit()\nsys.exit(3)", True, ["found 'verdict: degraded; .*wanted every volume predicted"]),
        ("sys.exit(3)", False, ["found exit code 1 .*found no such file.*wanted 0"]),
        (
            f"submit(lambda masks: masks.update({{'{mixed.CASE}.tif': mask(2, 3, 4)}}))",
            False,
            [r"found a mask of \(2, 3, 4\), wanted \(40, 48, 56\)"],
        ),
    ],
    ids=["starts", "predicts", "ignores its budget", "lacks a mask", "no zip", "shape"],
)
def test_an_engine_that_does_not_start_as_it_must_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str, predict: bool, found: list[str]
) -> None:
    findings = one(monkeypatch, tmp_path, code, predict=predict)
    assert len(findings) == len(found)
    for wanted, finding in zip(found, findings, strict=True):
        assert re.search(wanted, finding)
