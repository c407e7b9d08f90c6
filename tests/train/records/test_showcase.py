import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from surface_kernel.volumes import volume
from surface_kernel.volumes.image_files import write_lzw
from surface_kernel.volumes.mask_files import write_mask
from surface_train.records.showcase import compare, main


@pytest.fixture
def shown(tmp_path: Path) -> tuple[Path, Path, Path]:
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
    start = np.zeros((8, 8, 8), np.uint8)
    start[4] = 1  # a plane beside the surface
    (tmp_path / "start").mkdir()
    write_mask(tmp_path / "start" / "5.tif", start)
    return data, tmp_path / "submission.zip", tmp_path / "start"


def test_mask_and_best_threshold_are_scored_on_labelled_voxels(shown: tuple[Path, Path, Path]) -> None:
    data, submission, start = shown
    (row,) = compare(data, submission, start)
    assert row.case == "5"
    assert row.score.dice == pytest.approx(2 * 64 / (128 + 128))
    assert row.start.dice == 0
    # At grey >= 200: all 128 surface voxels and 3 half planes of 32; plane 7 does not count.
    assert row.threshold_dice == pytest.approx(2 * 128 / (128 + 96 + 128))


def test_a_page_a_picture_and_a_verdict_are_left(shown: tuple[Path, Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    assert _run(shown, out) == 4
    text = (out / "report.txt").read_text()
    assert "Mean Dice 0.500" in text
    assert "began with reach Dice 0.000" in text
    assert "reaches Dice 0.727" in text
    assert "of the truth: NOT met." in text
    assert "expected a mean Dice of at least 0.877" in text
    assert "surface_package publish" in text
    assert (out / "picture.png").read_bytes().startswith(b"\x89PNG")
    verdict = json.loads((out / "verdict.json").read_text())
    assert (verdict["met"], verdict["dice"], verdict["start_dice"]) == (False, 0.5, 0.0)
    assert sorted(path.name for path in out.iterdir()) == ["picture.png", "report.txt", "verdict.json"]


def test_a_submission_that_is_the_truth_meets_the_bar(shown: tuple[Path, Path, Path], tmp_path: Path) -> None:
    data, submission, _ = shown
    mask = (volume.read(data / "test_labels" / "5.tif") == 1).astype(np.uint8)
    write_mask(tmp_path / "5.tif", mask)
    with zipfile.ZipFile(submission, "w") as archive:
        archive.write(tmp_path / "5.tif", "5.tif")
    assert _run(shown, tmp_path) == 0
    assert "of the truth: met." in (tmp_path / "report.txt").read_text()
    assert json.loads((tmp_path / "verdict.json").read_text())["faults"] == []


def _run(shown: tuple[Path, Path, Path], out: Path) -> int:
    data, submission, start = map(str, shown)
    return main(["--data", data, "--submission", submission, "--start", start, "--out", str(out)])


def test_without_a_start_nothing_is_said_of_one(shown: tuple[Path, Path, Path], tmp_path: Path) -> None:
    data, submission, _ = map(str, shown)
    assert main(["--data", data, "--submission", submission, "--out", str(tmp_path)]) == 4
    assert "began with" not in (tmp_path / "report.txt").read_text()
    assert json.loads((tmp_path / "verdict.json").read_text())["start_dice"] is None
