import json
from dataclasses import replace
from pathlib import Path

import pytest
from engines import CPU
from scenes import write_bundle

from surface_kernel.runs import records
from surface_kernel.runs.messages import Done, Ready, Unit
from surface_kernel.runs.mounts import read_bundle
from surface_kernel.runs.records import KeptMask, RecordError, RunConditions, UnitRecord, identity

RECORD = UnitRecord(
    case="a",
    stage=1,
    image_sha256="1" * 64,
    sums_crc32=7,
    seconds=1.5,
    variance=0.25,
    incidents=("one",),
)
KEPT = KeptMask(stage=3, sha256="0" * 64, foreground=0.25, unscanned=0.5)
READY = Ready(
    device=CPU,
    trials=("a trial",),
    tile_s=0.1,
    flop=1.0,
    members=1,
    stages=1,
    passes=1,
    trained_zyx=(32, 32, 32),
    overlap=0.25,
)


def test_records_come_back_as_they_were():
    for each in (RECORD, replace(RECORD, sums_crc32=None, incidents=(), seconds=0)):
        assert UnitRecord.from_bytes(each.to_bytes()) == each
    assert KeptMask.from_bytes(KEPT.to_bytes()) == KEPT


def test_a_record_is_of_what_a_worker_did():
    unit = Unit(case="a", path=Path("a.tif"), shape_zyx=(1, 2, 3), stages=(1,))
    done = Done(unit=unit, seconds=1.5, variance=0.25, incidents=("one",), image_sha256="1" * 64, sums_crc32=7)
    assert UnitRecord.of(done) == RECORD


def test_the_entries_on_disk_are_those_of_earlier_versions():
    names = ["case", "stage", "image_sha256", "sums_crc32", "seconds", "variance", "incidents"]
    assert list(json.loads(RECORD.to_bytes())) == names
    assert json.loads(KEPT.to_bytes()) == {"stage": 3, "sha256": "0" * 64, "foreground": 0.25, "unscanned": 0.5}
    device = {"name": "cpu", "dtype": "float32", "batch": 2, "threads": 1, "layout": "contiguous"}
    device |= {"tile_voxels": 0, "kept_bytes": 0, "compiled": False}
    conditions = RunConditions.of(READY, [(40, 33, 50)])
    expected = {"device": device, "trials": ["a trial"], "tiles": {"40×33×50": [32, 32, 32]}}
    assert conditions.to_mapping() == expected
    assert RunConditions.from_mapping(json.loads(json.dumps(expected))) == conditions


def test_conditions_come_out_of_a_report(tmp_path):
    path = tmp_path / "run_report.json"
    path.write_text(json.dumps({"how": {"device": CPU.to_mapping()}}))
    assert RunConditions.from_report(path).device == CPU


@pytest.mark.parametrize(
    "text", [None, "[", "[]", "{}", '{"how": {}}', '{"how": {"device": {"name": "cpu"}}}', "[" * 100_000]
)
def test_a_report_without_a_device_is_named(tmp_path, text):
    path = tmp_path / "other.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(RecordError, match=r"other\.json: expected a run_report\.json that names a device, got "):
        RunConditions.from_report(path)


@pytest.mark.parametrize(
    "change",
    [
        {"case": 1},
        {"stage": -1},
        {"stage": True},
        {"stage": 1.5},
        {"image_sha256": "A" * 64},
        {"sums_crc32": 1 << 32},
        {"seconds": float("nan")},
        {"seconds": float("inf")},
        {"seconds": 10**400},
        {"seconds": "1"},
        {"variance": -1},
        {"incidents": "one"},
        {"incidents": [1]},
        {"more": 1},
    ],
)
def test_a_record_that_is_not_valid_is_refused(change):
    entries = json.loads(RECORD.to_bytes()) | change
    with pytest.raises(RecordError, match=r"expected .*, got"):
        UnitRecord.from_bytes(json.dumps(entries).encode())


def test_an_identity_changes_with_whatever_masks_depend_on(tmp_path, weights_file, monkeypatch):
    plain = identity(read_bundle(write_bundle(tmp_path / "1", [weights_file])))
    assert identity(read_bundle(write_bundle(tmp_path / "2", [weights_file]))) == plain
    other = identity(read_bundle(write_bundle(tmp_path / "3", [weights_file], threshold=0.4)))
    assert [name for name in plain if plain[name] != other[name]] == ["settings"]
    twice = tmp_path / "twice.safetensors"
    twice.write_bytes(weights_file.read_bytes())
    other = identity(read_bundle(write_bundle(tmp_path / "4", [weights_file, twice])))
    assert [name for name in plain if plain[name] != other[name]] == ["weights"]
    monkeypatch.setattr(records.importlib.metadata, "version", lambda name: "0")
    other = identity(read_bundle(write_bundle(tmp_path / "5", [weights_file])))
    assert [name for name in plain if plain[name] != other[name]] == ["versions"]
    (tmp_path / "package").mkdir()
    monkeypatch.setattr(records, "CODE", tmp_path / "package")
    other = identity(read_bundle(write_bundle(tmp_path / "6", [weights_file])))
    assert [name for name in plain if plain[name] != other[name]] == ["code", "versions"]


def test_the_identity_covers_sub_packages_and_where_modules_lie(tmp_path: Path) -> None:
    package = tmp_path / "package"
    (package / "sub").mkdir(parents=True)
    (package / "__init__.py").touch()
    digests = [records.digest_of_code(package)]
    for name, text in (("sub/__init__.py", ""), ("sub/a.py", "A = 1\n"), ("sub/a.py", "A = 2\n")):
        (package / name).write_text(text)
        digests.append(records.digest_of_code(package))
    (package / "sub" / "a.py").rename(package / "a.py")
    digests.append(records.digest_of_code(package))
    assert len(set(digests)) == 5
    (package / "sub" / "notes.txt").write_text("no code")
    assert records.digest_of_code(package) == digests[-1]
