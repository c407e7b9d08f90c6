"""What a reader sees and does, in a real browser."""

import numpy as np
import pytest
from worlds_of_pages import BARE, COLOURS, SHAPE, move, only, open_case, picture, switch

from surface_report.__main__ import main
from surface_report.slices.case_slices import Room

# Which slices along an axis are marked as exact.
EXACT = """(axis) => {
    const slider = document.querySelectorAll(".plane > input")[axis], tag = document.querySelectorAll(".exact")[axis];
    return [...Array(Number(slider.max) + 1).keys()].filter((at) => {
        slider.value = at;
        slider.dispatchEvent(new Event("input"));
        return !tag.hidden;
    });
}"""


@pytest.fixture(scope="module")
def both(opened, scored_page):
    """The page of both submissions, opened once: opening takes longer than what is asked of it."""
    return opened(scored_page)


@pytest.fixture
def viewer(both):
    """The page at the case with every error, with the settings of the test before."""
    page = both
    open_case(page, "7")
    page.select_option("#slices-layout", "all")
    return page


def where(image, *names):
    return np.any([(image == COLOURS[name]).all(axis=-1) for name in names], axis=0)


@pytest.mark.parametrize("width", [400, 1600])
def test_a_page_fits_its_window_and_asks_nobody(opened, scored_page, width):
    """`opened` asserts on requests and the console."""
    page = opened(scored_page, width=width)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator("h1").inner_text() == "Surface report: a.zip and b.zip"
    assert page.locator("canvas").first.bounding_box()["width"] > 300


def test_every_plane_shows_the_errors_of_its_slice(viewer, scored_world):
    true, predicted = scored_world.label == 1, scored_world.flawed == 1
    labelled = scored_world.label != 2
    only(viewer, missed=True, added=True)
    for axis, at in ((0, 11), (1, 19), (2, 23)):
        move(viewer, axis, at)
        shown = picture(viewer, axis)
        np.testing.assert_array_equal(where(shown, "missed"), np.take(true & ~predicted & labelled, at, axis))
        np.testing.assert_array_equal(where(shown, "added"), np.take(predicted & ~true & labelled, at, axis))
        assert (shown[~where(shown, "missed", "added")] == BARE).all()


def test_overlays_switch(viewer, scored_world):
    true, predicted = scored_world.label == 1, scored_world.flawed == 1
    move(viewer, 0, 11)
    only(viewer, truth=True)
    np.testing.assert_array_equal(where(picture(viewer, 0), "truth"), true[11])
    only(viewer, predicted=True)
    np.testing.assert_array_equal(where(picture(viewer, 0), "predicted"), predicted[11])
    only(viewer, truth=True, predicted=True)
    np.testing.assert_array_equal(where(picture(viewer, 0), "both"), (true & predicted)[11])
    only(viewer, merged=True)
    bridge = where(picture(viewer, 0), "merged")
    assert bridge[9:18, 14:17].all()
    assert bridge.sum() == 27
    only(viewer, holes=True)
    move(viewer, 0, 7)
    np.testing.assert_array_equal(np.argwhere(where(picture(viewer, 0), "holes")).min(0), (6, 4))
    only(viewer, ct=True)
    grey = picture(viewer, 0)[..., 0].astype(int)
    assert grey[7, 10] > 150
    assert grey[13, 10] < 100
    switch(viewer, ct=False)
    assert (picture(viewer, 0) == BARE).all()


def test_the_second_submission_is_shown_beside_the_first(viewer):
    only(viewer, missed=True, added=True)
    move(viewer, 0, 11)
    assert where(picture(viewer, 0), "added").any()
    assert not where(picture(viewer, 0, of=1), "added", "missed").any()
    boxes = [viewer.locator(".plane").first.locator("canvas").nth(n) for n in (0, 1)]
    viewer.select_option("#slices-layout", "0")
    first, second = (box.bounding_box() for box in boxes)
    assert first["y"] == second["y"]
    assert first["x"] + first["width"] < second["x"]


