"""Volumes with the numbers that the reference packages gave them; make_golden.py made the file."""

import base64
import json
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

GOLDEN = json.loads((Path(__file__).parent / "golden" / "scores.json").read_text())


def unpacked(world):
    volumes = {
        name: np.frombuffer(zlib.decompress(base64.b64decode(world[name])), np.uint8).reshape(world["shape"])
        for name in ("prediction", "label")
    }
    ignored = volumes["label"] == 2
    masks = {"predicted": (volumes["prediction"] != 0) & ~ignored, "truth": volumes["label"] == 1}
    return SimpleNamespace(**(world | volumes | masks))


def pytest_generate_tests(metafunc):
    if "golden_world" in metafunc.fixturenames:
        worlds = [pytest.param(unpacked(world), id=world["name"]) for world in GOLDEN["worlds"]]
        metafunc.parametrize("golden_world", worlds)


@pytest.fixture
def golden_areas():
    return GOLDEN["areas"]


@pytest.fixture
def golden_pairs():
    """What the official module counts in each of noise.mask_pair: matched, predicted and true for three dimensions."""
    return GOLDEN["mask_pairs"]
