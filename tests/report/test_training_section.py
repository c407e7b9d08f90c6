"""What the page says of a run, finished or not, of which everything may be missing but the settings."""

import json

import numpy as np
import pytest
from PIL import Image

from surface_report.inputs import Inputs, PageError
from surface_report.training.run_log import read_run
from surface_report.training.training_section import training_section

HEADER = "epoch,seconds,learning_rate,loss,dice,focal,variance_of_p,val_loss,val_score,val_foreground,val_truth\n"
LOG = f"{HEADER}1,9.5,0.001,0.9,0.8,0.1,0.01,,,,\n2,9.1,0.0005,0.7,0.6,0.1,0.02,0.65,0.41,0.2,0.1\n3,9.0,0.00"
HOSTILE = '<script>alert("x")</script>'


@pytest.fixture
def run(tmp_path):
    """A run that was killed in its third epoch's line."""
    (tmp_path / "log.csv").write_text(LOG)
    (tmp_path / "settings.toml").write_text(f"# {HOSTILE}\nepochs = 3\n")
    (tmp_path / "environment.json").write_text(json.dumps({"commit": HOSTILE, "init": None}))
    for epoch in (2, 10):
        Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / f"epoch_{epoch}.png")
    return tmp_path


def test_a_run_is_read_up_to_its_last_whole_line(run):
    read = read_run(run)
    assert read.epochs == [1, 2]
    assert read.terms == ["dice", "focal"]
    assert read.column("val_score")[1] == 0.41
    assert np.isnan(read.column("val_score")[0])
    assert [path.name for path in read.pictures] == ["epoch_2.png", "epoch_10.png"]
    assert (read.plan, read.files, read.faults) == ({}, {}, ())


def test_the_section_has_the_curves_the_pictures_and_what_is_hostile_as_text(run):
    section = training_section(Inputs(run=run))
    assert section is not None
    body = str(section.body)
    for id_ in ("training-loss", "training-scores", "training-foreground", "training-rate", "training-seconds"):
        assert f'id="{id_}"' in body
    assert "loss: 0.9 to 0.7" in body  # of who does not see the chart
    assert body.count("data:image/webp;base64,") == 2
    assert "<script>" not in body
    assert "&lt;script&gt;" in body


def test_a_run_that_has_not_logged_an_epoch_is_a_section_too(tmp_path):
    (tmp_path / "settings.toml").write_text("epochs = 3\n")
    section = training_section(Inputs(run=tmp_path))
    assert section is not None
    assert "0 epochs in the log" in section.body


def test_what_cannot_be_read_is_told(run):
    (run / "environment.json").write_text("[")
    (run / "best.safetensors").write_bytes(b"no")
    section = training_section(Inputs(run=run))
    assert section is not None
    assert [fault.split(":")[0].rsplit("/", 1)[1] for fault in section.faults] == [
        "best.safetensors",
        "environment.json",
    ]


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    assert training_section(Inputs()) is None
    with pytest.raises(PageError, match="expected a run folder of `surface_train fit`, with settings"):
        training_section(Inputs(run=tmp_path))
