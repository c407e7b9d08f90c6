"""Rehearsals of a fake bundle, in both kinds of isolation; a machine that refuses namespaces tests the other alone.

Here no other Python is found, which `test_pythons` tries; `test_main` goes through all mounts.
"""

import json
import re
import zipfile
from pathlib import Path

import pytest
from package.fake_bundle import SUBMIT, make_bundle, make_competition

from surface_package.build import manifest
from surface_package.rehearsal import enclosure, faults, limits, mixed, pythons
from surface_package.rehearsal import rehearse as rehearsal
from surface_package.rehearsal.pythons import Interpreter
from surface_package.rehearsal.rehearsal_record import RehearsalRecord, record_path
from surface_package.rehearsal.rehearse import Rehearsal, RehearsalError
from surface_package.rehearsal.sandbox import AUDIT_HOOK, NAMESPACES


def rehearse(bundle: Path, data: Path, **more: object) -> RehearsalRecord:
    return rehearsal.rehearse(Rehearsal(bundle=bundle, data=data, **more))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pythons, "find", lambda given=(): {})
    monkeypatch.delenv("CI", raising=False)


@pytest.fixture
def no_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out what takes seconds and is not asked about."""
    monkeypatch.setattr(faults, "mount_cases", lambda *_: [])


@pytest.fixture(params=[NAMESPACES, AUDIT_HOOK])
def isolation(request: pytest.FixtureRequest) -> str:
    if request.param == NAMESPACES and not enclosure.possible():
        pytest.skip("no namespaces for this user here")
    return str(request.param)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_competition(tmp_path / "data", a7=(2, 3, 4), a8=(3, 5, 5))


WITNESS = """
import importlib.util, json
find = importlib.util.find_spec
seen = {
    "modules": [name for name in ("numpy", "torch", "cc3d", "imagecodecs", "surface_score", "pytest") if find(name)],
    "home": os.listdir(os.environ["HOME"]),
    "environment": sorted(set(os.environ) - {"LC_CTYPE"}),
    "bundle": sorted(os.listdir(place.bundle)),
    "mounts": [str(place.bundle), str(place.competition), str(place.out)],
    "ids": (place.competition / "test.csv").read_text().split()[1:],
}
for name in ("bundle", "competition"):
    try:
        (vars(place)[name] / "written").write_text("")
        seen[name + " is writable"] = True
    except OSError:
        pass
submit()
told = json.loads((place.out / "run_report.json").read_text())
(place.out / "run_report.json").write_text(json.dumps(told | {"seen": seen}))
"""


@pytest.mark.usefixtures("no_faults")
def test_a_good_bundle_passes_and_leaves_a_record_and_its_output(tmp_path: Path, data: Path, isolation: str) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    record = rehearse(bundle, data, out=tmp_path / "out", isolation=isolation)
    assert record.findings == ()
    assert (record.passed, record.volumes, record.isolation) == (True, 2, isolation)
    assert 0 < record.wall_s < 60
    assert 10e6 < record.peak_bytes < 1e9
    assert record.manifest_sha256 == manifest.digest(bundle)
    kept = json.loads((tmp_path / "bundle.rehearsed.json").read_text())
    assert kept["passed"] is True
    assert kept["findings"] == []
    assert kept["manifest_sha256"] == manifest.digest(bundle)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["run_report.json", "submission.zip"]
    assert (kept["pythons"], kept["faults"]) == ([], [])
    assert kept["scaled_s"] > kept["wall_s"]
    with zipfile.ZipFile(tmp_path / "out" / "submission.zip") as archive:
        assert archive.namelist() == ["7.tif", "8.tif"]
    assert manifest.verify(bundle) == []


@pytest.mark.usefixtures("no_faults")
def test_the_engine_sees_what_kaggle_would_show_it(tmp_path: Path, data: Path) -> None:
    if not enclosure.possible():
        pytest.skip("no namespaces for this user here")
    bundle = make_bundle(tmp_path / "bundle", WITNESS)
    (bundle / "dataset-metadata.json").write_text("{}")
    record = rehearse(bundle, data, out=tmp_path / "out", isolation=NAMESPACES)
    assert record.findings == ()
    seen = json.loads((tmp_path / "out" / "run_report.json").read_text())["seen"]
    own = ["NUMBA_CACHE_DIR", "PYTHONFAULTHANDLER", "PYTHONPATH", "PYTHONSAFEPATH", "PYTHONUNBUFFERED", "TMPDIR"]
    assert seen == {
        "modules": ["numpy", "torch"],
        "home": [],
        "environment": sorted([*own, "HOME", "LANG", "PATH", "PYTHONDONTWRITEBYTECODE"]),
        "bundle": sorted(path.name for path in bundle.iterdir() if path.name != "dataset-metadata.json"),
        "mounts": [
            "/kaggle/input/datasets/owner/surface-bundle",
            "/kaggle/input/competitions/vesuvius-challenge-surface-detection",
            "/kaggle/working",
        ],
        "ids": ["7,1", "8,1", f"{mixed.CASE},0"],
    }
    assert not (data / "written").exists()


# Each attempt must fail; the last error then ends the engine. What succeeded is said in the report.
REACH = """
import json, pathlib, socket
attempts = {{
    "elsewhere": lambda: pathlib.Path("{outside}/file").write_text("x"),
    "rename": lambda: pathlib.Path("{outside}/kept").rename(place.scratch / "taken"),
    "home": lambda: pathlib.Path(os.environ["HOME"], "file").write_text("x"),
    "input": lambda: (place.bundle / "file").write_text("x"),
    "network": lambda: socket.create_connection(("192.0.2.1", 80), 3),
}}
succeeded = []
for name, attempt in attempts.items():
    try:
        attempt()
        succeeded.append(name)
    except OSError as error:
        last = error
