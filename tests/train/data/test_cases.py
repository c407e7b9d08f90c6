from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from surface_kernel.volumes.header import VolumeError
from surface_kernel.volumes.image_files import write_lzw
from surface_train.data import cases
from surface_train.data.cases import Case, CasesError


def dot(value: int = 1, shape: tuple[int, int, int] = (2, 3, 4)) -> np.ndarray:
    return np.full(shape, value, np.uint8)


def test_rows_without_files_are_counted_and_the_order_is_the_tables(
    tmp_path: Path, write_case: Callable, write_table: Callable
) -> None:
    for name in ("7", "3"):
        write_case(tmp_path, name, "5", dot(), dot())
    lonely = write_case(tmp_path, "4", "5", dot(), dot())
    lonely.label.unlink()
    write_table(tmp_path, [("7", "5"), ("8", "6"), ("4", "5"), ("3", "5")])
    found, missing = cases.read(tmp_path)
    assert [case.name for case in found] == ["7", "3"]
    assert missing == 2
    files = {"image": tmp_path / "train_images/7.tif", "label": tmp_path / "train_labels/7.tif"}
    assert found[0] == Case(name="7", scroll="5", **files)


def test_no_case_at_all_is_an_error(tmp_path: Path, write_table: Callable) -> None:
    write_table(tmp_path, [("1", "5"), ("2", "5")])
    with pytest.raises(
        CasesError, match=r"train\.csv: expected at least one row whose image and label are in .*, got none of 2 rows"
    ):
        cases.read(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file; expected a table with the columns id and scroll_id"),
        (b"id,scroll\n1,2\n", "expected a table with the columns id and scroll_id, got none named 'scroll_id'"),
        (b"\xff\xfe\x00", "expected a table with the columns id and scroll_id, got .*decode"),
        (b"", "expected at least one row .*, got none of 0 rows"),
    ],
)
def test_a_table_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "train.csv").write_bytes(content)
    with pytest.raises(CasesError, match=rf"train\.csv: {message}"):
        cases.read(tmp_path)


def test_scrolls_are_listed_largest_first() -> None:
    made = [Case(name=str(n), scroll=scroll, image=Path(), label=Path()) for n, scroll in enumerate("bacbab")]
    assert list(cases.sizes_by_scroll(made).items()) == [("b", 3), ("a", 2), ("c", 1)]
    assert cases.sizes_by_scroll([]) == {}


def test_a_case_loads_as_written(tmp_path: Path, write_case: Callable) -> None:
    image = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    label = image % 3
    found = write_case(tmp_path, "1", "5", image, label).load()
    assert [part.dtype for part in found] == [np.uint8, np.uint8]
    np.testing.assert_array_equal(found[0], image)
    np.testing.assert_array_equal(found[1], label)


def test_a_label_that_does_not_fit_is_refused(tmp_path: Path, write_case: Callable) -> None:
    with pytest.raises(CasesError, match=r"1\.tif: expected a label of \(2, 3, 4\) as its image, got \(2, 3, 5\)"):
        write_case(tmp_path, "1", "5", dot(), dot(shape=(2, 3, 5))).load()
    with pytest.raises(CasesError, match=r"2\.tif: expected labels 0, 1 and 2 only, got 3"):
        write_case(tmp_path, "2", "5", dot(), dot(3)).load()
    broken = write_case(tmp_path, "3", "5", dot(), dot())
    broken.image.write_bytes(b"II*\0")
    with pytest.raises(VolumeError, match=r"3\.tif"):
        broken.load()


# --- left out, repaired, and what label 2 counts as


@pytest.fixture
def three(tmp_path: Path, write_case: Callable, write_table: Callable) -> Path:
    """Cases 1, 2, 3, their labels full of 1; case 4 has no files."""
    for name in ("1", "2", "3"):
        write_case(tmp_path, name, "5", dot(), dot())
    write_table(tmp_path, [(name, "5") for name in ("1", "2", "3", "4")])
    return tmp_path


