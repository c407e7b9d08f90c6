"""Tiny worlds with answers worked out by hand, and the folders that hold them. Axis order is (z, y, x)."""

import csv
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image, ImageSequence

from surface_kernel.volumes.image_files import write_lzw

ROOT = Path(__file__).parents[1]

# Zeros are left out of mean and deviation. The rest is 80 and 120 in equal number: mean 100, deviation 20. So the
# standardised value is (grey - 100) / 20, clipped to ±5, and an identity network makes these logits of it:
TWO_GREYS_LOGITS = {0: -5.0, 80: -1.0, 120: 1.0}


def two_greys(shape_zyx=(4, 6, 8)):
    """Makes a volume of 80 and 120 in stripes along x, three of each in turn, its first plane a margin of zeros."""
    stripes = np.where(np.arange(shape_zyx[2]) // 3 % 2 == 0, 80, 120).astype(np.uint8)
    volume = np.broadcast_to(stripes, shape_zyx).copy()
    volume[:, 1::2] = 200 - volume[:, 1::2]  # every second row the other way round: as many of the one as of the other
    volume[0] = 0
    return volume


def noise(shape_zyx, seed=0):
    """Makes a volume of random greys, 0 to 255."""
    return np.random.default_rng(seed).integers(0, 256, shape_zyx, dtype=np.uint8)


def write_competition(folder, images):
    """Writes test.csv and test_images/{id}.tif as the competition does; an image that is None is not written."""
    (folder / "test_images").mkdir(parents=True)
    with (folder / "test.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "scroll_id"), *((case, 26002) for case in images)])
    for case, image in images.items():
        if image is not None:
            write_lzw(folder / "test_images" / f"{case}.tif", image)
    return folder


def write_bundle(folder, weights, **settings):
    """Writes what the engine reads of a bundle: the weights, settings.json, and the manifest that lists them."""
    folder.mkdir(parents=True)
    for path in weights:
        (folder / path.name).hardlink_to(path)
    (folder / "settings.json").write_text(json.dumps(settings))
    return list_bundle(folder, [path.name for path in weights])


def list_bundle(folder, weights):
    """Writes the manifest of a bundle's weights and settings as they are now."""
    files = {}
    for name in [*weights, "settings.json"]:
        content = (folder / name).read_bytes()
        files[name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    manifest = {"format": "surface-bundle/1", "weights": weights, "settings": "settings.json", "files": files}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def as_the_scorer_reads(path):
    """Reads a TIFF's pages with Pillow, as the competition's scorer does."""
    with Image.open(path) as image:
        return np.stack([np.asarray(page) for page in ImageSequence.Iterator(image)])


def as_tifffile_reads(path):
    """Reads a TIFF's pages with tifffile."""
    with tifffile.TiffFile(path) as tiff:
        return np.stack([page.asarray() for page in tiff.pages])


def names_in(folder):
    """Gives the names of all that lies in a folder, sorted."""
    return sorted(path.name for path in folder.iterdir())


def run_python(code, *arguments):
    """Runs code in a Python of its own, where nothing has been imported yet."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "kernel"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
