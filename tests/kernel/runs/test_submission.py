import hashlib
import zipfile
from pathlib import Path

import numpy as np
import pytest
from scenes import names_in, noise
from worlds import masks_in

from surface_kernel.runs.submission import Submission, SubmissionError
from surface_kernel.volumes.mask_files import mask_bytes

SHAPES_ZYX = {"9": (3, 4, 5), "10": (4, 3, 3), "1": (3, 4, 5)}


def random_mask(case):
    return (noise(SHAPES_ZYX[case], int(case)) > 128).astype(np.uint8)


def put(submission, case):
    submission.put(case, mask_bytes(random_mask(case)))


@pytest.fixture
def submission(tmp_path):
    made = Submission(SHAPES_ZYX, tmp_path / "out")
    made.write()
    return made


def test_zeros_stand_at_once(submission):
    submission.check()
    masks = masks_in(submission.path)
    assert {case: mask.shape for case, mask in masks.items()} == SHAPES_ZYX
    assert not any(mask.any() for mask in masks.values())


def test_the_zip_is_sorted_dated_1980_and_stored(submission):
    with zipfile.ZipFile(submission.path) as archive:
        assert archive.namelist() == ["1.tif", "10.tif", "9.tif"]
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}


def test_a_better_mask_replaces_zeros_when_the_zip_is_written(submission):
    put(submission, "10")
    assert not masks_in(submission.path)["10"].any()
    assert submission.changed
    submission.write()
    assert not submission.changed
    submission.check()
    masks = masks_in(submission.path)
    np.testing.assert_array_equal(masks["10"], random_mask("10"))
    assert not masks["9"].any()


def test_the_same_masks_make_the_same_bytes_in_whatever_order(tmp_path):
    digests = set()
    for number, cases in enumerate((["1", "9", "10"], ["10", "1", "9"])):
        made = Submission({case: SHAPES_ZYX[case] for case in cases}, tmp_path / f"out{number}")
        for case in reversed(cases):
            put(made, case)
        made.write()
        digests.add(hashlib.sha256(made.path.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_nothing_but_the_zip_lies_in_the_output_folder(submission):
    put(submission, "1")
    submission.write()
    assert names_in(submission.path.parent) == ["submission.zip"]


def test_a_mask_of_an_unknown_id_is_refused(submission):
    with pytest.raises(SubmissionError, match=r"expected masks for the ids of test\.csv only, got one for '2'"):
        submission.put("2", b"")


def test_a_failure_while_writing_leaves_the_zip_that_stood(submission, monkeypatch):
    before = submission.path.read_bytes()
    put(submission, "1")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
        with pytest.raises(OSError, match="no space left"):
            submission.write()
    assert submission.path.read_bytes() == before
    assert submission.changed
    assert names_in(submission.path.parent) == ["submission.zip"]


def test_what_a_killed_start_left_is_removed(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "submission.zip.123.partial").write_bytes(b"half")
    Submission(SHAPES_ZYX, tmp_path / "out")
    assert names_in(tmp_path / "out") == []


def test_an_earlier_zip_counts_if_it_is_of_the_same_ids(tmp_path, submission):
    assert submission.exists()
    assert not Submission({**SHAPES_ZYX, "2": (1, 1, 1)}, tmp_path / "out").exists()
    submission.path.write_bytes(submission.path.read_bytes()[:-30])
    assert not submission.exists()
    submission.path.unlink()
    assert not submission.exists()


def rezip(path, change):
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    change(contents)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda masks: masks.pop("9.tif"), "expected 3 members, one per id, got 2"),
        (lambda masks: masks.update({"stray.tif": masks["9.tif"]}), "expected 3 members, one per id, got 4"),
        (lambda masks: masks.update({"9.tif": masks["10.tif"]}), "expected the mask of 9, got other bytes"),
        (lambda masks: masks.update({"9.tif": masks["9.tif"][:-3]}), "expected the mask of 9, got"),
        (lambda masks: masks.update({"9.tif": b"nonsense"}), "expected the mask of 9, got"),
    ],
)
def test_a_mask_that_is_not_what_it_should_be_is_found(submission, change, found):
    rezip(submission.path, change)
    with pytest.raises(SubmissionError, match=found):
        submission.check()


@pytest.mark.parametrize("damage", [lambda content: content[:-30], lambda content: content.replace(b"II*", b"II+", 1)])
def test_a_damaged_zip_is_found(submission, damage):
    submission.path.write_bytes(damage(submission.path.read_bytes()))
    with pytest.raises(SubmissionError, match=r"submission\.zip: expected a readable zip of masks, got "):
        submission.check()