def test_keys_move_slices_switch_overlays_and_jump(viewer):
    at = lambda: [int(viewer.locator(f"#slices-at-{axis}").input_value()) for axis in "zyx"]  # noqa: E731
    for axis, last in enumerate(SHAPE):
        move(viewer, axis, 12)
        canvas = viewer.locator(f'.plane[data-axis="{axis}"] canvas').first
        for key, expected in (("ArrowUp", 13), ("ArrowLeft", 12), ("PageUp", 22), ("PageDown", 12), ("Home", 0)):
            canvas.press(key)
            assert at()[axis] == expected
        canvas.press("End")
        assert at()[axis] == last - 1
    viewer.locator("#slices-at-z").press("ArrowLeft")
    assert at()[0] == SHAPE[0] - 2
    assert viewer.locator("#slices-out-z").inner_text() == str(SHAPE[0] - 2)
    box = viewer.locator('[data-layer="truth"]')
    before = box.is_checked()
    viewer.keyboard.press("2")
    assert box.is_checked() != before
    places = viewer.locator("#slices-places button")
    viewer.keyboard.press("n")
    assert places.nth(1).get_attribute("aria-pressed") == "true"
    assert f"({', '.join(map(str, at()))})" in places.nth(1).inner_text()


def test_places_lead_to_what_they_name(viewer):
    """The bridge lies at (10..12, 9..17, 14..16), the gap at x 22..24 of the second sheet."""
    spans = {"merge": ((10, 12), (9, 17), (14, 16)), "split": ((2, 21), (18, 20), (22, 24))}
    for kind, box in spans.items():
        viewer.locator("#slices-places button", has_text=kind).first.click()
        at = [int(viewer.locator(f"#slices-at-{axis}").input_value()) for axis in "zyx"]
        assert all(low <= place <= high for place, (low, high) in zip(at, box, strict=True))
    assert "missed at a split" in viewer.locator("#slices-readout").inner_text()


def test_a_click_moves_the_other_planes(viewer):
    canvas = viewer.locator('.plane[data-axis="0"] canvas').first
    box = canvas.bounding_box()
    canvas.click(position={"x": box["width"] * 10.5 / SHAPE[2], "y": box["height"] * 20.5 / SHAPE[1]})
    assert viewer.locator("#slices-at-y").input_value() == "20"
    assert viewer.locator("#slices-at-x").input_value() == "10"


def test_a_heading_sorts_and_an_id_opens_its_case(viewer):
    table = viewer.locator("#score-cases")
    ids = lambda: table.locator("tbody th").all_inner_texts()  # noqa: E731
    assert ids() == ["9", "7", "8"]
    heading = table.locator("thead th", has_text="score").first
    assert heading.get_attribute("aria-sort") == "ascending"
    heading.locator("button").click()
    assert (ids(), heading.get_attribute("aria-sort")) == (["8", "7", "9"], "descending")
    by_id = table.locator("thead th").first
    by_id.locator("button").press("Enter")
    assert (ids(), by_id.get_attribute("aria-sort")) == (["7", "8", "9"], "ascending")
    assert heading.get_attribute("aria-sort") is None
    table.locator("tbody a", has_text="8").click()
    assert viewer.locator("#slices-case option:checked").get_attribute("data-id") == "8"


def test_named_slices_are_exact_where_the_rest_is_reduced(opened, scored_world, tmp_path, monkeypatch):
    world = scored_world
    monkeypatch.setattr("surface_report.scoring.cores", lambda: 1)
    monkeypatch.setattr(
        "surface_report.slices.slices_section.room_for", lambda cases: Room(cells=8, planes=3, bytes=9999)
    )
    asked = ["--submission", world.submission, "--truth", world.truth, "--images", world.images]
    assert main([*map(str, asked), "--out", str(tmp_path / "page.html")]) == 0
    page = opened(tmp_path / "page.html")
    open_case(page, "7")
    only(page, added=True, missed=True)
    true, predicted, labelled = world.label == 1, world.flawed == 1, world.label != 2
    exact = [(axis, at) for axis in range(3) for at in page.evaluate(EXACT, axis)]
    for axis, at in exact:
        move(page, axis, at)
        errors = np.take((true != predicted) & labelled, at, axis)
        np.testing.assert_array_equal(where(picture(page, axis), "added", "missed"), errors)
    move(page, 0, 0)
    assert picture(page, 0).shape[:2] == (8, 8)
    most = int(((true != predicted) & labelled).sum(axis=(1, 2)).argmax())
    assert (0, most) in exact
    assert 1 < len(exact) <= 3


def test_dark_and_light(opened, scored_page):
    shades = []
    for scheme in ("light", "dark"):
        page = opened(scored_page, color_scheme=scheme)
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        ink = page.evaluate('getComputedStyle(document.querySelector(".chart text")).fill')
        shades.append([int(part) for text in (colour, ink) for part in text.strip("rgb()").split(",")[:1]])
    (light_paper, light_ink), (dark_paper, dark_ink) = shades
    assert light_paper > 200 > 100 > light_ink
    assert dark_paper < 100 < 200 < dark_ink
