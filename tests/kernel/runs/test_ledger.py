import hashlib
import json
from pathlib import Path

import pytest
from scenes import names_in, run_python

from surface_kernel import disk
from surface_kernel.runs import ledger
from surface_kernel.runs.ledger import Kept, Ledger, LedgerError, Record, identity
from surface_kernel.runs.mounts import read_bundle

OF = {"weights": ["w"], "settings": "s", "versions": {"torch": "2"}}
HOW = {"device": {"name": "cpu", "batch": 2}}
TIFF = b"a mask"


@pytest.fixture
def images(tmp_path):
    """Two images; a record of one is right if it says its digest."""
    made = {}
    for case in ("a", "b"):
        made[case] = tmp_path / f"{case}.tif"
        made[case].write_bytes(case.encode())
    return made


def record(images, case="a", stage=0, **changes):
    digest = hashlib.sha256(images[case].read_bytes()).hexdigest()
    entries = {"case": case, "stage": stage, "image_sha256": digest, "sums_crc32": 7, "seconds": 1.5}
    return Record(**{**entries, "variance": 0.25, "incidents": ("one",), **changes})


def put(book, *records, mask=True):
    """Leaves what a worker leaves of units that are done."""
    for each in records:
        mask_file, sums, on_record = book.files(each.case, each.stage)
        if mask:
            mask_file.write_bytes(b"raw mask")
        sums.write_bytes(b"raw sums")
        disk.put(on_record, each.to_bytes())


def keep(book, case="a", stage=0, tiff=TIFF):
    book.keep(case, Kept(stage, hashlib.sha256(tiff).hexdigest(), 0.5), tiff)


@pytest.fixture
def again():
    """Opens ledgers as the next start does, and closes them when the test ends."""
    opened = []

    def open_again(folder, images, of=OF, stages=3):
        opened.append(Ledger(folder, of))
        opened[-1].take_over(images, stages)
        return opened[-1]

    yield open_again
    for book in opened:
        book.close()


@pytest.fixture
def book(tmp_path):
    """A ledger of a run whose device is known."""
    with Ledger(tmp_path / "scratch", OF) as opened:
        opened.agree(HOW)
        yield opened


def test_a_new_ledger_is_empty(tmp_path, images, again):
    book = again(tmp_path / "new" / "scratch", images)
    assert (book.how, book.records, book.kept, book.begun, book.notes) == ({}, {}, {}, set(), [])
    assert names_in(book.folder) == ["lock", "run.json"]


def test_what_is_on_record_is_gone_on_with(book, images, again):
    put(book, record(images, stage=0), record(images, stage=1), record(images, "b"))
    keep(book, "a", 0)
    keep(book, "b", 0, b"another")
    book.close()
    found = again(book.folder, images)
    assert found.how == HOW
    assert found.records == {"a": [record(images, stage=0), record(images, stage=1)], "b": [record(images, "b")]}
    assert {case: tiff for case, (_, tiff) in found.kept.items()} == {"a": TIFF, "b": b"another"}
    assert found.unfinished == [record(images, stage=1)]  # its raw mask has not become the submission's
    assert names_in(found.folder) == [
        *("a.0.json", "a.0.tif", "a.1.json", "a.1.mask", "a.1.sums", "a.kept.json"),
        *("b.0.json", "b.0.sums", "b.0.tif", "b.kept.json", "lock", "run.json"),
    ]


def test_a_later_mask_replaces_an_earlier_one(book, images, again):
    put(book, record(images, stage=0), record(images, stage=1))
    keep(book, stage=0)
    keep(book, stage=1, tiff=b"better")
    assert not any(name.endswith((".mask", "0.tif")) for name in names_in(book.folder))
    book.close()
    found = again(book.folder, images)
    assert found.kept["a"] == (Kept(1, hashlib.sha256(b"better").hexdigest(), 0.5), b"better")
    assert found.unfinished == []


