"""What counts as a submission.zip of ours, and whose run a log tells of."""

import hashlib
import zipfile
from pathlib import Path

import pytest
from package.fake_bundle import result_line
from package.kaggle_server import SUBMISSION, log_of, mask_bytes, zip_bytes

from surface_package.kaggle import output
from surface_package.kaggle.delivery import DeliveryError

OURS = "a" * 64
TIFF = mask_bytes()


def test_masks_are_counted(tmp_path) -> None:
    path = tmp_path / "submission.zip"
    path.write_bytes(zip_bytes({"1407735.tif": TIFF, "26002.tif": mask_bytes(pages=1, value=0)}))
    assert output.check_submission(path) == 2


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({}, "holds nothing"),
        ({"1.tif": TIFF, "report.txt": b"x"}, r"holds \['report.txt'\]"),
        ({"masks/1.tif": TIFF}, r"holds \['masks/1.tif'\]"),
        ({"1.seg.tif": TIFF}, r"holds \['1.seg.tif'\]"),  # the scorer would take it for volume 1
        ({".tif": TIFF}, r"holds \['.tif'\]"),
        ({"1.TIF": TIFF}, r"holds \['1.TIF'\]"),
        ({"1.tif": b""}, "1.tif in .*: expected a TIFF, got b'' at its start"),
        ({"1.tif": b"\x89PNG"}, "expected a TIFF, got .* at its start"),
        ({"1.tif": TIFF, "2.tif": TIFF[:40]}, "2.tif in .*: expected a mask that Pillow reads, got "),
        (
            {"1.tif": TIFF, "2.tif": mask_bytes(value=2)},
            r"2.tif in .*: expected .*, got mode L with the values \[2\]",
        ),
        ({"1.tif": mask_bytes(mode="1")}, "got mode 1 "),
        ({"1.tif": mask_bytes(mode="I;16")}, "got mode I;16 "),
    ],
)
def test_anything_else_is_named(tmp_path, files, told) -> None:
    path = tmp_path / "submission.zip"
    path.write_bytes(zip_bytes(files))
    with pytest.raises(DeliveryError, match=told):
        output.check_submission(path)


def test_a_name_twice(tmp_path) -> None:
    path = tmp_path / "submission.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("1.tif", TIFF)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("1.tif", TIFF)
    with pytest.raises(DeliveryError, match=r"\['1.tif', '1.tif'\]"):
        output.check_submission(path)


def test_a_damaged_zip_is_no_fault_of_the_kernels(tmp_path) -> None:
    path = tmp_path / "submission.zip"
    whole = zip_bytes({"1.tif": TIFF})
    for content in (b"<html>503</html>", whole[:-30], whole.replace(TIFF, TIFF[:-1] + b"\1")):
        path.write_bytes(content)
        with pytest.raises(zipfile.BadZipFile):
            output.check_submission(path)


def test_a_mask_beside_the_zip_is_named(tmp_path) -> None:
    (tmp_path / "deep" / "below").mkdir(parents=True)
    (tmp_path / "submission.zip").touch()
    output.check_stray(tmp_path)
    (tmp_path / "deep" / "below" / "1.tif").touch()
    with pytest.raises(DeliveryError, match=r"holds deep/below/1.tif, but no .tif may be beside submission.zip"):
        output.check_stray(tmp_path)


def test_no_zip(tmp_path) -> None:
    with pytest.raises(DeliveryError, match=r"left no submission.zip"):
        output.check_submission(tmp_path / "submission.zip")


def leave(folder: Path, *lines: str) -> None:
    """A run's zip, and its log with these lines."""
    (folder / "submission.zip").write_bytes(SUBMISSION)
    (folder / "vesuvius-surface-kernel.log").write_text(log_of("bundle verified", *lines))


def line(verdict: str = "complete", **entries: object) -> str:
    files = {"submission.zip": hashlib.sha256(SUBMISSION).hexdigest()}
    return result_line("submit", verdict, **{"manifest_sha256": OURS, "files": files} | entries)


def test_a_complete_run_over_our_bundle_passes(tmp_path) -> None:
    leave(tmp_path, line("failed"), line())  # the last one counts
    output.check_result(tmp_path, OURS)


@pytest.mark.parametrize("lines", [(), ("verdict: complete; submission.zip holds 3 masks", f"manifest sha256 {OURS}")])
def test_a_log_without_the_line_is_refused(tmp_path, lines) -> None:
    leave(tmp_path, *lines)
    with pytest.raises(DeliveryError, match=r"kernel\.log: expected a line 'surface-submit: .*got none.*pushes the"):
        output.check_result(tmp_path, OURS)
    (tmp_path / "vesuvius-surface-kernel.log").unlink()
    with pytest.raises(DeliveryError, match=r"\*\.log: expected a line 'surface-submit: .*got none"):
        output.check_result(tmp_path, OURS)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ((line()[:-1],), "line 'surface-submit: …': expected JSON"),
        ((line().replace('"files"', '"left"'),), "expected the entries .*others or fewer: files, left"),
        ((result_line("train", "finished"),), "expected 'complete' or .* of 'submit', got 'finished' of 'train'"),
        ((line(manifest_sha256="b" * 64),), "another bundle: manifest bbbbbbbbbbbbbbbb, not aaaaaaaaaaaaaaaa"),
        ((line(manifest_sha256=""),), "another bundle: manifest unknown, not aaaaaaaaaaaaaaaa"),
        ((line("failed", message="it died"),), r"a run that ended 'failed' \(it died\), not with every volume"),
        ((line(), line("degraded")), "a run that ended 'degraded'"),
        ((line("no submission", files={}),), "a run that ended 'no submission'"),
        ((line(files={}),), "names no submission.zip among what the run left"),
    ],
)
def test_any_other_line_is_refused(tmp_path, lines, told) -> None:
    leave(tmp_path, *lines)
    with pytest.raises(DeliveryError, match=rf"{told}.*pushes the kernel again"):
        output.check_result(tmp_path, OURS)


def test_another_zip_than_the_run_left_came_damaged(tmp_path) -> None:
    leave(tmp_path, line())
    (tmp_path / "submission.zip").write_bytes(zip_bytes({"1.tif": TIFF}))
    with pytest.raises(zipfile.BadZipFile, match="not the one that the run left"):
        output.check_result(tmp_path, OURS)


def test_a_log_that_is_as_it_was_printed_is_read_too(tmp_path) -> None:
    leave(tmp_path)
    for text in (f"prose\n{line()}\n", f'["not as Kaggle writes it"]\n{line()}'):
        (tmp_path / "vesuvius-surface-kernel.log").write_text(text)
        output.check_result(tmp_path, OURS)
