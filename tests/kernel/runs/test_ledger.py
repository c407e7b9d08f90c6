import hashlib
import json

import pytest
from engines import CPU
from scenes import names_in, run_python

from surface_kernel import disk
from surface_kernel.runs.ledger import Ledger, LedgerError
from surface_kernel.runs.records import KeptMask, RunConditions, UnitRecord

OF = {"weights": ["w"], "settings": "s", "versions": {"torch": "2"}}
HOW = RunConditions(device=CPU, trials=("a trial",), tiles={"9×9×9": (8, 8, 8)})
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
    return UnitRecord(**{**entries, "variance": 0.25, "incidents": ("one",), **changes})


def put(book, *records, mask=True):
    """Leaves what a worker leaves of units that are done."""
    for each in records:
        mask_file, sums, on_record = book.files(each.case, each.stage)
        if mask:
            mask_file.write_bytes(b"raw mask")
        sums.write_bytes(b"raw sums")
        disk.put(on_record, each.to_bytes())


def keep(book, case="a", stage=0, tiff=TIFF):
    book.keep(case, kept(stage, tiff), tiff)


def kept(stage, tiff):
    return KeptMask(stage=stage, sha256=hashlib.sha256(tiff).hexdigest(), foreground=0.5)


@pytest.fixture
def again():
    """Opens ledgers as the next start does, and closes them when the test ends."""
    opened = []

    def open_again(folder, images, of=OF, stages=3):
        opened.append(Ledger(folder, of))
        opened[-1].load_records(images, stages)
        return opened[-1]

    yield open_again
    for book in opened:
        book.close()


@pytest.fixture
def book(tmp_path):
    """A ledger of a run whose device is known."""
    with Ledger(tmp_path / "scratch", OF) as opened:
        opened.set_conditions(HOW)
        yield opened


def test_a_new_ledger_is_empty(tmp_path, images, again):
    book = again(tmp_path / "new" / "scratch", images)
    assert (book.conditions, book.records, book.kept, book.interrupted, book.notes) == (None, {}, {}, set(), [])
    assert names_in(book.folder) == ["lock", "run.json"]


def test_what_has_a_record_is_resumed(book, images, again):
    put(book, record(images, stage=0), record(images, stage=1), record(images, "b"))
    keep(book, "a", 0)
    keep(book, "b", 0, b"another")
    book.close()
    found = again(book.folder, images)
    assert found.conditions == HOW
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
    assert found.kept["a"] == (kept(1, b"better"), b"better")
    assert found.unfinished == []


@pytest.mark.parametrize("changed", ["weights", "settings", "versions"])
def test_another_run_starts_from_scratch_and_says_what_differs(book, images, changed, again):
    put(book, record(images))
    book.close()
    found = again(book.folder, images, OF | {changed: "other"})
    assert (found.records, found.conditions, found.interrupted) == ({}, None, set())
    assert found.notes == [f"{book.folder}: ledger belongs to a run with different {changed}; starting from scratch"]
    assert names_in(found.folder) == ["lock", "run.json"]


def test_a_changed_image_starts_over_and_the_others_do_not(book, images, again):
    put(book, record(images, stage=0), record(images, stage=1), record(images, "b"))
    keep(book, "a", 0)
    book.close()
    images["a"].write_bytes(b"changed")
    found = again(book.folder, images)
    assert set(found.records) == {"b"}
    assert found.kept == {}
    assert found.notes == ["a: image changed since stage 0 was predicted; starting over"]
    assert not any(name.startswith("a.") for name in names_in(found.folder))


@pytest.mark.parametrize(
    ("damage", "records", "kept", "note"),
    [
        (lambda at: (at / "a.1.json").unlink(), 0, 0, ""),  # stage 2 without stage 1, and stage 0's mask is gone
        (lambda at: (at / "a.2.json").unlink(), 2, 1, ""),
        (lambda at: (at / "a.2.mask").unlink(), 2, 1, ""),  # nothing says what its mask was
        (
            lambda at: (at / "a.2.json").write_bytes(b'{"case": "a"'),
            2,
            1,
            "a.2.json: expected a record in JSON",
        ),
        (lambda at: (at / "a.2.json").write_bytes(b"{}"), 2, 1, "a.2.json: expected the entries case,"),
        (lambda at: (at / "a.2.json").write_bytes((at / "a.1.json").read_bytes()), 2, 1, ""),
        (lambda at: (at / "a.1.tif").write_bytes(b"other"), 3, 0, "a.kept.json: expected a mask of sha256 "),
        (lambda at: (at / "a.1.tif").unlink(), 3, 0, "a.kept.json: [Errno 2]"),
        (
            lambda at: (at / "a.kept.json").write_bytes(b"[]"),
            3,
            0,
            "a.kept.json: expected the entries foreground,",
        ),
        (lambda at: (at / "run.json").write_bytes(b"nonsense"), 0, 0, "ledger is not readable"),
        (lambda at: (at / "run.json").write_bytes(b"[" * 100_000), 0, 0, "ledger is not readable"),
        (lambda at: (at / "run.json").unlink(), 0, 0, ""),
        (
            lambda at: (at / "a.2.json").write_bytes(b" " * (2 << 20)),
            2,
            1,
            "a.2.json: expected at most 1048576",
        ),
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


@pytest.mark.parametrize(
    "how",
    [
        *(7, {}, [1], {"device": 7}, {"device": {}}),
        *({"device": CPU.to_mapping() | {change: 7.5}} for change in ("name", "batch", "dtype", "compiled", "more")),
        {"device": CPU.to_mapping() | {"batch": 0}},
        {"device": {"name": "cpu"}},
        HOW.to_mapping() | {"trials": "one"},
        HOW.to_mapping() | {"tiles": {"9×9×9": ["8"]}},
    ],
)
def test_conditions_that_are_not_valid_are_none(book, images, how, again):
    put(book, record(images))
    book.close()
    entries = json.loads((book.folder / "run.json").read_text()) | {"how": how}
    (book.folder / "run.json").write_text(json.dumps(entries))
    found = again(book.folder, images)
    assert (found.conditions, found.records) == (None, {})
    assert bool(found.notes) is bool(how)


def test_volumes_that_were_under_way_are_named_and_their_pieces_removed(book, images, again):
    for name in ("a.0.mask.17.partial", "b.0.sums.17.partial", "run.json.17.partial", "c.1.json.2.partial"):
        (book.folder / name).write_bytes(b"half")
    book.close()
    found = again(book.folder, images)
    assert found.interrupted == {"a", "b", "c"}
    assert names_in(found.folder) == ["lock", "run.json"]


def test_more_stages_than_the_settings_ask_for_are_not_used(book, images, again):
    put(book, *(record(images, stage=stage) for stage in range(3)))
    keep(book, stage=0)
    keep(book, stage=1)
    book.close()
    assert len(again(book.folder, images, stages=2).records["a"]) == 2


def test_two_runs_do_not_share_a_ledger(book):
    with pytest.raises(LedgerError, match="in use by another run; stop that one, or name another --scratch"):
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
