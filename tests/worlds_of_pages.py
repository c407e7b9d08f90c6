"""Small cases with every kind of error, at places known by hand, and a browser's view of the viewer's pictures."""

import json
import zipfile

import numpy as np

from surface_kernel.volumes.image_files import write_lzw
from surface_kernel.volumes.mask_files import mask_bytes

SHAPE = (24, 28, 32)

# As templates/viewer.js paints them, at full opacity.
COLOURS = {"missed": (86, 180, 233), "added": (213, 94, 0), "merged": (240, 228, 66), "split": (204, 121, 167)}
COLOURS |= {"truth": (0, 158, 115), "predicted": (230, 159, 0), "both": (245, 245, 245), "holes": (0, 114, 178)}
BARE = (28, 28, 28)


def two_sheets():
    """Makes a label: sheets at y 6..8 and y 18..20 with a margin of 2, and a CT that is bright there."""
    label = np.zeros(SHAPE, np.uint8)
    label[:, 6:9] = 1
    label[:, 18:21] = 1
    label[:2] = label[-2:] = 2
    image = np.where(label == 1, 200, 60).astype(np.uint8)
    return image, label


def with_errors(label):
    """Makes a prediction: a bridge between the sheets, a gap across the second, a hole in the first, a false block."""
    predicted = label == 1
    predicted[10:13, 9:18, 14:17] = True
    predicted[:, 18:21, 22:25] = False
    predicted[6:8, 6:9, 4:6] = False
    predicted[15:18, 24:26, 3:7] = True
    return predicted.astype(np.uint8)


def write_submission(path, masks):
    with zipfile.ZipFile(path, "w") as archive:
        for id_, mask in masks.items():
            archive.writestr(f"{id_}.tif", mask_bytes(mask))
    return path


def write_volumes(folder, volumes):
    folder.mkdir(parents=True)
    for id_, volume in volumes.items():
        write_lzw(folder / f"{id_}.tif", volume)
    return folder


def score_row(score=0.5, **changes):
    """Makes a row of `surface_score --json`."""
    row = {"score": score, "topo_score": 0.5, "surface_dice": 0.8, "voi_score": 0.6, "voi_split": 1.0, "voi_merge": 3.0}
    row |= {"dice": 0.7, "betti": {"0": [1, 3, 2], "1": [0, 2, 0], "2": [0, 0, 0]}}
    return row | {"predicted_share": 0.1, "truth_share": 0.2} | changes


def write_scores(path, rows):
    path.write_text(json.dumps({"mean": score_row(), "cases": rows}))
    return path


def open_case(page, id_):
    """Chooses a case and waits for its slices."""
    page.select_option("#slices-case", page.locator(f'#slices-case option[data-id="{id_}"]').get_attribute("value"))
    page.wait_for_selector('#slices-viewer[aria-busy="false"]')


def picture(page, axis, of=0):
    """Reads what the viewer shows of a plane: uint8 (rows, columns, 3)."""
    read = """([axis, of]) => {
        const screen = document.querySelectorAll(`.plane[data-axis="${axis}"] canvas`)[of];
        const image = screen.getContext("2d").getImageData(0, 0, screen.width, screen.height);
        return [screen.height, screen.width, [...image.data]];
    }"""
    rows, columns, data = page.evaluate(read, [axis, of])
    return np.array(data, np.uint8).reshape(rows, columns, 4)[..., :3]


def move(page, axis, to):
    """Moves the slider of an axis as a hand does."""
    page.evaluate(
        """([axis, to]) => {
            const slider = document.querySelectorAll(".plane > input")[axis];
            slider.value = to;
            slider.dispatchEvent(new Event("input"));
        }""",
        [axis, to],
    )


def switch(page, **layers):
    """Switches overlays on or off."""
    for name, on in layers.items():
        page.locator(f'[data-layer="{name}"]').set_checked(on, force=True)


def only(page, **layers):
    """Switches all overlays off but those named, at full opacity."""
    names = ("ct", "truth", "predicted", "missed", "added", "merged", "split", "holes", "unlabelled", "cross")
    switch(page, **dict.fromkeys(names, False) | layers)
    page.locator("#slices-opacity").fill("100")
