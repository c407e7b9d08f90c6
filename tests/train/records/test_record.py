import csv
import getpass
import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scenes import ROOT

from surface_train.checks.validate import THRESHOLDS, Predicted
from surface_train.data.cases import Case
from surface_train.data.folds import Split
from surface_train.loss_weights import LossWeights
from surface_train.records import events, record
from surface_train.records.record import Record, RecordError, commit, environment, origin

CASES = [
    Case(name=name, scroll=scroll, image=Path(), label=Path()) for name, scroll in (("1", "5"), ("2", "5"), ("3", "6"))
]
SIDES = Split(tuple(CASES[:2]), tuple(CASES[2:]), "0")


@pytest.fixture
def settings_file(tmp_path: Path) -> Path:
    path = tmp_path / "some.toml"
    path.write_text("# my run\nepochs = 100\n")
    return path


def rows(run: Record) -> Sequence[dict[str, str]]:
    with (run.folder / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_begins_with_its_settings_split_and_environment(tmp_path: Path, settings_file: Path) -> None:
    run = Record(tmp_path / "runs" / "some" / "fold_0")
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
    run = Record(tmp_path / "run")
    run.begin(settings_file, SIDES, resume=False, init=parent)
    wanted = {"name": "weights.safetensors", "sha256": hashlib.sha256(b"weights").hexdigest()}
    assert json.loads((run.folder / "environment.json").read_text())["init"] == wanted == origin(parent)
    assert origin(None) is None


def test_an_empty_folder_may_be_used(tmp_path: Path, settings_file: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.toml.partial").touch()  # of a run that was killed as it began
    Record(tmp_path / "run").begin(settings_file, SIDES, resume=False)


def test_a_folder_with_files_is_never_overwritten(tmp_path: Path, settings_file: Path) -> None:
    run = Record(tmp_path / "run")
    run.begin(settings_file, SIDES, resume=False)
    run.log({"epoch": 1})
    with pytest.raises(RecordError, match="run: found a folder with files, wanted a new one, or --resume"):
        run.begin(settings_file, SIDES, resume=False)
    assert len(rows(run)) == 1


def test_there_must_be_a_run_to_resume(tmp_path: Path, settings_file: Path) -> None:
    with pytest.raises(RecordError, match=r"found no settings\.toml, wanted a run to resume"):
        Record(tmp_path / "none").begin(settings_file, SIDES, resume=True)
    assert not (tmp_path / "none").exists()


def test_a_run_with_a_state_goes_on_and_nothing_is_written(tmp_path: Path, settings_file: Path) -> None:
    run = Record(tmp_path / "run")
    run.begin(settings_file, SIDES, resume=False)
    run.state.write_bytes(b"state")
    (run.folder / "environment.json").write_text("as it was")
    assert run.begin(settings_file, SIDES, resume=True)
    assert (run.folder / "environment.json").read_text() == "as it was"


def test_a_run_killed_before_its_first_state_begins_anew(tmp_path: Path, settings_file: Path) -> None:
    run = Record(tmp_path / "run")
    run.begin(settings_file, SIDES, resume=False)
    run.log({"epoch": 1})
    events.write(run.folder / "events", {"epoch": 1, "loss": 0.5})
    assert not run.begin(settings_file, SIDES, resume=True)
    assert not (run.folder / "log.csv").exists()
    assert list((run.folder / "events").iterdir()) == []


def test_the_table_has_one_line_of_names_and_a_line_an_epoch(tmp_path: Path) -> None:
    run = Record(tmp_path)
    for epoch in (1, 2):
        run.log({"epoch": epoch, "loss": 0.1 + 0.2, "val_dice": ""})
    assert (tmp_path / "log.csv").read_bytes().splitlines()[0] == b"epoch,loss,val_dice"
    assert rows(run) == [{"epoch": str(n), "loss": "0.30000000000000004", "val_dice": ""} for n in (1, 2)]


def test_lines_after_the_last_state_are_forgotten_and_the_others_kept_to_the_byte(tmp_path: Path) -> None:
    run = Record(tmp_path)
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
    run = Record(tmp_path)
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
    run = Record(tmp_path)
    (tmp_path / "log.csv").write_bytes(content)
    assert run.rows() == []
    run.forget_after(3)
    assert not (tmp_path / "log.csv").exists()
    (tmp_path / "log.csv").write_bytes(content)
    run.log({"epoch": 1, "loss": 0.5})
    assert run.rows() == [{"epoch": "1", "loss": "0.5"}]


def test_without_a_log_there_are_no_rows(tmp_path: Path) -> None:
    assert Record(tmp_path).rows() == []


def test_rows_of_other_columns_are_not_mixed(tmp_path: Path) -> None:
    run = Record(tmp_path)
    run.log({"epoch": 1, "loss": 0.5})
    with pytest.raises(RecordError, match=r"log\.csv: found columns epoch, loss, wanted epoch, loss, dice"):
        run.log({"epoch": 2, "loss": 0.5, "dice": 0.1})
    assert len(run.rows()) == 1


@pytest.mark.parametrize("name", ["settings.toml", "split.json", "environment.json", "log.csv"])
def test_a_file_is_there_whole_or_not_at_all(
    tmp_path: Path, settings_file: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    run, real = Record(tmp_path / "run"), Path.open

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
from surface_train.records.record import Record
run = Record(Path(sys.argv[1]))
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
    found = Record(tmp_path).rows()
    assert len(found) > 20
    assert {row["note"] for row in found} == {"x" * 5000}
    assert all(row["loss"] == str(int(row["epoch"]) / 3) for row in found)


# --- pictures and weights


def test_an_epoch_is_shown_as_curves_and_as_events(tmp_path: Path) -> None:
    run = Record(tmp_path)
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
    run = Record(tmp_path)
    names = {path.name for path in (run.last, run.best, run.averaged, run.weights, run.state)}
    wanted = {f"{name}.safetensors" for name in ("last", "best", "swa", "weights", "state")}
    assert names == wanted


def test_events_that_stayed_behind_are_written_from_the_log(tmp_path: Path) -> None:
    run, drawn = Record(tmp_path), LossWeights()
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
    run = Record(tmp_path)
    for epoch in (1, 2):
        row = {"epoch": epoch, "loss": 0.5}
        run.log(row)
        run.show(row, LossWeights())
    events.can_write.cache_clear()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "log.csv"]
    assert [entry.getMessage() for entry in caplog.records] == [
        "no events for TensorBoard: it is not installed here; a resumed run writes them from log.csv"
    ]


def test_code_from_wheels_has_the_commit_that_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SURFACE_COMMIT", "c0ffee")
    assert commit() == "c0ffee"
    monkeypatch.setenv("SURFACE_COMMIT", "")
    assert commit() != ""


def test_a_picture_shows_the_mask_at_the_threshold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr("surface_train.records.picture.draw", lambda *given: drawn.append(given))
    levels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    image = np.zeros((2, 2, 3), np.uint8)
    predicted = Predicted(SIDES.validation[0], image, image, levels, 0.1, 0.1)
    assert Record(tmp_path).picture(predicted, THRESHOLDS[4], "epoch_7") == tmp_path / "epoch_7.png"
    ((path, _, _, mask, title),) = drawn
    assert (path, title) == (tmp_path / "epoch_7.png", "case 3, epoch_7")
    np.testing.assert_array_equal(mask, levels > 4)
    assert mask.dtype == np.uint8


def test_the_environment_names_versions_and_says_none_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "_LIBRARIES", ("numpy", "no-such-library"))
    found = environment()
    assert found["libraries"] == {"numpy": np.__version__, "no-such-library": None}
    assert found["commit"] == commit()
    assert re.fullmatch(r"3\.\d+\.\d+\S*", found["python"])
    assert json.loads(json.dumps(found)) == found


def test_the_environment_tells_the_machine_and_not_whose_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"card {index}")
    found = environment()
    assert found["gpus"] == ["card 0", "card 1"]
    assert found["cuda"] == torch.version.cuda
    assert found["cores"] >= 1
    assert found["memory_gib"] > 0.1
    assert found["torch_threads"] == torch.get_num_threads()
    values = json.dumps(found)
    for word in (socket.gethostname(), str(Path.home()), str(Path(__file__).parent)):
        assert f'"{word}' not in values
    assert f'"{getpass.getuser()}"' not in values


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (None, None),
        ("processor : 0\n", None),
        ("processor : 0\nmodel name\t: A CPU: fast\nmodel name\t: another\n", "A CPU: fast"),
    ],
)
def test_the_processor_is_named_where_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, name: str | None
) -> None:
    told = tmp_path / "cpuinfo"
    if content is not None:
        told.write_text(content)
    monkeypatch.setattr(record, "Path", lambda path: told)
    assert record._cpu() == name


def test_outside_a_checkout_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "__file__", str(tmp_path / "record.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert commit() is None
    monkeypatch.setenv("PATH", "")
    assert commit() is None


def test_a_commit_is_marked_when_files_were_changed_since(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> str:
        who = ("-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false")
        done = subprocess.run(["git", *who, *words], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init")
    (tmp_path / "record.py").write_text("one")
    git("add", "record.py")
    git("commit", "-m", "one")
    monkeypatch.setattr(record, "__file__", str(tmp_path / "record.py"))
    assert commit() == git("rev-parse", "HEAD")
    (tmp_path / "record.py").write_text("two")
    assert commit() == git("rev-parse", "HEAD") + "-dirty"
