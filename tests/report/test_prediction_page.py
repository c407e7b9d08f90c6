"""What masks say without a truth: numbers by hand, and what their run wrote beside them."""

import json

import numpy as np
import pytest
from worlds_of_pages import write_submission, write_volumes

from surface_report.__main__ import main
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


@pytest.mark.parametrize("content", ["", "[]", "{", '{"volumes": 3}', '{"volumes": [3, {}]}'])
def test_a_report_of_another_kind_is_left_out(masks, tmp_path, content):
    zipped = write_submission(tmp_path / "a.zip", {"3": masks["3"]})
    (tmp_path / "run_report.json").write_text(content)
    assert main(["--submission", str(zipped), "--out", str(tmp_path / "page.html")]) == 0
