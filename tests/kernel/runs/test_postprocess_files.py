"""`postprocess`: masks and logits of others through the steps."""

import json
import zipfile

import numpy as np
import pytest
from scenes import names_in
from worlds import masks_in

from surface_kernel.postprocess.mask import make_mask
from surface_kernel.postprocess.mask_settings import MaskSettings
from surface_kernel.volumes.image_files import write_lzw
from surface_kernel.volumes.mask_files import write_mask
from surface_kernel.volumes.scanned import scanned_bits
from surface_kernel.volumes.volume import read

SHAPE = (12, 13, 14)
DEFAULT = MaskSettings().with_threshold(0.5)


def mask_of(seed):
    mask = np.zeros(SHAPE, np.uint8)
    mask[2:9, 1:12, 1:13] = 1
    mask[0, np.random.default_rng(seed).integers(0, 13), 3] = 1
    return mask


def as_field(mask):
    return np.where(mask > 0, np.float32(20), np.float32(-20))


@pytest.fixture
def run(kernel, tmp_path):
    def postprocess(source, *arguments, settings=None):
        if settings is not None:
            (tmp_path / "some.toml").write_text(settings)
            arguments = (*arguments, "--settings", tmp_path / "some.toml")
        done = kernel("postprocess", "--input", tmp_path / source, "--out", tmp_path / "out", *arguments)
        record = tmp_path / "out" / "postprocess.json"
        done.record = json.loads(record.read_text()) if record.exists() else None
        return done

    return postprocess


