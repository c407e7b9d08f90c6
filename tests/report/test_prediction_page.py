"""What masks say without a truth: numbers by hand, and what their run wrote beside them."""

import json

import numpy as np
import pytest
from worlds_of_pages import write_submission, write_volumes

from surface_report.__main__ import main
from surface_report.prediction.disagreement import FieldsError, Plane, disagreement
from surface_report.prediction.mask_facts import component_sizes, mask_facts, surface_area
from surface_score.masks import find_masks
from surface_score.surface_dice import far_elements

SHAPE = (20, 30, 40)


@pytest.fixture
def masks():
    """A slab of thickness 4 across the volume; a block and a voxel; nothing."""
    slab, blocks = np.zeros((2, *SHAPE), np.uint8)
    slab[8:12] = 1
    blocks[2:4, 2:4, 2:4] = 1
    blocks[10, 10, 10] = 1
    return {"1": slab, "2": blocks, "3": slab * 0}


def test_components_and_area_by_hand(masks):
    assert component_sizes(masks["2"] == 1) == (8, 1)
    assert component_sizes(masks["3"] == 1) == ()
    assert surface_area(masks["3"] == 1) == 0
    mask = np.random.default_rng(0).random((9, 8, 7)) < 0.4
    empty_far, _ = far_elements(mask, np.zeros_like(mask), 1)
    assert surface_area(mask) == pytest.approx(empty_far.area)


def test_the_facts_of_a_slab(masks, tmp_path):
    found = find_masks(write_submission(tmp_path / "a.zip", masks))
    grey = np.full(SHAPE, 90, np.uint8)
    grey[:, :, :10] = 0
    images = write_volumes(tmp_path / "images", {"1": grey})
    facts = mask_facts(found["1"], images / "1.tif")
    assert facts.foreground == 0.2
    assert facts.sizes == (4 * 30 * 40,)
    assert 3 < facts.thickness_voxels < 4  # the rim is surface too
    assert facts.unscanned == 0.25
    assert mask_facts(found["3"], None).thickness_voxels is None


def test_the_section_names_surface_where_nothing_was_scanned(masks, tmp_path, opened):
    zipped = write_submission(tmp_path / "a.zip", masks)
    grey = np.full(SHAPE, 90, np.uint8)
    grey[:, :, :10] = 0
    images = write_volumes(tmp_path / "images", {"1": grey, "2": grey + 1, "3": grey})
    volume = {"case": "1", "stages": 1, "wanted": 2, "seconds": 3.25, "foreground": 0.2, "variance": 0.1}
    volume |= {"reason": "<b>no time</b>", "notes": ["decoded by Pillow"], "status": "partly", "unscanned": 0.0}
    report = {"verdict": "degraded", "device": "a GPU", "wall_s": 12, "budget_s": 99, "trouble": ["a full disk"]}
    (tmp_path / "run_report.json").write_text(json.dumps(report | {"volumes": [volume | {"case": "2"}, volume]}))
    asked = ["--submission", str(zipped), "--images", str(images), "--out", str(tmp_path / "page.html")]
    assert main(asked) == 0
    page = opened(tmp_path / "page.html")
    text = page.locator("#prediction").inner_text()
    assert "Surface where nothing was scanned, which can only be false, in: 1" in text
    assert "25.0000%" in text
    assert "a full disk" in text
    assert "<b>no time</b>; decoded by Pillow" in text


@pytest.fixture
def fields(masks, tmp_path):
    """Two members sure of the slab, of which the second misses a quarter along x and adds a plane."""
    first = np.where(masks["1"] == 1, 9.0, -9.0).astype(np.float32)
    second = first.copy()
    second[8:12, :, 30:] = -9
    second[:, 17] = 0.9  # a probability of .71
    folders = [tmp_path / "<i>" / name for name in ("a", "<b>&\u202eb")]
    for folder, field in zip(folders, (first, second), strict=True):
        folder.mkdir(parents=True)
        np.save(folder / "1.npy", field)
    return folders


def test_a_disagreement_by_hand(fields):
    found = disagreement("1", fields)
    # Where one is sure of surface and the other of none the deviation is 0.5; in the plane y = 17, half of .71 or .29.
    sure, slab, plane = 4 * 29 * 10, 4 * 40, 16 * 40
    p = 1 / (1 + np.exp(-0.9))
    expected = (0.5 * sure + (1 - p) / 2 * slab + p / 2 * plane) / (20 * 30 * 40)
    assert found.deviation == pytest.approx(expected, abs=1e-3)
    assert found.contested == pytest.approx((sure + plane) / (4 * 30 * 40 + plane), abs=1e-9)
    assert found.plane == Plane(axis=1, index=17)
    assert found.deviations.shape == found.mean.shape == (20, 40)
    assert found.deviations[0, 0] == pytest.approx(p / 2, abs=1e-3)
    assert found.mean[9, 0] == pytest.approx((1 + p) / 2, abs=1e-3)


def test_the_same_field_twice_agrees(fields):
    found = disagreement("1", [fields[0], fields[0]])
    assert (found.deviation, found.contested) == (0, 0)
    np.save(fields[0] / "1.npy", np.full(SHAPE, -9, np.float16))
    assert disagreement("1", [fields[0], fields[0]]).contested is None


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (np.zeros(SHAPE, np.float32), "got values from 0 to 1"),
        (np.full(SHAPE, 3, np.uint8), "got uint8"),
        (np.full(SHAPE[1:], -3, np.float32), r"got float32 \(30, 40\)"),
        (np.full((3, 30, 40), -3, np.float32), r"expected a field of \(20, 30, 40\)"),
        (None, "No such file"),
    ],
)
def test_fields_that_cannot_be_compared_are_named(fields, content, named):
    if content is None:
        (fields[1] / "1.npy").unlink()
    else:
        np.save(fields[1] / "1.npy", content)
    with pytest.raises(FieldsError, match=named) as caught:
        disagreement("1", fields)
    assert str(fields[1] / "1.npy") in str(caught.value)


def test_the_page_shows_where_fields_disagree(masks, fields, tmp_path, opened, capsys):
    zipped = write_submission(tmp_path / "a.zip", {id_: masks[id_] for id_ in "12"})
    images = write_volumes(tmp_path / "images", {"1": np.full(SHAPE, 90, np.uint8), "2": np.full(SHAPE, 9, np.uint8)})
    asked = ["--submission", str(zipped), "--images", str(images), "--out", str(tmp_path / "page.html"), "--fields"]
    assert main([*asked, *map(str, fields)]) == 3  # there are no fields of 2
    assert "not shown: 2: " in capsys.readouterr().out
    page = opened(tmp_path / "page.html", width=400)
    assert fields[1].name in page.locator("#prediction").text_content()
    row = page.locator("#prediction-disagreement tbody tr").all_text_contents()
    assert [" ".join(cells.split()) for cells in row] == ["1 0.0346 33.1% y = 17"]
    panels = page.locator(".panels img")
    assert panels.count() == 3
    assert panels.evaluate_all("all => all.map(image => image.naturalWidth)") == [40, 40, 40]
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    assert main([*asked, str(fields[0])]) == 1
    assert "--fields: expected two folders or more" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "[]", "{", '{"volumes": 3}', '{"volumes": [3, {}]}'])
def test_a_report_of_another_kind_is_left_out(masks, tmp_path, content):
    zipped = write_submission(tmp_path / "a.zip", {"3": masks["3"]})
    (tmp_path / "run_report.json").write_text(content)
    assert main(["--submission", str(zipped), "--out", str(tmp_path / "page.html")]) == 0
