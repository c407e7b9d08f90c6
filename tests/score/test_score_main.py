import csv
import json
import os
import subprocess
import sys
import zipfile
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from surface_score import score_case
from surface_score.__main__ import main

ROW = ["score", "topo_score", "surface_dice", "voi_score", "voi_split", "voi_merge", "dice", "betti"]
COUNTS = [
    f"{name}_{count}"
    for name in ("components", "tunnels", "cavities")
    for count in ("matched", "predicted", "true", "f1")
]


def write(path, volume):
    first, *rest = (Image.fromarray(page) for page in volume)
    first.save(path, format="TIFF", save_all=True, append_images=rest)


@pytest.fixture
def world(tmp_path):
    """Two cases: in "10" the prediction is the truth, in "9" it is three voxels off; a border is ignored."""
    for folder in ("pred", "truth"):
        (tmp_path / folder).mkdir()
    label = np.zeros((12, 14, 16), np.uint8)
    label[5] = 1
    label[:, :, :2] = 2
    volumes = {"10": ((label == 1).astype(np.uint8), label), "9": (np.roll(label == 1, 3, 0).astype(np.uint8), label)}
    for id_, (prediction, truth) in volumes.items():
        write(tmp_path / "pred" / f"{id_}.tif", prediction)
        write(tmp_path / "truth" / f"{id_}.tif", truth)
    return tmp_path, volumes


def run(folder, *more, pred="pred", truth="truth", workers=1):
    asked = ["--pred", str(folder / pred), "--truth", str(folder / truth), "--workers", str(workers)]
    return main([*asked, *map(str, more)])


def refusal(capsys):
    """Return the one line on stderr; stdout must be empty."""
    out, err = capsys.readouterr()
    assert out == ""
    [line] = err.splitlines()
    return line


def test_a_folder(world, capsys):
    folder, volumes = world
    assert run(folder, "--json", folder / "s.json", "--csv", folder / "s.csv") == 0
    found = json.loads((folder / "s.json").read_text())
    assert list(found) == ["mean", "cases"]
    assert list(found["cases"]) == ["10", "9"]
    for row in (found["mean"], *found["cases"].values()):
        assert list(row)[: len(ROW)] == ROW
        assert row["score"] == pytest.approx(0.3 * row["topo_score"] + 0.35 * (row["surface_dice"] + row["voi_score"]))
    assert found["mean"]["betti"] is None
    assert found["cases"]["10"]["betti"] == {"0": [0, 0, 0], "1": [0, 0, 0], "2": [0, 0, 0]}
    assert found["cases"]["10"]["score"] == 1.0
    for id_, arrays in volumes.items():
        assert found["cases"][id_] == score_case(*arrays).as_dict()
    assert found["cases"]["10"]["surface_dice"] == found["cases"]["10"]["dice"] == 1.0
    assert found["mean"]["surface_dice"] == pytest.approx((1 + found["cases"]["9"]["surface_dice"]) / 2)

    rows = list(csv.DictReader((folder / "s.csv").read_text().splitlines()))
    assert [row["id"] for row in rows] == ["10", "9"]
    assert list(rows[0])[-12:] == COUNTS
    assert [rows[0][name] for name in COUNTS] == ["0", "0", "0", ""] * 3
    assert float(rows[1]["voi_split"]) == found["cases"]["9"]["voi_split"]

    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert [line.split()[0].strip("-") if line else "" for line in lines] == [
        *("id", "", "9", "10", "", "mean"),  # the worst case first
        *("", "id", "", "9", "10"),
    ]
    assert lines[3].split()[1:4] == ["1.0000"] * 3
    assert lines[2].split()[-3:-1] == ["surface", "dice"]  # the largest loss of case 9
    assert lines[10].split()[1:] == ["0/0/0", "-"] * 3
    assert "warning" not in err
    assert sorted(path.name for path in folder.iterdir()) == ["pred", "s.csv", "s.json", "truth"]


def test_a_file_and_a_zip_score_as_the_folder_does(world, capsys):
    folder, _ = world
    with zipfile.ZipFile(folder / "submission.zip", "w") as archive:
        for path in (folder / "pred").iterdir():
            archive.write(path, path.name)
    assert run(folder) == 0
    whole = capsys.readouterr().out
    assert run(folder, pred="submission.zip") == 0
    assert capsys.readouterr().out == whole
    assert run(folder, pred="pred/9.tif", truth="truth/9.tif") == 0
    assert capsys.readouterr().out.splitlines()[2].split()[1:] == whole.splitlines()[2].split()[1:]