def test_a_folder_of_masks_and_logits_goes_through_the_default_steps(run, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    write_mask(folder / "a.tif", mask_of(1))
    write_lzw(folder / "b.tif", mask_of(2) * np.uint8(255))
    field = np.random.default_rng(0).normal(0, 4, SHAPE).astype(np.float32)
    np.save(folder / "c.npy", field)
    np.save(folder / "d.npy", field.astype(np.float16))
    np.save(folder / "e.npy", mask_of(3))
    (folder / "notes.txt").write_text("left alone")
    done = run("in")
    assert done.code == 0
    assert names_in(tmp_path / "out") == ["a.tif", "b.tif", "c.tif", "d.tif", "e.tif", "postprocess.json"]
    expected = {"a": as_field(mask_of(1)), "b": as_field(mask_of(2)), "c": field}
    expected |= {"d": field.astype(np.float16).astype(np.float32), "e": as_field(mask_of(3))}
    for name, logits in expected.items():
        np.testing.assert_array_equal(read(tmp_path / "out" / f"{name}.tif"), make_mask(logits, None, DEFAULT))
    assert "unscanned voxels were not cleared: there is no --images to know them by" in done.lines
    assert done.record["unscanned_cleared"] is False
    assert done.record["settings"] == DEFAULT.to_entries()
    assert sorted(done.record["volumes"]) == ["a", "b", "c", "d", "e"]


CUT = """
[[postprocess]]
step = "threshold"

[[postprocess]]
step = "slit"
"""


def test_a_submission_becomes_a_submission(run, tmp_path):
    for seed in (1, 2):
        write_mask(tmp_path / f"{seed}.tif", mask_of(seed))
    with zipfile.ZipFile(tmp_path / "submission.zip", "w") as archive:
        for seed in (1, 2):
            archive.write(tmp_path / f"{seed}.tif", f"{seed}.tif")
    assert run("submission.zip", settings=CUT).code == 0
    found = masks_in(tmp_path / "out" / "submission.zip")
    assert sorted(found) == ["1", "2"]
    for seed in (1, 2):
        np.testing.assert_array_equal(found[str(seed)], mask_of(seed))  # without tunnels nothing is cut
    assert names_in(tmp_path / "out") == ["1.tif", "2.tif", "postprocess.json", "submission.zip"]


def test_a_submission_that_would_lack_a_mask_is_not_written(run, tmp_path):
    write_mask(tmp_path / "1.tif", mask_of(1))
    write_lzw(tmp_path / "2.tif", mask_of(2) * np.uint8(7))
    with zipfile.ZipFile(tmp_path / "submission.zip", "w") as archive:
        for seed in (1, 2):
            archive.write(tmp_path / f"{seed}.tif", f"{seed}.tif")
    done = run("submission.zip")
    assert done.code != 0
    assert "error: no submission.zip was written: 1 masks are missing" in done.lines
    assert names_in(tmp_path / "out") == ["1.tif", "postprocess.json"]


def test_a_step_that_fails_is_left_out_and_named(run, tmp_path, monkeypatch):
    def fail(mask):
        mask[:] = 1
        raise MemoryError("no room")

    monkeypatch.setattr("surface_kernel.postprocess.mask.slit", fail)
    write_mask(tmp_path / "a.tif", mask_of(1))
    done = run("a.tif", settings=CUT)
    assert done.code == 0
    assert "error: a: slit failed, the mask before it was kept: MemoryError: no room" in done.lines
    np.testing.assert_array_equal(read(tmp_path / "out" / "a.tif"), mask_of(1))
    assert len(done.record["volumes"]["a"]["left_out"]) == 1


def test_with_images_unscanned_voxels_are_cleared(run, tmp_path):
    image = np.full(SHAPE, 7, np.uint8)
    image[:, :, 7:] = 0
    write_mask(tmp_path / "a.tif", mask_of(1))
    (tmp_path / "ct").mkdir()
    write_lzw(tmp_path / "ct" / "a.tif", image)
    settings = 'postprocess = [{step = "threshold"}, {step = "majority", rounds = 1}]'
    expected = make_mask(
        as_field(mask_of(1)),
        scanned_bits(image),
        MaskSettings.from_entries(
            {"postprocess": [{"step": "threshold", "threshold": 0.5}, {"step": "majority", "rounds": 1}]}
        ),
    )
    for images in ("ct", "ct/a.tif"):
        done = run("a.tif", "--images", tmp_path / images, settings=settings)
        assert (done.code, done.record["unscanned_cleared"]) == (0, True)
        np.testing.assert_array_equal(read(tmp_path / "out" / "a.tif"), expected)
        assert not read(tmp_path / "out" / "a.tif")[:, :, 7:].any()


def test_a_volume_that_cannot_be_used_is_named_and_the_others_are_made(run, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    write_mask(folder / "good.tif", mask_of(1))
    write_lzw(folder / "grey.tif", np.full(SHAPE, 9, np.uint8))
    np.save(folder / "nan.npy", np.full(SHAPE, np.nan, np.float32))
    np.save(folder / "flat.npy", np.zeros((3, 3), np.float32))
    (folder / "torn.npy").write_bytes(b"no array")
    done = run("in")
    assert done.code == 3
    errors = sorted(line for line in done.lines if line.startswith("error: "))
    assert [line.split()[1] for line in errors] == ["flat:", "grey:", "nan:", "torn:"]
    assert "expected a mask of 0 and 1, or of 0 and 255, got the values [9]" in errors[1]
    assert "expected finite logits" in errors[2]
    assert names_in(tmp_path / "out") == ["good.tif", "postprocess.json"]


def test_images_that_do_not_fit_are_named(run, tmp_path):
    write_mask(tmp_path / "a.tif", mask_of(1))
    (tmp_path / "ct").mkdir()
    done = run("a.tif", "--images", tmp_path / "ct")
    assert done.code == 1
    assert any("expected its CT among --images under the name a, got none" in line for line in done.lines)
    write_lzw(tmp_path / "ct" / "a.tif", np.full((3, 4, 5), 9, np.uint8))
    done = run("a.tif", "--images", tmp_path / "ct")
    assert any("got (3, 4, 5)" in line for line in done.lines)


def test_what_cannot_be_meant_is_refused(run, tmp_path):
    write_mask(tmp_path / "a.tif", mask_of(1))
    (tmp_path / "empty").mkdir()
    (tmp_path / "torn.zip").write_bytes(b"no zip")
    assert "expected masks or logits" in run("empty").lines[-1]
    assert "expected a submission.zip, got BadZipFile" in run("torn.zip").lines[-1]
    here = run("a.tif", "--out", tmp_path)
    assert (here.code, "results could replace" in here.lines[-1]) == (1, True)
