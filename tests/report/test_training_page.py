"""A run folder on the page: what was logged, decided and drawn, and folders that hold less."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from surface_report.__main__ import main
from surface_report.training.curves_of_run import curves_of_run, points, terms
from surface_report.training.decisions import decisions
from surface_report.training.run_files import PICTURES, read_run

HOSTILE = "</pre><script>document.title='hit'</script>"
LOG = """epoch,seconds,learning_rate,loss,dice,focal,variance_of_p,val_loss,val_score,val_foreground,val_truth
1,10.0,0.1,0.9,0.8,0.2,0.01,,,,
2,11.0,0.05,0.7,0.6,nan,0.02,0.8,0.4,0.3,0.1
3,12.0,0.01,0.6,0.5,0.1,0.03,0.7,0.5,0.2,0.1
4,13.0,0.0"""


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "settings.toml").write_text(f"epochs = 3\n# {HOSTILE}\n[average]\ngate_margin = 0.01\n")
    (folder / "log.csv").write_text(LOG)
    (folder / "environment.json").write_text(json.dumps({"commit": HOSTILE, "gpus": [], "libraries": {"torch": "2"}}))
    (folder / "split.json").write_text(json.dumps({"training": ["1", HOSTILE], "validation": ["2"]}))
    for number in range(1, 31):
        Image.fromarray(np.full((8, 8), number, np.uint8)).save(folder / f"epoch_{number}.png")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "average_of_3.png")
    return folder


def test_a_page_of_a_run(run, opened, tmp_path):
    assert main(["--run", str(run), "--out", str(tmp_path / "page.html")]) == 0
    page = opened(tmp_path / "page.html", width=400)
    section = page.locator("#training")
    assert "No weights have shipped yet" in section.inner_text()
    assert section.locator("svg").count() == 7
    page.locator("summary").first.click()
    assert HOSTILE in section.locator("pre").inner_text()
    assert page.title() == "Surface report: run"
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    slider, shown = page.locator("#training-picture"), section.locator("img:visible")
    assert shown.get_attribute("data-name") == "average of 3"
    slider.press("Home")
    assert (shown.count(), shown.get_attribute("data-name")) == (1, "epoch 1")
    slider.press("ArrowRight")
    assert page.locator("#training-picture-name").inner_text() == shown.get_attribute("data-name") != "epoch 1"


def test_a_log_is_read_up_to_its_last_line(run):
    rows = read_run(run).rows
    assert points(rows, "loss") == ([1, 2, 3], [0.9, 0.7, 0.6])
    assert points(rows, "focal") == ([1, 3], [0.2, 0.1])
    assert points(rows, "val_score") == ([2, 3], [0.4, 0.5])
    assert terms(rows) == ["dice", "focal"]
    foreground = next(chart for chart in curves_of_run(rows) if chart.id == "training-foreground")
    assert foreground.description == "predicted from 0.3 to 0.2; truth from 0.1 to 0.1"
    assert curves_of_run([]) == []


def test_pictures_are_spread_over_the_epochs(run):
    names = [path.stem for path in read_run(run).pictures]
    assert len(names) == PICTURES
    assert (names[0], names[-2], names[-1]) == ("epoch_1", "epoch_30", "average_of_3")


def described(score):
    return {"validation": {"score": score, "threshold": 0.5}}


def test_decisions_come_with_their_numbers():
    shipped = {"shipped": "swa", "n_averaged": 3, "epoch": 6, "epochs": 6, "finished": False}
    shipped |= {"validation": {"score": 0.5, "threshold": 0.45}, "score_by_threshold": {"0.4": 0.4, "0.45": 0.5}}
    run = SimpleNamespace(
        shipped=shipped, averaged=described(0.5), best=described(0.45), settings={"average": {"gate_margin": 0.01}}
    )
    first, gate, threshold, unfinished = decisions(run)
    assert first == "Shipped: the averaged weights, the mean of 3 epochs, after epoch 6 of 6."
    assert gate.startswith("Gate: 0.5000 averaged, 0.4500 best single, difference +0.0500;")
    assert gate.endswith("worse by more than 0.01.")
    assert threshold == "Threshold: 0.45, chosen among 2."
    assert "not finished" in unfinished
    run.shipped = {"shipped": "last", "epoch": 1, "epochs": 6, "validation": "ungated"}
    run.averaged = {}
    assert decisions(run)[1] == "The weights are ungated: they were not validated."


@pytest.mark.parametrize("name", ["weights.safetensors", "swa.safetensors", "plan.json", "split.json", "settings.toml"])
def test_a_broken_file_is_named(run, name):
    (run / name).write_bytes(b"{[broken")
    (fault,) = read_run(run).faults
    assert name in fault


def test_a_broken_picture_costs_its_own_part_only(run, tmp_path, capsys):
    (run / "log.csv").write_bytes(b"\xff{[broken")
    (run / "average_of_3.png").write_bytes(b"broken")
    assert main(["--run", str(run), "--out", str(tmp_path / "page.html")]) == 3
    assert "not shown: average_of_3.png" in capsys.readouterr().out


def test_a_plan_is_listed(run, tmp_path):
    (run / "plan.json").write_text('{"budget_s": 440, "steps": [1, 2]}')
    assert main(["--run", str(run), "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "<dt><bdi>budget s</bdi></dt><dd><bdi>440</bdi></dd>" in page
    assert "<dd><bdi>[1, 2]</bdi></dd>" in page


def test_a_folder_of_no_run_is_an_error(tmp_path, capsys):
    assert main(["--run", str(tmp_path), "--out", str(tmp_path / "page.html")]) == 1
    assert "expected a run folder of `surface_train fit`" in capsys.readouterr().out
