"""The data folder: facts and faults of cases made by hand, each named with its id."""

import numpy as np
import pytest
from worlds_of_pages import write_volumes

from surface_report.__main__ import main
from surface_report.data.case_facts import CaseInFolder, case_facts, signature
from surface_report.data.duplicates import near_duplicates
from surface_report.data.folder import cases_in

SHAPE = (24, 26, 28)


def label_of(**changes):
    label = np.full(SHAPE, 2, np.uint8)
    label[3:-3, 3:-3, 3:-3] = 0
    label[8:12, 3:-3, 3:-3] = 1
    for name, value in changes.items():
        label[{"face": np.s_[0, :5, :5], "inside": np.s_[15, 15, 15], "sheet": np.s_[8:12, 3:-3, 3:-3]}[name]] = value
    return label


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    images = {id_: rng.integers(1, 256, SHAPE, dtype=np.uint8) for id_ in "abcdefg"}
    images["f"] = np.clip(images["e"].astype(int) + rng.integers(-2, 3, SHAPE), 1, 255).astype(np.uint8)
    labels = {"a": label_of(), "b": label_of(sheet=0), "c": label_of(face=1), "d": label_of(inside=7)}
    labels |= {"e": label_of()[1:], "f": label_of()}
    write_volumes(tmp_path / "train_images", images)
    write_volumes(tmp_path / "train_labels", labels)
    (tmp_path / "train.csv").write_text("id,scroll_id\n" + "".join(f"{id_},100\n" for id_ in "abcdeg") + "z,200\n")
    return tmp_path


def test_each_fault_is_named(folder):
    cases, without_files = cases_in(folder)
    faults = {one.id: case_facts(one).faults for one in cases}
    assert without_files == ["z"]
    assert faults["a"] == ()
    assert faults["b"] == ("no label 1",)
    faces = 2 * (24 * 26 + 24 * 28 + 26 * 28)
    wrong = 25 + 5 + 5  # the corner lies on three faces
    assert faults["c"] == (f"a shell that is not 2: {wrong / faces:.2%} of it",)
    assert faults["d"] == ("labels beyond 0 to 2: 7",)
    assert faults["e"][0] == f"image of {SHAPE}, label of {(23, 26, 28)}"
    assert faults["f"] == ("files without a row in train.csv",)
    assert faults["g"] == ("no label",)


def test_shares_and_greys_count_voxels(folder):
    (case,) = [one for one in cases_in(folder)[0] if one.id == "a"]
    facts = case_facts(case)
    size = np.prod(SHAPE)
    surface, inner = 4 * 20 * 22, 18 * 20 * 22
    assert facts.shares == pytest.approx(((inner - surface) / size, surface / size, 1 - inner / size))
    assert facts.greys.sum() == size


def test_near_duplicates_are_pairs_once(folder):
    facts = [case_facts(one) for one in cases_in(folder)[0]]
    ((first, second, alike),) = near_duplicates(facts)
    assert {first, second} == {"e", "f"}
    assert alike > 0.99
    assert not signature(np.full((30, 30, 30), 9, np.uint8)).any()


def test_a_file_that_cannot_be_read_is_a_fault(tmp_path):
    (tmp_path / "x.tif").write_text("no TIFF")
    facts = case_facts(CaseInFolder(id="x", scroll="1", image=tmp_path / "x.tif", label=None))
    assert facts.faults[0].startswith("image cannot be read: ")
    assert facts.faults[1] == "no label"


def test_the_page_lists_the_faults(folder, opened, tmp_path):
    assert main(["--data", str(folder), "--out", str(tmp_path / "page.html")]) == 0
    page = opened(tmp_path / "page.html", width=400)
    rows = page.locator("#data-faults tbody tr").all_text_contents()
    named = [" ".join(row.split()) for row in rows]
    assert any(row.startswith("b no label 1") for row in named)
    assert any(row.startswith("z a row without files") for row in named)
    assert any("nearly the same as" in row for row in named)
    assert page.locator("#data svg").count() == 2
    assert page.evaluate("document.documentElement.scrollWidth") == 400


def test_a_folder_without_a_table_is_an_error(tmp_path, capsys):
    (tmp_path / "train_images").mkdir()
    assert main(["--data", str(tmp_path), "--out", str(tmp_path / "page.html")]) == 1
    assert "train.csv: expected a table with the columns id and scroll_id" in capsys.readouterr().out
