from pathlib import Path

import numpy as np
from PIL import Image

from surface_train.records.picture import BOTH, FALSE, MISSED, UNLABELLED, compared, draw, grey_rgb, painted

GREY = np.array([[0, 100, 200, 200], [0, 100, 200, 0]], np.uint8)
TRUTH = np.array([[0, 1, 1, 2], [0, 1, 0, 2]], np.uint8)
FOUND = np.array([[0, 1, 0, 1], [1, 0, 0, 0]], np.uint8)


def pixels(rgb: np.ndarray) -> list[list[tuple[int, ...]]]:
    return [[tuple(int(part) for part in pixel) for pixel in row] for row in rgb]


def veiled(grey: tuple[int, ...]) -> tuple[int, ...]:
    return tuple((below + 2 * above) // 3 for below, above in zip(grey, UNLABELLED, strict=True))


def test_grey_values_are_stretched_to_black_and_white() -> None:
    rgb = grey_rgb(GREY)
    assert rgb.dtype == np.uint8
    assert pixels(rgb)[0][0] == (0, 0, 0)
    assert pixels(rgb)[0][1] in {(127,) * 3, (128,) * 3}
    assert pixels(rgb)[0][2] in {(254,) * 3, (255,) * 3}  # a hair below white is cut to 254
    assert not grey_rgb(np.full((3, 3), 7, np.uint8)).any()  # nothing to stretch


def test_the_truth_is_painted_and_the_unlabelled_veiled() -> None:
    grey = pixels(grey_rgb(GREY))
    assert pixels(painted(GREY, TRUTH)) == [
        [grey[0][0], BOTH, BOTH, veiled(grey[0][3])],
        [grey[1][0], BOTH, grey[1][2], veiled(grey[1][3])],
    ]


def test_a_prediction_is_painted_as_found_missed_or_added_and_not_where_it_is_not_scored() -> None:
    grey = pixels(grey_rgb(GREY))
    assert pixels(compared(GREY, TRUTH, FOUND)) == [
        [grey[0][0], BOTH, MISSED, veiled(grey[0][3])],
        [FALSE, MISSED, grey[1][2], veiled(grey[1][3])],
    ]


def test_a_picture_of_a_volume_that_is_no_cube_shows_its_colours(tmp_path: Path, make_sheet) -> None:
    image, label = make_sheet(0, (24, 32, 28))
    mask = (label == 1).astype(np.uint8)
    mask[:, :16] = 0
    mask[8:10, 4:28, 4:24] = 1
    draw(tmp_path / "p.png", image=image, label=label, mask=mask, title="case 1")
    with Image.open(tmp_path / "p.png") as opened:
        assert opened.format == "PNG"
        drawn = counted(np.asarray(opened.convert("RGB")))
    for colour in (BOTH, MISSED, FALSE):
        assert drawn.get(colour, 0) > 1000
    assert [path.name for path in tmp_path.iterdir()] == ["p.png"]


def counted(rgb: np.ndarray) -> dict[tuple[int, ...], int]:
    colours, counts = np.unique(rgb.reshape(-1, 3), axis=0, return_counts=True)
    return {tuple(int(part) for part in colour): int(count) for colour, count in zip(colours, counts, strict=True)}
