"""What counts as a submission.zip of ours, and whose run a log tells of."""

import zipfile

import pytest
from package.kaggle_server import TIFF, zip_bytes

from surface_package import output
from surface_package.delivery import DeliveryError

OURS = "a" * 64


def test_masks_are_counted(tmp_path) -> None:
    path = tmp_path / "submission.zip"
    path.write_bytes(zip_bytes({"1407735.tif": TIFF, "26002.tif": b"MM\0*" + TIFF}))
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
        ({"1.tif": b""}, "starts with b'', not as a TIFF"),
        ({"1.tif": b"\x89PNG"}, "not as a TIFF"),
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


def test_no_zip(tmp_path) -> None:
    with pytest.raises(DeliveryError, match=r"left no submission.zip"):
        output.check_submission(tmp_path / "submission.zip")


def test_a_log_of_another_bundle(tmp_path) -> None:
    output.check_origin(tmp_path, OURS)
    log = tmp_path / "vesuvius-surface-kernel.log"
    log.write_text('[{"stream_name":"stdout","data":"no digest here\\n"}]')
    output.check_origin(tmp_path, OURS)
    log.write_text(f'[{{"data":"bundle verified: 3 files, manifest sha256 {OURS}\\n"}}]')
    output.check_origin(tmp_path, OURS)
    with pytest.raises(DeliveryError, match="another bundle: manifest aaaaaaaaaaaaaaaa, wanted bbbbbbbbbbbbbbbb"):
        output.check_origin(tmp_path, "b" * 64)


def test_a_run_that_was_not_complete(tmp_path) -> None:
    output.check_verdict(tmp_path)
    log = tmp_path / "vesuvius-surface-kernel.log"
    log.write_text(
        '[{"data":"no verdict here\\n"},{"data":"verdict: complete; submission.zip stands with 3 masks\\n"}]'
    )
    output.check_verdict(tmp_path)
    for verdict in ("failed; submission.zip stands with 3 masks", "degraded; submission.zip stands", "no submission"):
        log.write_text(f'[{{"data":"verdict: complete; of an earlier start\\n"}},{{"data":"verdict: {verdict}\\n"}}]')
        with pytest.raises(DeliveryError, match=f"a run that ended '{verdict}', wanted every volume predicted"):
            output.check_verdict(tmp_path)
