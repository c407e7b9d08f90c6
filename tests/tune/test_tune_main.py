"""The whole command on small volumes of three scrolls."""

import csv
import json
import tomllib

import numpy as np
import pytest
from scipy import ndimage

from surface_kernel.inference.settings import from_toml
from surface_kernel.postprocess.mask import make_mask
from surface_kernel.postprocess.mask_settings import MaskSettings
from surface_kernel.postprocess.steps import DropSmallComponents, Majority, Slit, Threshold
from surface_kernel.volumes.image_files import write_lzw
from surface_kernel.volumes.scanned import scanned_bits
from surface_tune import grid, scored
from surface_tune.__main__ import main
from surface_tune.grid import Candidate, GridError

SHAPE = (24, 28, 32)
GRID = """
thresholds = [0.5]

[[chain]]
steps = []

[[chain]]
steps = [{step = "slit"}]
"""


def pierced(seed, holes):
    """A wall of 3 voxels; where `holes` says so, with tunnels through it."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[4:7] = mask[16:19] = 1
    if holes:
        for y, x in np.random.default_rng(seed).integers(3, 24, (6, 2)):
            mask[:, y : y + 2, x : x + 2] = 0
    return mask


@pytest.fixture
def world(tmp_path):
    """Makes six volumes of three scrolls: predictions with tunnels, and labels with or without them."""

    def make(*, true_tunnels, scrolls=("x", "x", "y", "y", "z", "z")):
        data = tmp_path / "data"
        for folder in ("train_images", "train_labels"):
            (data / folder).mkdir(parents=True)
        (tmp_path / "logits").mkdir()
        with (data / "train.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "scroll_id"])
            writer.writerows(enumerate(scrolls))
        for seed in range(len(scrolls)):
            write_lzw(data / "train_images" / f"{seed}.tif", np.full(SHAPE, 9, np.uint8))
            write_lzw(data / "train_labels" / f"{seed}.tif", pierced(seed, true_tunnels))
            np.save(tmp_path / "logits" / f"{seed}.npy", (pierced(seed, True) * 8.0 - 4).astype(np.float16))
        (tmp_path / "grid.toml").write_text(GRID)
        return tmp_path

    return make


def tune(folder, *more):
    words = ["--logits", folder / "logits", "--data", folder / "data", "--out", folder / "out", "--workers", 1]
    return main([str(word) for word in (*words, "--grid", folder / "grid.toml", *more)])


def chosen_steps(folder):
    return [table["step"] for table in tomllib.loads((folder / "out" / "chain.toml").read_text())["postprocess"]]


def test_where_labels_have_no_tunnels_slit_is_chosen(world, capsys):
    folder = world(true_tunnels=False)
    (folder / "base.toml").write_text('views = ["none", "x"]\nthreshold = 0.3\n')
    assert tune(folder, "--settings", folder / "base.toml") == 0
    assert chosen_steps(folder) == ["threshold", "slit"]
    read = from_toml(folder / "out" / "chain.toml")
    assert (read.views, read.mask.steps) == (("none", "x"), (Threshold(threshold=0.5), Slit()))
    said = capsys.readouterr().out
    assert "2 chains on 6 volumes: 12 scores to be made, 0 are there already" in said
    table = (folder / "out" / "table.md").read_text()
    assert [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")][1:4] == ["x", "y", "z"]
    assert (folder / "out" / "picture.png").read_bytes()[1:4] == b"PNG"
    assert tune(folder) == 0
    assert "0 scores to be made, 12 are there already" in capsys.readouterr().out


def test_where_tunnels_of_labels_match_slit_is_left_out(world):
    folder = world(true_tunnels=True)
    assert tune(folder) == 0
    assert chosen_steps(folder) == ["threshold"]


def test_one_scroll_is_refused_unless_asked_by_case(world, capsys):
    folder = world(true_tunnels=False, scrolls=("x", "x", "x"))
    assert tune(folder) == 1
    assert "expected volumes of two scrolls, got one; --by case" in capsys.readouterr().out
    assert tune(folder, "--by", "case") == 0
    assert "volumes of one scroll vouch for one another" in capsys.readouterr().out


def test_other_logits_are_scored_anew_and_wrong_ones_named(world, capsys):
    folder = world(true_tunnels=False)
    assert tune(folder) == 0
    np.save(folder / "logits" / "0.npy", np.full(SHAPE, 3, np.float32))
    assert tune(folder) == 0
    assert "2 scores to be made, 10 are there already" in capsys.readouterr().out
    np.save(folder / "logits" / "0.npy", np.zeros((3, 4, 5), np.float32))
    assert tune(folder) == 1
    assert "0.npy: expected float16 or float32 logits of the label's shape" in capsys.readouterr().out
    for path in (folder / "logits").iterdir():
        path.unlink()
    assert tune(folder) == 1
    assert "of logits for cases of" in capsys.readouterr().out


def test_rows_say_what_they_are(world):
    folder = world(true_tunnels=False)
    assert tune(folder) == 0
    rows = [json.loads(path.read_text()) for path in (folder / "out" / "rows").iterdir()]
    assert {row["scroll"] for row in rows} == {"x", "y", "z"}
    assert {row["chain"] for row in rows} == {"threshold 0.5", "threshold 0.5, slit"}
    assert all(0 <= row["score"] <= 1 for row in rows)


def test_masks_with_common_beginnings_are_those_of_make_mask():
    """The default grid, on noise with a part that was not scanned."""
    field = ndimage.gaussian_filter(np.random.default_rng(0).normal(0, 9, SHAPE), 1.2).astype(np.float32)
    image = np.full(SHAPE, 9, np.uint8)
    image[:, :9] = 0
    scanned, drop = scanned_bits(image), DropSmallComponents(least_voxels=40, connectivity=6)
    steps = [(), (drop,), (Majority(rounds=2),), (Majority(rounds=2), drop), (Majority(rounds=2), drop, Slit())]
    candidates = [
        Candidate(settings=MaskSettings(steps=(Threshold(threshold=threshold), *more)))
        for threshold in (0.4, 0.6)
        for more in steps
    ]
    made = {candidate.key: mask.copy() for candidate, mask in scored.masks_of(field, scanned, candidates)}
    assert len(made) == len(candidates)
    for candidate in candidates:
        np.testing.assert_array_equal(made[candidate.key], make_mask(field, scanned, candidate.settings))


def test_the_default_grid_holds_what_a_bundle_takes():
    candidates = grid.default_grid()
    assert len({each.key for each in candidates}) == len(candidates) == 45
    assert "threshold 0.5, majority 6, drop 5000 6, slit" in {each.name for each in candidates}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("thresholds = [0.5", "expected a grid in TOML"),
        ("threshold = 0.5", "unknown entry threshold; expected thresholds and chain"),
        ("thresholds = [0.5]", r"expected a list of thresholds and \[\[chain\]\] tables"),
        ("[[chain]]\nsteps = 3", "chain: expected the one entry steps, a list of steps"),
        ('[[chain]]\nsteps = [{step = "melt"}]', "step: expected one of"),
        ("thresholds = [2]\n[[chain]]\nsteps = []", "threshold: expected a probability between 0 and 1, got 2"),
    ],
)
def test_a_grid_that_cannot_be_meant_is_refused(tmp_path, text, expected):
    (tmp_path / "grid.toml").write_text(text)
    with pytest.raises(GridError, match=expected):
        grid.read_grid(tmp_path / "grid.toml")


def test_a_chain_with_its_own_threshold_is_taken_once(tmp_path):
    text = (
        'thresholds = [0.4, 0.6]\n[[chain]]\nsteps = [{step = "hysteresis", low = 0.3, high = 0.8}, {step = "plug"}]\n'
    )
    (tmp_path / "grid.toml").write_text(text + "[[chain]]\nsteps = []\n[[chain]]\nsteps = []\n")
    names = [each.name for each in grid.read_grid(tmp_path / "grid.toml")]
    assert names == ["hysteresis 0.3 0.8, plug", "threshold 0.4", "threshold 0.6"]