@pytest.mark.parametrize("changed", ["weights", "settings", "versions"])
def test_another_run_is_begun_anew_and_says_what_differs(book, images, changed, again):
    put(book, record(images))
    book.close()
    found = again(book.folder, images, OF | {changed: "other"})
    assert (found.records, found.how, found.begun) == ({}, {}, set())
    assert found.notes == [f"{book.folder}: found a run with other {changed}: begun anew, nothing is mixed"]
    assert names_in(found.folder) == ["lock", "run.json"]


def test_a_changed_image_is_begun_anew_and_the_others_are_not(book, images, again):
    put(book, record(images, stage=0), record(images, stage=1), record(images, "b"))
    keep(book, "a", 0)
    book.close()
    images["a"].write_bytes(b"changed")
    found = again(book.folder, images)
    assert set(found.records) == {"b"}
    assert found.kept == {}
    assert found.notes == ["a: found another image than stage 0 was predicted from: it is begun anew"]
    assert not any(name.startswith("a.") for name in names_in(found.folder))


@pytest.mark.parametrize(
    ("damage", "records", "kept", "note"),
    [
        (lambda at: (at / "a.1.json").unlink(), 0, 0, ""),  # stage 2 without stage 1, and stage 0's mask is gone
        (lambda at: (at / "a.2.json").unlink(), 2, 1, ""),
        (lambda at: (at / "a.2.mask").unlink(), 2, 1, ""),  # nothing says what its mask was
        (lambda at: (at / "a.2.json").write_bytes(b'{"case": "a"'), 2, 1, "a.2.json: found no readable JSON"),
        (lambda at: (at / "a.2.json").write_bytes(b"{}"), 2, 1, "a.2.json: found {}, wanted the entries case,"),
        (lambda at: (at / "a.2.json").write_bytes((at / "a.1.json").read_bytes()), 2, 1, ""),
        (lambda at: (at / "a.1.tif").write_bytes(b"other"), 3, 0, "a.kept.json: found other bytes in its mask"),
        (lambda at: (at / "a.1.tif").unlink(), 3, 0, "a.kept.json: [Errno 2]"),
        (lambda at: (at / "a.kept.json").write_bytes(b"[]"), 3, 0, "a.kept.json: found [], wanted the entries"),
        (lambda at: (at / "run.json").write_bytes(b"nonsense"), 0, 0, "found a ledger that cannot be read"),
        (lambda at: (at / "run.json").write_bytes(b"[" * 100_000), 0, 0, "found a ledger that cannot be read"),
        (lambda at: (at / "run.json").unlink(), 0, 0, ""),
        (lambda at: (at / "a.2.json").write_bytes(b" " * (2 << 20)), 2, 1, "a.2.json: found 2097152 bytes, wanted"),
    ],
)
def test_only_what_is_as_it_seems_is_used(book, images, damage, records, kept, note, again):
    """Stages 0 to 2 are on record, the mask of stage 1 is kept, that of stage 2 waits to be finished."""
    put(book, *(record(images, stage=stage) for stage in range(3)))
    keep(book, stage=0)
    keep(book, stage=1)
    book.close()
    damage(book.folder)
    found = again(book.folder, images)
    assert len(found.records.get("a", [])) == records
    assert len(found.kept) == kept
    assert note in "\n".join(found.notes)
    assert bool(note) is bool(found.notes)


def test_records_without_a_device_are_not_used(tmp_path, images, again):
    book = Ledger(tmp_path / "scratch", OF)
    put(book, record(images))
    book.close()
    assert again(book.folder, images).records == {}


@pytest.mark.parametrize("how", [7, {}, {"device": 7}, {"device": {}}, {"device": {"name": 7}}])
def test_a_device_that_cannot_be_meant_is_none(book, images, how, again):
    put(book, record(images))
    book.close()
    entries = json.loads((book.folder / "run.json").read_text()) | {"how": how}
    (book.folder / "run.json").write_text(json.dumps(entries))
    found = again(book.folder, images)
    assert (found.how, found.records) == ({}, {})


def test_volumes_that_were_under_way_are_told_and_their_pieces_removed(book, images, again):
    for name in ("a.0.mask.17.partial", "b.0.sums.17.partial", "run.json.17.partial", "c.1.json.2.partial"):
        (book.folder / name).write_bytes(b"half")
    book.close()
    found = again(book.folder, images)
    assert found.begun == {"a", "b", "c"}
    assert names_in(found.folder) == ["lock", "run.json"]


