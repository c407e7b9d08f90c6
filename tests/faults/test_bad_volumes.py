"""Hostile images among good ones, through the whole engine: every id has a mask, and the good ones' are as ever."""

import csv
import random

import numpy as np
from engines import LoadMarked
from malformed import corpus
from masks import mask_settings
from scenes import noise
from worlds import World, masks_in

from surface_kernel.inference.settings import Settings
from surface_kernel.runs import competition
from surface_kernel.volumes.header import VolumeError, read_header
from surface_kernel.volumes.intensity import Intensity

GUESS = (5, 6, 7)  # where no header can be read; 320³ is tested elsewhere
GOOD = {f"good_{seed}": noise((20, 30, 30), seed) for seed in range(3)}


def test_bad_volumes_hurt_nobody(tmp_path, weights_once, quiet_logging, monkeypatch, long, tally):
    load = LoadMarked(settings=Settings(mask=mask_settings()))
    monkeypatch.setattr(competition, "LoadEngine", lambda files, settings: load)
    monkeypatch.setattr(competition, "USUAL_SHAPE_ZYX", GUESS)
    world = World.make(tmp_path, GOOD, [weights_once])
    images = world.competition / "test_images"
    bad = {path.stem: path for path in corpus(images, 0) if path.suffix == ".tif" and "." not in path.stem}
    if not long:
        bad = dict(random.Random(0).sample(sorted(bad.items()), 120))
    ids = [*GOOD, *bad]
    random.Random(1).shuffle(ids)
    with (world.competition / "test.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "scroll_id"), *((case, 1) for case in ids)])

    assert world.run() == 3
    masks, reports = masks_in(world.zip), world.report()["volumes"]
    assert set(masks) == set(ids)
    for case, image in GOOD.items():
        np.testing.assert_array_equal(masks[case], Intensity().table(image)[image] > 0)
    refused = 0
    for case, path in bad.items():
        report = reports[case]
        try:
            wanted = read_header(path).shape_zyx
        except VolumeError as error:
            wanted = error.shape_zyx or GUESS
            assert report["status"] == "zeros"
        assert masks[case].shape == wanted
        if report["status"] == "zeros":
            assert not masks[case].any()
            assert "expected " in report["reason"]
            refused += 1
    assert refused > len(bad) / 2
    tally("malformed inputs through the whole engine, a valid mask each", len(bad))
