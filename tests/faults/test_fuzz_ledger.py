"""Mutants of what a ledger holds: whatever lies in its folder, a start resumes what is sound, or starts over."""

import hashlib
import json

import pytest
from engines import CPU
from fuzzing import fuzz

from surface_kernel.runs.ledger import Ledger
from surface_kernel.runs.records import KeptMask, RecordError, RunConditions, UnitRecord

OF = {"weights": ["w"], "settings": "s"}
HOW = RunConditions(device=CPU)
IMAGE = b"an image"
DIGEST = hashlib.sha256(IMAGE).hexdigest()
RECORD = UnitRecord(
    case="a", stage=0, image_sha256=DIGEST, sums_crc32=7, seconds=1.5, variance=0.25, incidents=("one",)
).to_bytes()
KEPT = KeptMask(stage=0, sha256=hashlib.sha256(b"mask").hexdigest(), foreground=0.5, unscanned=0.125).to_bytes()
VALUES = [None, True, -1, 0, 1, 1.5, 1e400, 10**30, "", "a", "\0", [], {}, [[]], {"name": 1}, "0" * 64, DIGEST]


def mutant(dice, content):
    """Changes an entry, or some bytes."""
    if dice.random() < 0.5:
        entries = json.loads(content)
        name = dice.choice(list(entries))
        if dice.random() < 0.2:
            del entries[name]
        else:
            entries[name] = dice.choice(VALUES)
        return json.dumps(entries).encode()
    changed = bytearray(content)
    for _ in range(dice.randint(1, 3)):
        place = dice.randrange(len(changed) + 1)
        match dice.randrange(4):
            case 0:
                changed[place : place + 1] = bytes([dice.randrange(256)])
            case 1:
                del changed[place : place + dice.randint(1, 9)]
            case 2:
                changed[place:place] = changed[place : place + 20]
            case 3:
                changed[place:place] = b"[" * dice.choice([1, 3000])
    return bytes(changed)


@pytest.mark.parametrize(("kind", "content"), [(UnitRecord, RECORD), (KeptMask, KEPT)])
def test_a_mutant_is_read_or_refused(kind, content, long, tally):
    read, refused = [], []

    def check(dice):
        try:
            read.append(kind.from_bytes(mutant(dice, content)))
        except RecordError as error:
            refused.append(str(error))

    executions = fuzz(long, check, 80)
    assert len(read) + len(refused) == executions
    assert all("expected" in message for message in refused)
    assert read
    assert all(kind.from_bytes(each.to_bytes()) == each for each in read[:1000])
    tally("parsers fuzzed: ledger", executions)


def test_a_mutant_of_a_whole_ledger_is_resumed_or_starts_from_scratch(tmp_path, long, tally):
    (tmp_path / "a.tif").write_bytes(IMAGE)
    folder = tmp_path / "ledger"
    with Ledger(folder, OF) as book:
        book.set_conditions(HOW)
    run = (folder / "run.json").read_bytes()
    names = {"run.json": run, "a.0.json": RECORD, "a.kept.json": KEPT, "a.0.tif": b"mask", "a.0.mask": b"raw"}
    resumed = []

    def check(dice):
        for name, content in names.items():
            (folder / name).write_bytes(
                mutant(dice, content) if content[:1] == b"{" and dice.random() < 0.4 else content
            )
        if dice.random() < 0.2:
            (folder / dice.choice(list(names))).unlink()
        with Ledger(folder, OF) as book:
            book.load_records({"a": tmp_path / "a.tif"}, 1)
            resumed.append(len(book.records))
            for kept, tiff in book.kept.values():
                assert hashlib.sha256(tiff).hexdigest() == kept.sha256

    executions = fuzz(long, check, 4)
    assert 0 < sum(resumed) < executions
    tally("parsers fuzzed: ledger", executions)
