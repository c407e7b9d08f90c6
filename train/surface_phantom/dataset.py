"""A data set as the competition lays it out, one volume in memory at a time."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from surface_kernel.volumes.image_files import write_lzw
from surface_phantom.geometry import draw_frame, draw_sheets
from surface_phantom.hardness import measure
from surface_phantom.labels import draw_label
from surface_phantom.looks import LOOKS, Look
from surface_phantom.optics import scan
from surface_phantom.raster import draw_fibres, rasterise

Shape = tuple[int, int, int]

SMALLEST = 48  # voxels a side: below, a volume with wide gaps may not hold two windings
_SCROLLS, _BANDS = 30, 6  # draws before giving up, and bands in each
_MARGIN_ODDS, _MARGIN_WIDEST = 0.25, 7
_DEPRECATED = 2  # rows of train.csv whose files lie elsewhere
_FOLDERS = ("train_images", "train_labels", "test_images", "deprecated_train_images", "deprecated_train_labels")


@dataclass(frozen=True)
class Phantom:
    """One volume: image uint8 grey values, label uint8 {0, 1, 2}, both (z, y, x)."""

    image: npt.NDArray[np.uint8]
    label: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Entry:
    """One volume to be made: where its files go, and what it is made from."""

    id: str
    look: Look
    shape_zyx: Shape
    seed: tuple[int, int]
    image_folder: str
    label_folder: str


@dataclass(frozen=True)
class Summary:
    """What was written, and where. `surface_share` is the mean share of label 1 in the training volumes."""

    competition: Path
    test_labels: Path
    train_ids: tuple[str, ...]
    test_ids: tuple[str, ...]
    absent_ids: tuple[str, ...]  # in train.csv, without files in train_images
    surface_share: float


def make_volume(seed: int | tuple[int, ...], shape_zyx: Shape, look: Look) -> Phantom:
    """Make one volume; the same seed, shape and look give the same bytes, whatever the number of threads.

    The annotators' band is drawn until it is as hard as the competition's (`hardness`); a scroll without such a band
    is drawn anew. Raises ValueError when a side is shorter than SMALLEST, RuntimeError when no scroll will do.
    """
    _check_size(shape_zyx)
    for attempt in range(_SCROLLS):
        scroll, annotator, tomograph = np.random.default_rng([*np.atleast_1d(seed), attempt]).spawn(3)
        frame = draw_frame(scroll, shape_zyx, look)
        sheets = draw_sheets(scroll, shape_zyx, look, frame)
        solid = rasterise(shape_zyx, frame, sheets, draw_fibres(scroll))
        margin = _draw_margin(tomograph)
        image = scan(tomograph, solid.density, look)
        _clear_margin(image, margin)
        for _ in range(_BANDS):
            label = draw_label(annotator, solid, margin)
            if measure(image, label).is_real:
                return Phantom(image, label)
    raise RuntimeError(f"found no band as hard as the competition's for seed {seed} in {_SCROLLS} scrolls, wanted one")


def write_dataset(out: Path, volumes: int, test_volumes: int, size_zyx: Shape, seed: int) -> Summary:
    """Write a data set: out/competition as the competition mounts it, and out/test_labels, which it would hide.

    `size_zyx` is the usual shape; every third volume is smaller or not cubic. Raises FileExistsError when
    out/competition or out/test_labels is there already, and ValueError for sizes that `make_volume` refuses or fewer
    than one volume.
    """
    if volumes < 1 or test_volumes < 1:
        raise ValueError(f"found {volumes} training and {test_volumes} test volumes, wanted at least one of each")
    _check_size(size_zyx)
    competition, test_labels = out / "competition", out / "test_labels"
    for folder in (competition, test_labels):
        if folder.exists():
            raise FileExistsError(f"{folder}: found it there already, wanted a new folder; remove it or name another")
    train, test, absent = plan(volumes, test_volumes, size_zyx, seed)
    for name in _FOLDERS:
        (competition / name).mkdir(parents=True)
    test_labels.mkdir()
    shares = []
    for entry in tqdm((*train, *test, *absent), desc="phantom", unit="volume", disable=None):
        phantom = make_volume(entry.seed, entry.shape_zyx, entry.look)
        write_lzw(out / entry.image_folder / f"{entry.id}.tif", phantom.image)
        write_lzw(out / entry.label_folder / f"{entry.id}.tif", phantom.label)
        shares.append(float((phantom.label == 1).mean()))
    _write_csv(competition / "train.csv", sorted((*train, *absent), key=lambda entry: int(entry.id)))
    _write_csv(competition / "test.csv", test)
    train_ids, test_ids, absent_ids = (tuple(entry.id for entry in entries) for entries in (train, test, absent))
    return Summary(competition, test_labels, train_ids, test_ids, absent_ids, float(np.mean(shares[: len(train)])))


def plan(volumes: int, test_volumes: int, size_zyx: Shape, seed: int) -> tuple[list[Entry], list[Entry], list[Entry]]:
    """Lay out the training volumes, the test volumes and those that train.csv names in vain. Writes nothing."""
    total = volumes + test_volumes + _DEPRECATED
    rng = np.random.default_rng([seed, total])
    numbers = [int(n) for n in rng.choice(4_000_000_000, total, replace=False) + 1_000_000]

    def entry(index: int, place: int, images: str, labels: str, shape: Shape) -> Entry:
        return Entry(str(numbers[index]), LOOKS[place % len(LOOKS)], shape, (seed, index), images, labels)

    train = [
        entry(i, i, "competition/train_images", "competition/train_labels", _vary(size_zyx, i)) for i in range(volumes)
    ]
    test = [
        entry(volumes + i, i, "competition/test_images", "test_labels", _vary(size_zyx, i)) for i in range(test_volumes)
    ]
    absent = [
        entry(
            volumes + test_volumes + i,
            i,
            "competition/deprecated_train_images",
            "competition/deprecated_train_labels",
            (SMALLEST, SMALLEST, SMALLEST),
        )
        for i in range(_DEPRECATED)
    ]
    return train, test, absent


def _vary(size_zyx: Shape, index: int) -> Shape:
    """Return the usual shape, but for one volume in six that is smaller and one in six that has unlike sides."""
    z, y, x = size_zyx
    if index % 6 == 4:
        return max(z * 4 // 5, SMALLEST), max(y * 4 // 5, SMALLEST), max(x * 4 // 5, SMALLEST)
    if index % 6 == 1:
        return z, y * 9 // 8, max(x * 7 // 8, SMALLEST)
    return size_zyx


def _check_size(shape_zyx: Shape) -> None:
    if len(shape_zyx) != 3 or min(shape_zyx) < SMALLEST:
        raise ValueError(f"found a volume of {shape_zyx}, wanted (z, y, x) of at least {SMALLEST} voxels each")


def _draw_margin(rng: np.random.Generator) -> Shape:
    """Draw how many voxels on each side hold no data: mostly none, and seldom along z."""
    if rng.random() >= _MARGIN_ODDS:
        return 0, 0, 0
    wide = rng.integers(3, _MARGIN_WIDEST + 1, 3)
    return int(wide[0]) if rng.random() < 0.3 else 0, int(wide[1]), int(wide[2])


def _clear_margin(image: npt.NDArray[np.uint8], margin_zyx: Shape) -> None:
    for axis, margin in enumerate(margin_zyx):
        if margin:
            sides = np.moveaxis(image, axis, 0)
            sides[:margin] = 0
            sides[-margin:] = 0


def _write_csv(path: Path, entries: list[Entry]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["id", "scroll_id"])
        rows.writerows([entry.id, entry.look.scroll_id] for entry in entries)
