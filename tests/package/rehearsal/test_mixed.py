import zipfile
from pathlib import Path

import numpy as np
import pytest
from package.fake_bundle import make_competition

from surface_kernel.runs.mounts import read_test_images
from surface_kernel.volumes.header import read_header
from surface_kernel.volumes.mask_files import mask_bytes
from surface_package.rehearsal import mixed


def test_the_data_stay_as_they_are_and_one_small_volume_comes_last(tmp_path: Path) -> None:
    data = make_competition(tmp_path / "data", a7=(2, 3, 4), a8=(3, 5, 5))
    (data / "train_images").mkdir()
    (data / "train_images" / "9.tif").write_bytes(b"nine")
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    made = mixed.mix(data, tmp_path / "mixed")
    assert list(read_test_images(made)) == ["7", "8", mixed.CASE]
    assert read_header(made / "test_images" / f"{mixed.CASE}.tif").shape_zyx == mixed.SHAPE_ZYX
    for path, content in before.items():
        if path.name != "test.csv":
            assert (made / path.relative_to(data)).read_bytes() == content
    assert {path: path.read_bytes() for path in data.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("table", "last"),
    [
        ("scroll_id,id\n5,7", f"0,{mixed.CASE}"),
        ("scroll_id,id\r\n5,7\r\n\r\n", f"0,{mixed.CASE}"),
        ("\ufeffid,scroll_id\n7,5\n", f"{mixed.CASE},0"),
        ("id\n7\n", mixed.CASE),
    ],
)
def test_a_row_fits_the_columns_whatever_their_order(tmp_path: Path, table: str, last: str) -> None:
    data = make_competition(tmp_path / "data", a7=(2, 3, 4))
    (data / "test.csv").write_text(table, encoding="utf-8", newline="")
    made = mixed.mix(data, tmp_path / "mixed")
    assert list(read_test_images(made)) == ["7", mixed.CASE]
    assert (made / "test.csv").read_text().splitlines()[-1] == last


def test_the_small_volume_alone_is_a_competition_too(tmp_path: Path) -> None:
    (path,) = read_test_images(mixed.make_small(tmp_path / "small")).values()
    assert read_header(path).shape_zyx == mixed.SHAPE_ZYX


def test_a_submission_without_the_small_volume_is_that_of_the_data_byte_by_byte(tmp_path: Path) -> None:
    masks = {f"{name}.tif": mask_bytes(np.full((2, 3, 4), number, np.uint8)) for number, name in enumerate("ab")}
    for name, members in (("data", masks), ("mixed", {**masks, f"{mixed.CASE}.tif": b"small"})):
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_STORED) as archive:
            for member in sorted(members):
                archive.writestr(zipfile.ZipInfo(member, (1980, 1, 1, 0, 0, 0)), members[member])
    assert mixed.without_small(tmp_path / "mixed") == (tmp_path / "data").read_bytes()
