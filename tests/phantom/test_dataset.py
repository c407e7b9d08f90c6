import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from surface_kernel.volumes.volume import read
from surface_phantom import Summary, write_dataset
from surface_phantom.dataset import PlannedVolume, plan
from surface_phantom.hardness import DICE_LIMIT, GAP_RANGE, measure

SIZE = (80, 104, 96)
VOLUMES, TESTS = 6, 3


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    return write_dataset(tmp_path_factory.mktemp("phantom"), volumes=VOLUMES, test_volumes=TESTS, size_zyx=SIZE, seed=3)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_layout_is_the_competitions(written: Summary) -> None:
    tifs = {f"{id}.tif" for id in written.train_ids}
    assert names(written.competition) == {
        "train.csv",
        "test.csv",
        "train_images",
        "train_labels",
        "test_images",
        "deprecated_train_images",
        "deprecated_train_labels",
    }
    assert names(written.competition / "train_images") == names(written.competition / "train_labels") == tifs
    assert len(tifs) == VOLUMES
    tests = {f"{id}.tif" for id in written.test_ids}
    assert names(written.competition / "test_images") == tests == names(written.test_labels)
    assert len(tests) == TESTS
    # The answers lie where the kernel, which sees the competition's folder, cannot see them.
    assert written.competition not in written.test_labels.parents


def test_two_rows_of_train_csv_have_no_files(written: Summary) -> None:
    listed = {row["id"] for row in rows(written.competition / "train.csv")}
    assert listed == {*written.train_ids, *written.absent_ids}
    assert len(written.absent_ids) == 2
    absent = {f"{id}.tif" for id in written.absent_ids}
    for kind in ("images", "labels"):
        assert names(written.competition / f"deprecated_train_{kind}") == absent


def test_csv_files_name_ids_and_scrolls(written: Summary) -> None:
    train, test = rows(written.competition / "train.csv"), rows(written.competition / "test.csv")
    assert set(train[0]) == set(test[0]) == {"id", "scroll_id"}
    assert [row["id"] for row in test] == list(written.test_ids)
    assert all(row["id"].isdigit() for row in (*train, *test))
    assert len({row["id"] for row in (*train, *test)}) == VOLUMES + TESTS + 2
    scrolls = Counter(row["scroll_id"] for row in train if row["id"] in written.train_ids)
    assert scrolls == {"26002": 2, "34117": 2, "35360": 2}
    assert {row["scroll_id"] for row in test} == set(scrolls)


def test_files_are_lzw_uint8_and_pair_up(written: Summary) -> None:
    shapes = set()
    folders = ("train_images", "train_labels"), ("deprecated_train_images", "deprecated_train_labels")
    for images, labels in folders:
        for path in (written.competition / images).iterdir():
            image, label = read(path), read(written.competition / labels / path.name)
            assert image.shape == label.shape
            assert set(np.unique(label).tolist()) == {0, 1, 2}
            shapes.add(image.shape)
            with tifffile.TiffFile(path) as tiff:
                assert {page.aspage().compression for page in tiff.pages} == {tifffile.COMPRESSION.LZW}
                assert len(tiff.pages) == image.shape[0]
            with Image.open(path) as first:
                assert first.mode == "L"
    assert SIZE in shapes
    assert len(shapes) > 2
    assert any(len(set(shape)) == 3 for shape in shapes)


def test_every_volume_is_hard(written: Summary) -> None:
    """No grey value gives the surface away: the numbers of the competition's own slices."""
    surface, unseen, margins = [], [], 0
    for id in written.train_ids:
        image = read(written.competition / "train_images" / f"{id}.tif")
        label = read(written.competition / "train_labels" / f"{id}.tif")
        hardness = measure(image, label)
        assert GAP_RANGE[0] <= hardness.gap <= GAP_RANGE[1]
        assert hardness.threshold_dice <= DICE_LIMIT
        surface.append(hardness.surface_share)
        unseen.append(float((label == 2).mean()))
        margins += not image[:, :3].any()
        assert (label[:3] == 2).all()
        assert (label[:, -3:] == 2).all()
        assert (label[:, :, :3] == 2).all()
    assert 0.009 <= min(surface) <= max(surface) <= 0.17
    assert np.mean(surface) == pytest.approx(0.053, abs=0.02)
    assert np.mean(surface) == pytest.approx(written.surface_share)
    assert np.mean(np.add(surface, unseen)) == pytest.approx(0.577, abs=0.12)
    assert 0.08 < float(np.std(np.add(surface, unseen))) < 0.27
    assert 0 < margins < VOLUMES


def test_a_data_set_is_laid_out_by_its_seed_alone() -> None:
    def entries(seed: int) -> list[PlannedVolume]:
        return [
            entry for part in plan(volumes=8, test_volumes=3, size_zyx=(128, 160, 144), seed=seed) for entry in part
        ]

    assert entries(0) == entries(0)
    assert {entry.id for entry in entries(0)}.isdisjoint(entry.id for entry in entries(1))
    assert len({entry.seed for entry in entries(0)}) == 13


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "competition").mkdir()
    with pytest.raises(FileExistsError, match=r"competition: expected a new folder, got an existing one"):
        write_dataset(tmp_path, volumes=1, test_volumes=1, size_zyx=SIZE, seed=0)
    assert names(tmp_path) == {"competition"}
    assert not names(tmp_path / "competition")


@pytest.mark.parametrize(
    ("volumes", "tests", "size", "message"),
    [
        (0, 1, SIZE, "got 0 training and 1 test volumes"),
        (1, 0, SIZE, "got 1 training and 0 test volumes"),
        (1, 1, (80, 47, 80), r"at least 48 voxels per axis, got \(80, 47, 80\)"),
    ],
)
def test_what_cannot_be_made_is_refused_before_anything_is_written(
    tmp_path: Path, volumes: int, tests: int, size: tuple[int, int, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        write_dataset(tmp_path / "out", volumes=volumes, test_volumes=tests, size_zyx=size, seed=0)
    assert not (tmp_path / "out").exists()