submit()
(place.out / "run_report.json").write_text(json.dumps(succeeded))
raise last
"""


def test_who_reaches_outside_fails(tmp_path: Path, data: Path, isolation: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    bundle = make_bundle(tmp_path / "bundle", REACH.format(outside=outside))
    record = rehearse(bundle, data, out=tmp_path / "out", isolation=isolation)
    assert not record.passed
    assert "expected every volume predicted at the first start, got the verdict 'failed'" in record.findings[0]
    refused = [finding for finding in record.findings if finding.startswith("audit hook: expected no network")]
    assert len(refused) == (5 if isolation == AUDIT_HOOK else 0)
    assert [path.name for path in outside.iterdir()] == ["kept"]
    assert json.loads((tmp_path / "out" / "run_report.json").read_text()) == []
    assert not (tmp_path / "out" / "submission.zip").exists()
    assert json.loads((tmp_path / "bundle.rehearsed.json").read_text())["passed"] is False


def test_an_attempt_that_was_swallowed_is_still_a_finding_under_the_audit_hook(tmp_path: Path, data: Path) -> None:
    code = "import contextlib\nwith contextlib.suppress(OSError):\n    open('/lost', 'w')\nsubmit()"
    record = rehearse(make_bundle(tmp_path / "bundle", code), data, isolation=AUDIT_HOOK)
    (finding,) = record.findings
    assert finding.startswith("audit hook: expected no network and nothing written elsewhere, got open '/lost'")


@pytest.mark.parametrize(
    ("code", "found"),
    [
        (
            "(place.out / 'stray.tif').write_bytes(b''); submit()",
            "expected no .tif beside the zip, got stray.tif",
        ),
        pytest.param(  # test_masks has it too
            "submit(lambda masks: masks.update({'8.tif': masks['7.tif']}))",
            r"8.tif: .* got \(2, 3, 4\)",
            marks=pytest.mark.slow,
        ),
        pytest.param(  # test_submit has it too
            "submit(lambda masks: masks.pop('8.tif'))",
            "expected exit code 0, got 1 .*got no '8.tif'",
            marks=pytest.mark.slow,
        ),
        ("submit(); sys.exit(3)", "got the verdict 'degraded'"),
    ],
    ids=["stray", "shape", "missing", "degraded"],
)
def test_what_would_not_score_as_meant_fails(tmp_path: Path, data: Path, code: str, found: str) -> None:
    record = rehearse(make_bundle(tmp_path / "bundle", code), data)
    assert not record.passed
    (finding,) = record.findings
    assert re.search(found, finding)
    assert finding.endswith(" (the run with the data)")


def test_a_prediction_that_says_nothing_fails(tmp_path: Path, data: Path) -> None:
    code = """
