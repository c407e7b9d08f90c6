"""A data set as the competition lays it out, one volume in memory at a time."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from surface_kernel import disk
from surface_kernel.volumes.image_files import write_lzw
from surface_phantom.looks import LOOKS, Look
from surface_phantom.phantom import SMALLEST, Shape, check_size, make_volume

_DEPRECATED = 2  # rows of train.csv whose files lie in the deprecated folders, as in the competition
_FOLDERS = ("train_images", "train_labels", "test_images", "deprecated_train_images", "deprecated_train_labels")


@dataclass(frozen=True, kw_only=True)
class PlannedVolume:
    """One volume to generate: where its files go, and what it is made from."""

    id: str
    look: Look
    shape_zyx: Shape
    seed: tuple[int, int]
    image_folder: str
    label_folder: str


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What was written, and where."""

    competition: Path
    """The folder laid out as the competition mounts it."""
    test_labels: Path
    """The labels of the test volumes, outside `competition`."""
    train_ids: tuple[str, ...]
    test_ids: tuple[str, ...]
    absent_ids: tuple[str, ...]
    """Ids in train.csv that have no files in train_images."""
    surface_share: float
    """Mean share of label 1 in the training volumes."""


def write_dataset(
    out: Path, *, volumes: int, test_volumes: int, size_zyx: Shape, seed: int, looks: Sequence[Look] = LOOKS
) -> Summary:
    """Write a data set: out/competition as the competition mounts it, and out/test_labels, which it would hide.

    Args:
        out: The parent folder, created if missing.
        volumes: How many training volumes, at least 1.
        test_volumes: How many test volumes, at least 1.
        size_zyx: The usual shape in voxels; one volume in six is smaller, and one in six has unequal sides.
        seed: Fixes ids, shapes and contents.
        looks: Of the scrolls, which take turns.

    Returns:
        The folders, the ids and the mean share of label 1.

    Raises:
        FileExistsError: If out/competition or out/test_labels exists already.
        ValueError: For fewer than one volume, or sizes that `make_volume` refuses.
    """
    if volumes < 1 or test_volumes < 1:
        raise ValueError(
            f"expected at least 1 training and 1 test volume, got {volumes} training and {test_volumes} test volumes"
        )
    check_size(size_zyx)
    competition, test_labels = out / "competition", out / "test_labels"
    for folder in (competition, test_labels):
        if folder.exists():
            raise FileExistsError(f"{folder}: expected a new folder, got an existing one; remove it or name another")
    train, test, absent = plan(volumes=volumes, test_volumes=test_volumes, size_zyx=size_zyx, seed=seed, looks=looks)
    for name in _FOLDERS:
        (competition / name).mkdir(parents=True)
    test_labels.mkdir()
    shares = []
    for planned in tqdm((*train, *test, *absent), desc="phantom", unit="volume", disable=None):
        phantom = make_volume(planned.seed, planned.shape_zyx, planned.look)
        write_lzw(out / planned.image_folder / f"{planned.id}.tif", phantom.image)
        write_lzw(out / planned.label_folder / f"{planned.id}.tif", phantom.label)
        shares.append(float((phantom.label == 1).mean()))
    _write_csv(competition / "train.csv", sorted((*train, *absent), key=lambda planned: int(planned.id)))
    _write_csv(competition / "test.csv", test)
    return Summary(
        competition=competition,
        test_labels=test_labels,
        train_ids=tuple(planned.id for planned in train),
        test_ids=tuple(planned.id for planned in test),
        absent_ids=tuple(planned.id for planned in absent),
        surface_share=float(np.mean(shares[: len(train)])),
    )


def plan(
    *, volumes: int, test_volumes: int, size_zyx: Shape, seed: int, looks: Sequence[Look] = LOOKS
) -> tuple[list[PlannedVolume], list[PlannedVolume], list[PlannedVolume]]:
    """Return the training volumes, the test volumes, and those in train.csv whose files lie in the deprecated folders.

    The arguments are those of `write_dataset`. Nothing is written.
    """
    total = volumes + test_volumes + _DEPRECATED
    rng = np.random.default_rng([seed, total])
    # From 7 to 10 digits, as the competition's ids.
    ids = [str(int(n) + 1_000_000) for n in rng.choice(4_000_000_000, total, replace=False)]

    def planned(
        indices: range, *, image_folder: str, label_folder: str, shapes: Sequence[Shape]
    ) -> list[PlannedVolume]:
        return [
            PlannedVolume(
                id=ids[index],
                look=looks[place % len(looks)],
                shape_zyx=shape,
                seed=(seed, index),
                image_folder=image_folder,
                label_folder=label_folder,
            )
            for place, (index, shape) in enumerate(zip(indices, shapes, strict=True))
        ]

    train = planned(
        range(volumes),
        image_folder="competition/train_images",
        label_folder="competition/train_labels",
        shapes=[_vary(size_zyx, place) for place in range(volumes)],
    )
    test = planned(
        range(volumes, volumes + test_volumes),
        image_folder="competition/test_images",
        label_folder="test_labels",
        shapes=[_vary(size_zyx, place) for place in range(test_volumes)],
    )
    absent = planned(
        range(volumes + test_volumes, total),
        image_folder="competition/deprecated_train_images",
        label_folder="competition/deprecated_train_labels",
        shapes=[(SMALLEST,) * 3] * _DEPRECATED,
    )
    return train, test, absent


def _vary(size_zyx: Shape, index: int) -> Shape:
    """Return the usual shape, but for one volume in six that is smaller and one in six that has unequal sides."""
    z, y, x = size_zyx
    if index % 6 == 4:
        return max(z * 4 // 5, SMALLEST), max(y * 4 // 5, SMALLEST), max(x * 4 // 5, SMALLEST)
    if index % 6 == 1:
        return z, y * 9 // 8, max(x * 7 // 8, SMALLEST)
    return size_zyx


def _write_csv(path: Path, planned: Sequence[PlannedVolume]) -> None:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["id", "scroll_id"])
    rows.writerows([volume.id, volume.look.scroll_id] for volume in planned)
    disk.put(path, text.getvalue().encode())