def test_more_stages_than_the_settings_ask_for_are_not_used(book, images, again):
    put(book, *(record(images, stage=stage) for stage in range(3)))
    keep(book, stage=0)
    keep(book, stage=1)
    book.close()
    assert len(again(book.folder, images, stages=2).records["a"]) == 2


def test_two_runs_do_not_share_a_ledger(book):
    with pytest.raises(LedgerError, match="found another run at work here, wanted none: name another --scratch"):
        Ledger(book.folder, OF)
    book.close()
    with Ledger(book.folder, OF) as other:
        other.remove()
    assert not book.folder.exists()


def test_the_lock_goes_with_the_process(tmp_path):
    code = """
import os, signal, sys
from pathlib import Path
from surface_kernel.runs.ledger import Ledger
book = Ledger(Path(sys.argv[1]), {})
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert run_python(code, tmp_path / "scratch").returncode == -9
    Ledger(tmp_path / "scratch", {}).close()


def test_sums_are_counted_and_forgotten(book, images):
    put(book, record(images, stage=0), record(images, stage=1), record(images, "b"))
    assert book.sums_bytes() == 3 * len(b"raw sums")
    book.forget("a", 0, "sums")
    book.forget("a", -1, "sums")
    assert book.sums_bytes() == 2 * len(b"raw sums")


def test_records_come_back_as_they_were(images):
    for each in (record(images), record(images, sums_crc32=None, incidents=(), seconds=0)):
        assert Record.from_bytes(each.to_bytes()) == each
    kept = Kept(3, "0" * 64, 0.25)
    assert Kept.from_bytes(kept.to_bytes()) == kept


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
def test_a_record_that_cannot_be_meant_is_refused(images, change):
    entries = json.loads(record(images).to_bytes()) | change
    with pytest.raises(LedgerError, match="wanted"):
        Record.from_bytes(json.dumps(entries).encode())


def test_an_identity_changes_with_whatever_masks_depend_on(tmp_path, weights_file, monkeypatch):
    from scenes import write_bundle

    plain = identity(read_bundle(write_bundle(tmp_path / "1", [weights_file])))
    assert identity(read_bundle(write_bundle(tmp_path / "2", [weights_file]))) == plain
    other = identity(read_bundle(write_bundle(tmp_path / "3", [weights_file], threshold=0.4)))
    assert [name for name in plain if plain[name] != other[name]] == ["settings"]
    twice = tmp_path / "twice.safetensors"
    twice.write_bytes(weights_file.read_bytes())
    other = identity(read_bundle(write_bundle(tmp_path / "4", [weights_file, twice])))
    assert [name for name in plain if plain[name] != other[name]] == ["weights"]
    monkeypatch.setattr(ledger.importlib.metadata, "version", lambda name: "0")
    other = identity(read_bundle(write_bundle(tmp_path / "5", [weights_file])))
    assert [name for name in plain if plain[name] != other[name]] == ["versions"]
    (tmp_path / "package").mkdir()
    monkeypatch.setattr(ledger, "CODE", tmp_path / "package")
    other = identity(read_bundle(write_bundle(tmp_path / "6", [weights_file])))
    assert [name for name in plain if plain[name] != other[name]] == ["code", "versions"]


def test_the_identity_covers_sub_packages_and_where_modules_lie(tmp_path: Path) -> None:
    package = tmp_path / "package"
    (package / "sub").mkdir(parents=True)
    (package / "__init__.py").touch()
    digests = [ledger.digest_of_code(package)]
    for name, text in (("sub/__init__.py", ""), ("sub/a.py", "A = 1\n"), ("sub/a.py", "A = 2\n")):
        (package / name).write_text(text)
        digests.append(ledger.digest_of_code(package))
    (package / "sub" / "a.py").rename(package / "a.py")
    digests.append(ledger.digest_of_code(package))
    assert len(set(digests)) == 5
    (package / "sub" / "notes.txt").write_text("no code")
    assert ledger.digest_of_code(package) == digests[-1]