def repair(folder: Path, name: str, value: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    write_lzw(folder / f"{name}.tif", dot(value))
    return folder / f"{name}.tif"


def test_excluded_cases_are_neither_there_nor_missing(three: Path) -> None:
    found, missing = cases.read(three, exclude=("2",))
    assert ([case.name for case in found], missing) == (["1", "3"], 1)
    found, missing = cases.read(three, exclude=("4", "1"))
    assert ([case.name for case in found], missing) == (["2", "3"], 0)


def test_excluding_a_case_that_is_not_there_is_an_error(three: Path) -> None:
    with pytest.raises(CasesError, match=r"exclude: expected ids that .*train\.csv lists, got 12, 7"):
        cases.read(three, exclude=("7", "1", "12"))
    with pytest.raises(CasesError, match="got none of 1 rows that are not excluded"):
        cases.read(three, exclude=("1", "2", "3"))


@pytest.mark.parametrize("absolute", [False, True])
def test_repaired_labels_stand_in_where_there_are_any(three: Path, absolute: bool) -> None:
    repair(three / "mended", "2")
    found, missing = cases.read(three, labels_dir=str(three / "mended") if absolute else "mended")
    assert [case.label.parent.name for case in found] == ["train_labels", "mended", "train_labels"]
    assert [case.repaired_in for case in found] == ["", "mended", ""]
    assert [case.load()[1].max() for case in found] == [1, 0, 1]
    assert missing == 1


def test_a_repaired_label_makes_a_case_whole(three: Path) -> None:
    (three / "train_labels/3.tif").unlink()
    assert [case.name for case in cases.read(three)[0]] == ["1", "2"]
    repair(three / "mended", "3")
    assert [case.name for case in cases.read(three, labels_dir="mended")[0]] == ["1", "2", "3"]


def test_a_folder_of_labels_that_repairs_nothing_is_an_error(three: Path) -> None:
    with pytest.raises(CasesError, match=r"labels_dir: no such folder .*/mended; expected one of repaired labels"):
        cases.read(three, labels_dir="mended")
    repair(three / "mended", "77")
    with pytest.raises(
        CasesError, match=r"labels_dir: expected labels named as 1\.tif, got no case's label in .*/mended"
    ):
        cases.read(three, labels_dir="mended")
    repair(three / "mended", "2")
    with pytest.raises(
        CasesError, match=r"labels_dir: expected labels named as 1\.tif, got no case's label in .*/mended"
    ):
        cases.read(three, exclude=("2",), labels_dir="mended")


def test_label_2_is_left_or_counted_as_surface(tmp_path: Path, write_case: Callable) -> None:
    label = np.arange(24, dtype=np.uint8).reshape(2, 3, 4) % 3
    case = write_case(tmp_path, "1", "5", dot(shape=label.shape), label)
    np.testing.assert_array_equal(case.load("ignored")[1], label)
    np.testing.assert_array_equal(case.load("surface")[1], label > 0)
    wrong = write_case(tmp_path, "2", "5", dot(), dot(3))
    with pytest.raises(CasesError, match="expected labels 0, 1 and 2 only, got 3"):
        wrong.load("surface")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("1", "5"), ("2", "5"), ("1", "5")], "got 1 twice"),
        ([("1", "5"), (" 1 ", "6"), ("2", "5")], "got 1 twice"),
        ([("1", "5"), ("2", ""), ("3", " ")], "got 2, 3 without a scroll_id"),
        ([("1", "5"), ("2",)], "got 2 without a scroll_id"),
        ([("1", "5"), ("", "7")], "got a row of scroll 7 without an id"),
    ],
)
def test_a_table_that_says_two_things_or_too_little_is_refused(
    three: Path, write_table: Callable, rows: list[tuple[str, ...]], message: str
) -> None:
    write_table(three, rows)
    with pytest.raises(CasesError, match=rf"train\.csv: expected every id once, with its scroll_id, {message}"):
        cases.read(three)


def test_ids_are_read_as_those_of_the_test_table(three: Path, write_table: Callable) -> None:
    write_table(three, [(" 1", "5 "), ("", ""), ("2 ", "5")])
    assert [(case.name, case.scroll) for case in cases.read(three)[0]] == [("1", "5"), ("2", "5")]
