"""What counts as a submission.zip of ours, and whose run a log tells of."""

import zipfile

import pytest
from package.kaggle_server import mask_bytes, zip_bytes

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
        ({"1.tif": b""}, "1.tif in .*: found b'' at its start, wanted a TIFF"),
        ({"1.tif": b"\x89PNG"}, "at its start, wanted a TIFF"),
        ({"1.tif": TIFF, "2.tif": TIFF[:40]}, "2.tif in .*: found .*, wanted a mask that Pillow reads"),
        ({"1.tif": TIFF, "2.tif": mask_bytes(value=2)}, r"2.tif in .* mode L with the values \[2\], wanted uint8 of 0"),
        ({"1.tif": mask_bytes(mode="1")}, "a page of mode 1 "),
        ({"1.tif": mask_bytes(mode="I;16")}, "a page of mode I;16 "),
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
    with pytest.raises(DeliveryError, match=r"holds deep/below/1.tif, wanted no .tif beside submission.zip"):
        output.check_stray(tmp_path)


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