def test_workers_change_nothing_and_the_module_runs(world):
    folder, _ = world
    asked = ["--pred", folder / "pred", "--truth", folder / "truth"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    texts = []
    for workers in (1, 2):
        command = [sys.executable, "-m", "surface_score", *asked, "--workers", str(workers), "--json", "s.json"]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
        assert done.stderr == ""  # no progress bar where there is no terminal
        texts.append((done.stdout, (folder / "s.json").read_text()))
    assert texts[0] == texts[1]


def test_a_predicted_2_counts_and_is_warned_of(world, capsys):
    folder, volumes = world
    prediction, label = volumes["10"]
    write(folder / "pred" / "10.tif", np.where(prediction == 1, 2, 0).astype(np.uint8))
    assert run(folder, "--json", folder / "s.json") == 0
    assert json.loads((folder / "s.json").read_text())["cases"]["10"] == score_case(prediction, label).as_dict()
    assert f"warning: {folder}/pred/10.tif: a predicted 2 counts as foreground" in capsys.readouterr().err


@pytest.mark.parametrize("workers", [1, 2])
def test_a_wrong_shape_is_refused(world, capsys, workers):
    folder, _ = world
    write(folder / "pred" / "9.tif", np.zeros((12, 14, 15), np.uint8))
    assert run(folder, "--json", folder / "s.json", "--csv", folder / "s.csv", workers=workers) == 1
    line = refusal(capsys)
    assert line.startswith(
        f"surface_score: {folder}/pred/9.tif against {folder}/truth/9.tif: expected a prediction and"
    )
    assert "of one shape (z, y, x), got a prediction of shape (12, 14, 15) and a label of shape (12, 14, 16)" in line
    assert sorted(path.name for path in folder.iterdir()) == ["pred", "truth"]  # nothing half-written


def test_a_missing_and_a_surplus_id_are_refused(world, capsys):
    folder, _ = world
    (folder / "pred" / "9.tif").rename(folder / "pred" / "stray.tif")
    assert run(folder) == 1
    line = refusal(capsys)
    assert line.endswith("got no prediction for 1 id (9) and no truth for 1 id (stray)")


def test_an_unreadable_file_is_refused(world, capsys):
    folder, _ = world
    path = folder / "pred" / "10.tif"
    path.write_bytes(path.read_bytes()[:999])
    assert run(folder) == 1
    assert "pred/10.tif: expected a TIFF of greyscale pages, got an unreadable one" in refusal(capsys)


def test_a_strange_label_counts_and_is_warned_of(world, capsys):
    folder, volumes = world
    prediction, label = volumes["9"]
    write(folder / "truth" / "9.tif", np.where(label == 1, 255, label).astype(np.uint8))
    assert run(folder, "--json", folder / "s.json") == 0
    assert json.loads((folder / "s.json").read_text())["cases"]["9"] == score_case(prediction, label).as_dict()
    assert f"{folder}/truth/9.tif: holds values other than 0, 1 and 2 (255)" in capsys.readouterr().err


def test_an_inverted_mask_is_warned_of(world, capsys):
    folder, volumes = world
    prediction, _ = volumes["10"]
    write(folder / "pred" / "10.tif", 1 - prediction)
    assert run(folder) == 0
    [line] = capsys.readouterr().err.splitlines()
    assert "pred/10.tif against" in line
    assert line.endswith("91.67% of the labelled voxels are predicted and 8.33% are true: is the mask inverted?")


def test_breaks_the_score_down(world, capsys):
    folder, _ = world
    assert run(folder, "--explain", folder / "why") == 0
    made = ["10.json", "10.png", "10.txt", "9.json", "9.png", "9.txt", "worst_first.txt"]
    assert sorted(path.name for path in (folder / "why").iterdir()) == made
    assert [line.split()[0] for line in (folder / "why" / "worst_first.txt").read_text().splitlines()] == ["9", "10"]
    for id_ in ("9", "10"):
        page = (folder / "why" / f"{id_}.txt").read_text()
        found = json.loads((folder / "why" / f"{id_}.json").read_text())
        assert page.startswith(f"case {id_}: score {found['score']['score']:.4f}, ")
        with Image.open(folder / "why" / f"{id_}.png") as picture:
            assert min(picture.size) > 700
    assert sorted(path.name for path in folder.iterdir()) == ["pred", "truth", "why"]
    capsys.readouterr()
    assert run(folder, "--explain", folder / "why") == 1
    assert "why: expected a new or empty folder, got" in refusal(capsys)


def test_a_fault_leaves_no_breakdown(world, capsys):
    folder, _ = world
    path = folder / "pred" / "9.tif"  # the second of the two
    path.write_bytes(path.read_bytes()[:999])
    assert run(folder, "--explain", folder / "why", "--json", folder / "s.json") == 1
    assert "9.tif: expected a TIFF of greyscale pages, got an unreadable one" in refusal(capsys)
    assert sorted(path.name for path in folder.iterdir()) == ["pred", "truth"]


def test_what_cannot_be_written_is_refused_before_the_work(world, capsys):
    folder, _ = world
    (folder / "pred" / "9.tif").unlink()  # would be refused next
    for path in (folder / "no" / "s.json", folder / "pred"):
        assert run(folder, "--json", path) == 1
        assert f"{path}: expected a file in an existing folder, got" in refusal(capsys)


def test_a_dead_worker_is_named(world, capsys, monkeypatch):
    def die(_pairs, _workers, _explain_in):
        raise BrokenProcessPool

    monkeypatch.setattr("surface_score.__main__.score_pairs", die)
    assert run(world[0], "--json", world[0] / "s.json") == 1
    assert "expected 1 live worker processes, got a dead one" in refusal(capsys)
    assert not (world[0] / "s.json").exists()


def test_a_failed_write_leaves_nothing(world, capsys, monkeypatch):
    folder, _ = world

    def no_space(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", no_space)
    assert run(folder, "--json", folder / "s.json") == 1
    assert refusal(capsys) == "surface_score: [Errno 28] No space left on device"
    assert sorted(path.name for path in folder.iterdir()) == ["pred", "truth"]


@pytest.mark.parametrize("more", [["--workers", "0"], ["--workers", "two"], ["--unknown"]])
def test_bad_usage_exits_with_2(world, more):
    folder, _ = world
    with pytest.raises(SystemExit) as stopped:
        run(folder, *more)
    assert stopped.value.code == 2