submit()
rows = [{"case": "7", "warning": "", "seconds": 0}]
uniform = {"warning": "the mask is uniform: 0.00% foreground", "seconds": 0}
report([*rows, *({"case": case} | uniform for case in ("8", "made_for_rehearsal"))])
"""
    record = rehearse(make_bundle(tmp_path / "bundle", code), data)
    assert not record.passed
    (finding,) = record.findings
    assert finding.startswith("volume 8: the mask is uniform: 0.00% foreground; run `surface_train audit`")


def test_an_engine_that_does_not_report_fails(tmp_path: Path, data: Path) -> None:
    record = rehearse(make_bundle(tmp_path / "bundle", "submit()\n(place.out / 'run_report.json').unlink()"), data)
    assert not record.passed
    (finding,) = record.findings
    assert finding.startswith("run_report.json: no such file; expected the engine's report on every volume")


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        (
            "    say(result.line())\n    return 0 if",
            "    return 0 if",
            "expected a line 'surface-submit: {…}' that says",
        ),
        ("result.manifest_sha256 = sha256(", 'result.manifest_sha256 = "0" * 64 or sha256(', "expected the bundle's"),
    ],
    ids=["no line", "another manifest"],
)
def test_a_submit_py_that_does_not_say_what_it_did_fails(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, finding: str
) -> None:
    text = SUBMIT.read_text()
    assert old in text
    (tmp_path / "submit.py").write_text(text.replace(old, new))
    monkeypatch.setattr(manifest, "verify", lambda bundle: [])
    monkeypatch.setattr(manifest, "submit_script", lambda: tmp_path / "submit.py")
    record = rehearse(make_bundle(tmp_path / "bundle"), data)
    assert not record.passed
    assert finding in record.findings[0]


@pytest.mark.slow
def test_the_flat_way_of_mounting_is_tried_too(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mount_cases = faults.mount_cases
    monkeypatch.setattr(faults, "mount_cases", lambda *words: [case for case in mount_cases(*words) if not case.reason])
    code = "if place.bundle.parent.name != 'owner':\n    os._exit(70)\nsubmit()"
    record = rehearse(make_bundle(tmp_path / "bundle", code), data, out=tmp_path / "out")
    assert len(record.findings) == 3
    assert all(finding.startswith("submit.py: expected exit code 0, got 1 ") for finding in record.findings)
    ends = ["flat bundle, flat competition", "flat bundle, nested competition", "both of them flat and nested"]
    assert [finding.endswith(f" ({end})") for finding, end in zip(record.findings, ends, strict=True)] == [True] * 3
    assert not (tmp_path / "out" / "submission.zip").exists()


@pytest.mark.usefixtures("no_faults")
def test_what_other_pythons_find_fails(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = [tmp_path / "python3.13"]
    monkeypatch.setattr(pythons, "find", lambda given=(): {"3.13": [Interpreter(*given, "3.13.1")]})
    monkeypatch.setattr(pythons, "install_on", lambda python, *_, isolation: [f"got {python.path.name}"])
    record = rehearse(make_bundle(tmp_path / "bundle"), data, others=given)
    assert (record.passed, record.pythons, record.findings) == (False, ("3.13.1",), ("got python3.13",))


@pytest.mark.slow
@pytest.mark.usefixtures("no_faults")
def test_a_full_rehearsal_predicts_with_every_good_mount(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(faults, "try_mounts", lambda *_, predict, **__: (asked.append(predict), ([], []))[1])
    bundle = make_bundle(tmp_path / "bundle")
    assert [rehearse(bundle, data, full=full).full for full in (False, True)] == asked == [False, True]


@pytest.mark.usefixtures("no_faults")
def test_memory_and_time_are_judged(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
submit()
report([{"case": case, "warning": "", "seconds": 0.25} for case in ("7", "8", "made_for_rehearsal")], "cuda:0")
"""
    bundle = make_bundle(tmp_path / "bundle", code)
    record = rehearse(bundle, data)
    (finding,) = record.findings
    assert finding.startswith("time: expected at most 8.5 h, got: 120 volumes of 320³ would take ")
    assert record.device == "cuda:0"
    voxels = 2 * 3 * 4 + 3 * 5 * 5
    assert record.scaled_s == pytest.approx(0.5 * 120 * 320**3 / voxels + record.wall_s - 0.5, abs=0.06)
    monkeypatch.setattr(limits, "MEMORY_BYTES", 1e6)
    (finding,) = rehearse(bundle, data).findings
    assert finding.startswith("memory: expected at most 0 GB")


def test_data_without_a_volume_fail(tmp_path: Path, data: Path) -> None:
    (data / "test.csv").write_text("id,scroll_id\n")
    (finding,) = rehearse(make_bundle(tmp_path / "bundle"), data).findings
    assert finding == "test.csv: expected at least one id, got none (the run with the data)"


def test_a_bundle_that_is_not_whole_is_not_run(tmp_path: Path, data: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    record_path(bundle).write_text('{"passed": true}')
    (bundle / "settings.json").write_text("changed")
    record = rehearse(bundle, data)
    assert not record.passed
    assert record.findings == ("'settings.json': expected 25 bytes, got 7",)
    assert json.loads(record_path(bundle).read_text())["passed"] is False


def test_a_folder_that_is_no_competition_is_named(tmp_path: Path) -> None:
    with pytest.raises(RehearsalError, match=r"expected a competition folder with test\.csv and test_images/"):
        rehearse(make_bundle(tmp_path / "bundle"), tmp_path)
