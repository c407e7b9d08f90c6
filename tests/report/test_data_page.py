"""The data folder: facts and faults of cases made by hand, each named with its id."""

from dataclasses import replace

import numpy as np
import pytest
from worlds_of_pages import write_volumes

from surface_report.__main__ import main
from surface_report.data.case_facts import case_facts, checked_by_id
from surface_report.data.duplicates import near_duplicates, with_duplicates
from surface_report.data.folder import list_folder
from surface_report.data.image_facts import image_facts, thumbnail_of

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
    labels |= {"e": np.delete(label_of(), 10, axis=0), "f": label_of(), "h": label_of()}
    write_volumes(tmp_path / "train_images", images)
    write_volumes(tmp_path / "train_labels", labels)
    (tmp_path / "train.csv").write_text(
        "id,scroll_id\n" + "".join(f"{id_},100\n" for id_ in "abcdegg") + "z,200\ny,200\nh,\n"
    )
    write_volumes(tmp_path / "deprecated_train_images", {"y": images["a"]})
    return tmp_path


def facts_of(data):
    listing = list_folder(data)
    checked = checked_by_id(listing.cases)
    return {
        one.id: case_facts(one, checked.get(one.id), None if one.image is None else image_facts(one.image))
        for one in listing.cases
    }


def test_each_fault_is_named(folder):
    assert list_folder(folder).without_files == ["z"]
    assert list_folder(folder).withdrawn == ["y"]
    faults = {id_: one.faults for id_, one in facts_of(folder).items()}
    assert faults.pop("a") == ()
    shell = 24 * 26 * 28 - 18 * 20 * 22
    assert faults == {
        "b": ("no label 1",),
        "c": (f"{25 / shell:.2%} of the shell of 3 voxels is labelled, expected 2 only",),
        "d": ("train_labels/d.tif: expected labels 0, 1 and 2 only, got 7 in 1 voxels",),
        "e": (f"train_labels/e.tif: expected a label of {SHAPE} as its image, got (23, 26, 28)",),
        "f": ("files without a row in train.csv",),
        "g": ("2 rows in train.csv", "no label"),
        "h": ("no scroll_id in train.csv", "no image"),
    }


def test_several_faults_of_one_case_are_all_named(tmp_path):
    label = label_of(inside=7, face=1)[:, 1:]
    write_volumes(tmp_path / "train_images", {"<b>": np.full(SHAPE, 9, np.uint8)})
    write_volumes(tmp_path / "train_labels", {"<b>": label})
    (tmp_path / "train.csv").write_text("id,scroll_id\n")
    (only,) = facts_of(tmp_path).values()
    assert only.faults[0] == "files without a row in train.csv"
    assert only.faults[1].startswith("train_labels/<b>.tif: expected a label of")
    assert only.faults[2].endswith("of the shell of 3 voxels is labelled, expected 2 only")
    assert only.faults[3:] == ("labels beyond 0, 1 and 2: 7",)


def test_shares_and_greys_count_voxels(folder):
    facts = facts_of(folder)["a"]
    size = np.prod(SHAPE)
    surface, inner = 4 * 20 * 22, 18 * 20 * 22
    assert facts.shares == pytest.approx(((inner - surface) / size, surface / size, 1 - inner / size))
    assert facts.image.greys.sum() == size
    assert facts.image.zeros == 0


def test_zeros_count_for_no_grey(tmp_path):
    image = np.full(SHAPE, 100, np.uint8)
    image[:6] = 0
    (path,) = write_volumes(tmp_path / "images", {"1": image}).iterdir()
    facts = image_facts(path)
    assert (facts.zeros, facts.mean) == (0.25, 100.0)
    assert facts.greys.nonzero()[0].tolist() == [25]
    assert facts.greys[25] == image.size - 6 * 26 * 28


def test_near_duplicates_name_each_other(folder):
    facts = list(facts_of(folder).values())
    found = near_duplicates(facts)
    assert {id_: [other for other, _ in others] for id_, others in found.items()} == {"e": ["f"], "f": ["e"]}
    ((_, alike),) = found["e"]
    assert alike > 0.99
    said = {one.id: one.faults[-1] for one in with_duplicates(facts) if one.id in "ef"}
    assert said == {"e": f"nearly the same image as f ({alike:.4f})", "f": f"nearly the same image as e ({alike:.4f})"}


def test_many_copies_of_an_image_are_one_line_a_case(folder):
    one = facts_of(folder)["a"]
    copies = with_duplicates([replace(one, id=str(number)) for number in range(8)])
    assert [len(copy.faults) for copy in copies] == [1] * 8
    assert copies[0].faults[0].endswith("(1.0000) and 2 more")


def test_a_thumbnail_is_made_of_scanned_voxels():
    """By hand: an image of the thumbnail's own size; and equal margins make no two images alike."""
    rng = np.random.default_rng(0)
    image = rng.integers(1, 256, (16, 16, 16), dtype=np.uint8)
    flat = image.reshape(-1) - image.mean()
    assert thumbnail_of(image) == pytest.approx(flat / np.linalg.norm(flat), abs=1e-6)
    first, second = rng.integers(100, 110, (2, 48, 40, 33), dtype=np.uint8)
    first[:, :20] = second[:, :20] = 0
    assert abs(thumbnail_of(first) @ thumbnail_of(second)) < 0.1
    assert not thumbnail_of(np.full((30, 30, 30), 9, np.uint8)).any()


def test_a_file_that_cannot_be_read_is_a_fault(tmp_path):
    (tmp_path / "train_images").mkdir()
    (tmp_path / "train_images" / "x.tif").write_text("no TIFF")
    write_volumes(tmp_path / "train_labels", {"x": label_of()})
    (tmp_path / "train.csv").write_text("id,scroll_id\nx,1\n")
    (only,) = facts_of(tmp_path).values()
    (fault,) = only.faults
    assert fault.startswith("train_images/x.tif: expected")


def test_the_page_lists_the_faults(folder, opened, tmp_path):
    assert main(["--data", str(folder), "--out", str(tmp_path / "page.html")]) == 0
    page = opened(tmp_path / "page.html", width=400)
    rows = page.locator("#data-faults tbody tr").all_text_contents()
    named = [" ".join(row.split()) for row in rows]
    assert any(row.startswith("b no label 1") for row in named)
    assert any(row.startswith("z a row in train.csv without files") for row in named)
    assert any("nearly the same image as" in row for row in named)
    assert page.locator("#data svg").count() == 2
    assert page.evaluate("document.documentElement.scrollWidth") == 400


def test_a_folder_without_a_table_is_an_error(tmp_path, capsys):
    (tmp_path / "train_images").mkdir()
    assert main(["--data", str(tmp_path), "--out", str(tmp_path / "page.html")]) == 1
    assert "train.csv: no such file; expected a table with the columns id and scroll_id" in capsys.readouterr().out
