import zipfile
from pathlib import Path

import numpy as np
import pytest

from surface_kernel.volumes.image_files import write_lzw
from surface_kernel.volumes.mask_files import write_mask
from surface_train.records.showcase import compare, main


@pytest.fixture
def shown(tmp_path: Path) -> tuple[Path, Path]:
    """One test case, 8×8×8: planes z = 2, 3 are surface of grey 200, plane 7 unlabelled, half of the rest 200 too."""
    image, label = np.full((8, 8, 8), 100, np.uint8), np.zeros((8, 8, 8), np.uint8)
    image[2:4], image[4:, :, :4] = 200, 200
    label[2:4], label[7] = 1, 2
    mask = np.zeros((8, 8, 8), np.uint8)
    mask[3:5] = 1  # one plane right, one wrong, one missed
    data = tmp_path / "data"
    for folder in ("competition/test_images", "test_labels"):
        (data / folder).mkdir(parents=True)
    write_lzw(data / "competition" / "test_images" / "5.tif", image)
    write_lzw(data / "test_labels" / "5.tif", label)
    write_mask(tmp_path / "5.tif", mask)
    with zipfile.ZipFile(tmp_path / "submission.zip", "w") as archive:
        archive.write(tmp_path / "5.tif", "5.tif")
    return data, tmp_path / "submission.zip"


def test_mask_and_best_threshold_are_scored_on_labelled_voxels(shown: tuple[Path, Path]) -> None:
    (row,) = compare(*shown)
    assert row.case == "5"
    assert row.score.dice == pytest.approx(2 * 64 / (128 + 128))
    # At grey >= 200: all 128 surface voxels and 3 half planes of 32; plane 7 does not count.
    assert row.threshold_dice == pytest.approx(2 * 128 / (128 + 96 + 128))


def test_a_page_and_a_picture_are_left(shown: tuple[Path, Path], tmp_path: Path) -> None:
    data, submission = shown
    out = tmp_path / "out"
    out.mkdir()
    assert main(["--data", str(data), "--submission", str(submission), "--out", str(out)]) == 0
    text = (out / "report.txt").read_text()
    assert "Mean Dice 0.500" in text
    assert "reaches Dice 0.727" in text
    assert "of the truth: NOT met." in text
    assert "surface_package publish" in text
    assert (out / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in out.iterdir()) == ["picture.png", "report.txt"]
