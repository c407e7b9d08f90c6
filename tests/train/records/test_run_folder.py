import csv
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from masks import mask_settings
from PIL import Image
from scenes import ROOT

from surface_train.checks.validate import Predicted
from surface_train.data.cases import Case
from surface_train.data.folds import Split
from surface_train.loss_weights import LossWeights
from surface_train.records import events
from surface_train.records.environment import environment, origin
from surface_train.records.run_folder import RunFolder, RunFolderError

CASES = [
    Case(name=name, scroll=scroll, image=Path(), label=Path()) for name, scroll in (("1", "5"), ("2", "5"), ("3", "6"))
]
SIDES = Split(tuple(CASES[:2]), tuple(CASES[2:]), "0")


@pytest.fixture
def settings_file(tmp_path: Path) -> Path:
    path = tmp_path / "some.toml"
    path.write_text("# my run\nepochs = 100\n")
    return path


def rows(run: RunFolder) -> Sequence[dict[str, str]]:
    with (run.folder / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_begins_with_its_settings_split_and_environment(tmp_path: Path, settings_file: Path) -> None:
    run = RunFolder(tmp_path / "runs" / "some" / "fold_0")
    assert not run.begin(settings_file, SIDES, resume=False)
    assert (run.folder / "settings.toml").read_text() == settings_file.read_text()
    split = json.loads((run.folder / "split.json").read_text())
    assert split == {"training": ["1", "2"], "validation": ["3"], "sha256": SIDES.digest}
    assert json.loads((run.folder / "environment.json").read_text()) == environment() | {"init": None}
    assert {path.name for path in run.folder.iterdir()} == {"settings.toml", "split.json", "environment.json"}


def test_the_weights_that_a_run_starts_from_are_named_by_content_and_not_by_place(
    tmp_path: Path, settings_file: Path
) -> None:
    parent = tmp_path / "elsewhere" / "weights.safetensors"
    parent.parent.mkdir()
    parent.write_bytes(b"weights")
    run = RunFolder(tmp_path / "run")
    run.begin(settings_file, SIDES, resume=False, init=parent)
    wanted = {"name": "weights.safetensors", "sha256": hashlib.sha256(b"weights").hexdigest()}
    assert json.loads((run.folder / "environment.json").read_text())["init"] == wanted == origin(parent)
    assert origin(None) is None


def test_an_empty_folder_may_be_used(tmp_path: Path, settings_file: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.toml.partial").touch()  # of a run that was killed as it began
    RunFolder(tmp_path / "run").begin(settings_file, SIDES, resume=False)


def test_a_folder_with_files_is_never_overwritten(tmp_path: Path, settings_file: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.begin(settings_file, SIDES, resume=False)
    run.log({"epoch": 1})
    with pytest.raises(RunFolderError, match="run: expected a new or empty folder, got one with files; use --resume"):
        run.begin(settings_file, SIDES, resume=False)
    assert len(rows(run)) == 1


def test_there_must_be_a_run_to_resume(tmp_path: Path, settings_file: Path) -> None:
    with pytest.raises(RunFolderError, match=r"settings\.toml: no such file; expected the folder of a run to resume"):
        RunFolder(tmp_path / "none").begin(settings_file, SIDES, resume=True)
    assert not (tmp_path / "none").exists()


def test_a_run_with_a_state_goes_on_and_nothing_is_written(tmp_path: Path, settings_file: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.begin(settings_file, SIDES, resume=False)
    run.state.write_bytes(b"state")
    (run.folder / "environment.json").write_text("as it was")
    assert run.begin(settings_file, SIDES, resume=True)
    assert (run.folder / "environment.json").read_text() == "as it was"


def test_what_killed_processes_were_writing_is_removed_when_a_run_resumes(tmp_path: Path, settings_file: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.begin(settings_file, SIDES, resume=False)
    run.state.write_bytes(b"state")
    for name in ("state.safetensors.77.partial", "last.safetensors.78.partial", "state.safetensors.partial"):
        (run.folder / name).write_bytes(b"half")
    with pytest.raises(RunFolderError):
        run.begin(settings_file, SIDES, resume=False)
    assert len(list(run.folder.glob("*.partial"))) == 3  # a folder that is refused is not touched
    assert run.begin(settings_file, SIDES, resume=True)
    assert not list(run.folder.glob("*.partial"))


def test_a_run_killed_before_its_first_state_begins_anew(tmp_path: Path, settings_file: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.begin(settings_file, SIDES, resume=False)
    run.log({"epoch": 1})
    events.write(run.folder / "events", {"epoch": 1, "loss": 0.5})
    assert not run.begin(settings_file, SIDES, resume=True)
    assert not (run.folder / "log.csv").exists()
    assert list((run.folder / "events").iterdir()) == []


def test_the_table_has_one_line_of_names_and_a_line_an_epoch(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for epoch in (1, 2):
        run.log({"epoch": epoch, "loss": 0.1 + 0.2, "val_dice": ""})
    assert (tmp_path / "log.csv").read_bytes().splitlines()[0] == b"epoch,loss,val_dice"
    assert rows(run) == [{"epoch": str(n), "loss": "0.30000000000000004", "val_dice": ""} for n in (1, 2)]


def test_lines_after_the_last_state_are_forgotten_and_the_others_kept_to_the_byte(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.forget_after(3)  # nothing was written yet
    for epoch in range(1, 4):
        run.log({"epoch": epoch, "loss": epoch / 3})
    before = (tmp_path / "log.csv").read_bytes().splitlines(keepends=True)
    run.forget_after(2)
    assert (tmp_path / "log.csv").read_bytes() == b"".join(before[:3])
    run.log({"epoch": 3, "loss": 1.0})
    assert (tmp_path / "log.csv").read_bytes() == b"".join([*before, b""]).replace(before[3], b"3,1.0\r\n")
    run.forget_after(0)
    assert (tmp_path / "log.csv").read_bytes() == before[0]
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]


# --- a run that is killed as it writes


@pytest.mark.parametrize("cut", range(1, 9))
def test_a_half_written_last_line_is_none(tmp_path: Path, cut: int) -> None:
    run = RunFolder(tmp_path)
    for epoch in (1, 2, 3):
        run.log({"epoch": epoch, "loss": 0.25})
    whole = (tmp_path / "log.csv").read_bytes()
    assert whole.endswith(b"\r\n3,0.25\r\n")
    (tmp_path / "log.csv").write_bytes(whole[:-cut])
    assert [row["epoch"] for row in run.rows()] == ["1", "2"]
    run.forget_after(3)
    run.log({"epoch": 3, "loss": 0.25})
    assert (tmp_path / "log.csv").read_bytes() == whole


@pytest.mark.parametrize("content", [b"", b"epo", b"epoch,loss", b"epoch,loss\r"])
def test_a_half_written_first_line_is_none(tmp_path: Path, content: bytes) -> None:
    run = RunFolder(tmp_path)
    (tmp_path / "log.csv").write_bytes(content)
    assert run.rows() == []
    run.forget_after(3)
    assert not (tmp_path / "log.csv").exists()
    (tmp_path / "log.csv").write_bytes(content)
    run.log({"epoch": 1, "loss": 0.5})
    assert run.rows() == [{"epoch": "1", "loss": "0.5"}]


def test_without_a_log_there_are_no_rows(tmp_path: Path) -> None:
    assert RunFolder(tmp_path).rows() == []


def test_rows_of_other_columns_are_not_mixed(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.log({"epoch": 1, "loss": 0.5})
    with pytest.raises(RunFolderError, match=r"log\.csv: expected columns epoch, loss, got epoch, loss, dice"):
        run.log({"epoch": 2, "loss": 0.5, "dice": 0.1})
    assert len(run.rows()) == 1


@pytest.mark.parametrize("name", ["settings.toml", "split.json", "environment.json", "log.csv"])
def test_a_file_is_there_whole_or_not_at_all(
    tmp_path: Path, settings_file: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    run, real = RunFolder(tmp_path / "run"), Path.open

    def full(path: Path, mode: str = "r", *rest, **named):
        file = real(path, mode, *rest, **named)
        if mode == "wb" and path.name.startswith(f"{name}."):
            file.write(b"the first half")
            file.close()
            raise OSError("no space left")
        return file

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OSError, match="no space left"):  # noqa: PT012, each of them writes one of the files
        run.begin(settings_file, SIDES, resume=False)
        run.log({"epoch": 1})
    assert not list(run.folder.glob(f"{name}*"))


_WRITER = """
import sys
from pathlib import Path
from surface_train.records.run_folder import RunFolder
run = RunFolder(Path(sys.argv[1]))
for epoch in range(1, 1_000_000):
    run.log({"epoch": epoch, "loss": epoch / 3, "note": "x" * 5000})
    if epoch % 50 == 0:
        run.forget_after(epoch - 20)
"""


def test_a_log_survives_kill_9(tmp_path: Path) -> None:
    paths = os.pathsep.join(str(ROOT / room) for room in ("kernel", "train"))
    command = [sys.executable, "-c", _WRITER, str(tmp_path)]
    child = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"})
    table = tmp_path / "log.csv"
    while child.poll() is None and not (table.exists() and table.stat().st_size > 500_000):
        time.sleep(0.01)
    child.kill()
    child.wait()
    found = RunFolder(tmp_path).rows()
    assert len(found) > 20
    assert {row["note"] for row in found} == {"x" * 5000}
    assert all(row["loss"] == str(int(row["epoch"]) / 3) for row in found)


# --- pictures and weights


def test_an_epoch_is_shown_as_curves_and_as_events(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "epoch_1.png")
    for epoch in (1, 2):
        row = {"epoch": epoch, "loss": 0.5 / epoch, "val_dice": ""}
        run.log(row)
        run.show(row, LossWeights(), tmp_path / "epoch_1.png" if epoch == 1 else None)
    with Image.open(tmp_path / "curves.png") as opened:
        assert opened.format == "PNG"
    assert len(list((tmp_path / "events").iterdir())) == 2
    run.forget_after(1)
    assert len(list((tmp_path / "events").iterdir())) == 1
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".partial"]


def test_the_names_of_the_weights(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    names = {path.name for path in (run.last, run.best, run.averaged, run.weights, run.state)}
    wanted = {f"{name}.safetensors" for name in ("last", "best", "swa", "weights", "state")}
    assert names == wanted


def test_events_that_stayed_behind_are_written_from_the_log(tmp_path: Path) -> None:
    run, drawn = RunFolder(tmp_path), LossWeights()
    Image.new("RGB", (8, 8)).save(tmp_path / "epoch_1.png")
    for epoch in (1, 2, 3):
        row = {"epoch": epoch, "loss": 0.5 / epoch, "val_dice": ""}
        run.log(row)
    run.show(row, drawn)
    made = {path.name: path.stat() for path in (tmp_path / "events").iterdir()}
    assert sorted(made) == [f"events.out.tfevents.{epoch:06}" for epoch in (1, 2, 3)]
    assert made["events.out.tfevents.000001"].st_size > made["events.out.tfevents.000002"].st_size  # it has a picture
    run.show(row, drawn)
    kept = {path.name for path in (tmp_path / "events").iterdir() if path.stat().st_ino == made[path.name].st_ino}
    assert kept == {"events.out.tfevents.000001", "events.out.tfevents.000002"}


def test_without_tensorboard_an_epoch_is_drawn_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "surface_train")
    monkeypatch.setattr(events, "find_spec", lambda name: None)
    events.can_write.cache_clear()
    run = RunFolder(tmp_path)
    for epoch in (1, 2):
        row = {"epoch": epoch, "loss": 0.5}
        run.log(row)
        run.show(row, LossWeights())
    events.can_write.cache_clear()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "log.csv"]
    assert [entry.getMessage() for entry in caplog.records] == [
        "TensorBoard is not installed: no events are written; a resumed run makes up for them from log.csv"
    ]


def test_a_picture_shows_the_mask_at_the_threshold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr("surface_train.records.picture.draw", lambda path, **given: drawn.append((path, given)))
    field = np.arange(-6, 6, dtype=np.float32).reshape(2, 2, 3)
    image = np.zeros((2, 2, 3), np.uint8)
    case = SIDES.validation[0]
    predicted = Predicted(
        case=case,
        image=image,
        label=image,
        field=field,
        scanned=None,
        mask_settings=mask_settings(),
        variance=0.1,
        entropy=0.1,
    )
    assert RunFolder(tmp_path).picture(predicted, 0.5, "epoch_7") == tmp_path / "epoch_7.png"
    ((path, given),) = drawn
    assert (path, given["title"]) == (tmp_path / "epoch_7.png", "case 3, epoch_7")
    np.testing.assert_array_equal(given["mask"], field > 0)
    assert given["mask"].dtype == np.uint8
