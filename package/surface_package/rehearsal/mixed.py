"""The competition as a rehearsal shows it: the volumes of a competition folder, and a small one made for it.

The data may hold one shape only, as Kaggle's visible test does. The made volume, smaller than most tiles and no cube,
makes one process predict more than one shape; it is taken out of the submission that is kept.
"""

import csv
import io
import zipfile
from pathlib import Path

import numpy as np

from surface_kernel.volumes.image_files import write_lzw

CASE = "made_for_rehearsal"
SHAPE_ZYX = (40, 48, 56)


def mix(data: Path, folder: Path) -> Path:
    """Make a competition folder of links to another one's content, with the small volume as its last test volume."""
    images = folder / "test_images"
    images.mkdir(parents=True)
    _make_volume(images)  # before any link: it must not be written through one
    for path in data.iterdir():
        if path.name not in ("test.csv", "test_images"):
            (folder / path.name).symlink_to(path)
    for path in (data / "test_images").iterdir():
        (images / path.name).symlink_to(path)
    table = (data / "test.csv").read_text(encoding="utf-8-sig")
    columns = next(csv.reader(io.StringIO(table)), [])
    row = [CASE if column == "id" else "0" for column in columns]
    (folder / "test.csv").write_text(f"{table.rstrip()}\n{','.join(row)}\n", encoding="utf-8")
    return folder


def make_small(folder: Path) -> Path:
    """Make a competition folder with the small volume alone."""
    (folder / "test_images").mkdir(parents=True)
    _make_volume(folder / "test_images")
    (folder / "test.csv").write_text(f"id,scroll_id\n{CASE},0\n", encoding="utf-8")
    return folder


def _make_volume(images: Path) -> None:
    noise = np.random.default_rng(0).normal(90, 25, SHAPE_ZYX).clip(0, 255).astype(np.uint8)
    write_lzw(images / f"{CASE}.tif", noise)


def without_small(submission: Path) -> bytes:
    """Return a submission's bytes without the small volume's mask: as if only the data had been predicted."""
    content = io.BytesIO()
    with zipfile.ZipFile(submission) as mixed, zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        for entry in mixed.infolist():
            if entry.filename != f"{CASE}.tif":
                archive.writestr(entry, mixed.read(entry))
    return content.getvalue()
