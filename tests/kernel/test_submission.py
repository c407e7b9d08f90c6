import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageSequence
from scenes import names_in, noise

from surface_kernel.submission import Submission, SubmissionError
from surface_kernel.volume import VolumeError

SHAPES_ZYX = {"9": (3, 4, 5), "10": (4, 3, 3), "1": (3, 4, 5)}


def masks_in(path):
    """Reads every mask as the scorer does."""
    found = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            with Image.open(io.BytesIO(archive.read(name))) as image:
                found[name] = np.stack([np.asarray(page) for page in ImageSequence.Iterator(image)])
    return found


def random_mask(case):
    return (noise(SHAPES_ZYX[case], int(case)) > 128).astype(np.uint8)


@pytest.fixture
def submission(tmp_path):
    return Submission(SHAPES_ZYX, tmp_path / "out", tmp_path / "scratch")


def test_zeros_stand_at_once(submission):
    submission.check()
    masks = masks_in(submission.path)
    assert {name: mask.shape for name, mask in masks.items()} == {f"{c}.tif": shape for c, shape in SHAPES_ZYX.items()}
    assert not any(mask.any() for mask in masks.values())


def test_the_zip_is_sorted_dated_1980_and_stored(submission):
    with zipfile.ZipFile(submission.path) as archive:
        assert archive.namelist() == ["1.tif", "10.tif", "9.tif"]
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}


def test_a_better_mask_replaces_zeros_when_the_zip_is_written(submission):
    submission.put("10", random_mask("10"))
    assert not masks_in(submission.path)["10.tif"].any()
    submission.write()
    submission.check()
    masks = masks_in(submission.path)
    np.testing.assert_array_equal(masks["10.tif"], random_mask("10"))
    assert not masks["9.tif"].any()


def test_the_same_masks_make_the_same_bytes_in_whatever_order(tmp_path):
    digests = set()
    for number, cases in enumerate((["1", "9", "10"], ["10", "1", "9"])):
        shapes_zyx = {case: SHAPES_ZYX[case] for case in cases}
        made = Submission(shapes_zyx, tmp_path / f"out{number}", tmp_path / f"scratch{number}")
        for case in reversed(cases):
            made.put(case, random_mask(case))
        made.write()
        digests.add(hashlib.sha256(made.path.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_no_tif_lies_in_the_output_folder(submission):
    submission.put("1", random_mask("1"))
    submission.write()
    assert names_in(submission.path.parent) == ["submission.zip"]


def test_a_mask_of_another_shape_is_refused_and_the_old_one_stays(submission):
    submission.put("1", random_mask("1"))
    with pytest.raises(SubmissionError, match=r"1: found a mask of \(5, 4, 3\), wanted \(3, 4, 5\)"):
        submission.put("1", np.zeros((5, 4, 3), np.uint8))
    with pytest.raises(VolumeError, match="found the value 2"):
        submission.put("1", np.full((3, 4, 5), 2, np.uint8))
    submission.write()
    np.testing.assert_array_equal(masks_in(submission.path)["1.tif"], random_mask("1"))


def test_a_failure_while_writing_leaves_the_zip_that_stood(submission, monkeypatch):
    before = submission.path.read_bytes()
    submission.put("1", random_mask("1"))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
        with pytest.raises(OSError, match="no space left"):
            submission.write()
    assert submission.path.read_bytes() == before
    assert names_in(submission.path.parent) == ["submission.zip"]


def rezip(path, change):
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    change(contents)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)


def tiff(volume):
    file = io.BytesIO()
    tifffile.imwrite(file, volume, photometric="minisblack")
    return file.getvalue()


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda masks: masks.pop("9.tif"), "found 2 members, wanted 3"),
        (lambda masks: masks.update({"stray.tif": masks["9.tif"]}), "found 4 members, wanted 3"),
        (lambda masks: masks.update({"9.tif": masks["10.tif"]}), r"9: found a page of uint8 \(3, 3\)"),
        (lambda masks: masks.update({"9.tif": tiff(np.zeros((2, 4, 5), np.uint8))}), "9: found 2 pages, wanted 3"),
        (lambda masks: masks.update({"9.tif": tiff(np.full((3, 4, 5), 2, np.uint8))}), "wanted .* of 0, 1"),
        (lambda masks: masks.update({"9.tif": tiff(np.ones((3, 4, 5), np.uint16))}), "found a page of uint16"),
        (lambda masks: masks.update({"9.tif": masks["9.tif"][:-3]}), "cannot be read"),
        (lambda masks: masks.update({"9.tif": b"nonsense"}), "cannot be read"),
    ],
)
def test_a_mask_that_is_not_what_it_should_be_is_found(submission, change, found):
    rezip(submission.path, change)
    with pytest.raises(SubmissionError, match=found):
        submission.check()


@pytest.mark.parametrize("damage", [lambda content: content[:-30], lambda content: content.replace(b"II*", b"II+", 1)])
def test_a_damaged_zip_is_found(submission, damage):
    submission.path.write_bytes(damage(submission.path.read_bytes()))
    with pytest.raises(SubmissionError, match=r"submission\.zip: found a zip that cannot be read"):
        submission.check()
