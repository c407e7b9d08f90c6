import csv
import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from surface_train import record
from surface_train.cases import Case
from surface_train.folds import Split
from surface_train.record import Record, RecordError, commit, environment
from surface_train.validate import Predicted

SIDES = Split((Case("1", "5", Path(), Path()), Case("2", "5", Path(), Path())), (Case("3", "6", Path(), Path()),), "0")


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
    assert json.loads((run.folder / "environment.json").read_text()) == environment()


def test_an_empty_folder_may_be_used(tmp_path: Path, settings_file: Path) -> None:
    (tmp_path / "run").mkdir()
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
    assert not run.begin(settings_file, SIDES, resume=True)
    assert not (run.folder / "log.csv").exists()


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


def test_what_is_shipped_is_a_copy(tmp_path: Path) -> None:
    run = Record(tmp_path)
    for content in (b"first", b"second"):
        run.best.write_bytes(content)
        run.ship(run.best)
        assert run.weights.read_bytes() == content
    assert {path.name for path in tmp_path.iterdir()} == {"best.safetensors", "weights.safetensors"}


def test_a_picture_shows_the_mask_at_the_threshold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr("surface_train.picture.draw", lambda *given: drawn.append(given))
    probability = np.linspace(0, 1, 27, dtype=np.float32).reshape(3, 3, 3)
    image = np.zeros((3, 3, 3), np.uint8)
    Record(tmp_path).picture(Predicted(SIDES.validation[0], image, image, probability), 0.25, "epoch_7")
    ((path, _, _, mask, title),) = drawn
    assert (path, title) == (tmp_path / "epoch_7.png", "case 3, epoch_7")
    np.testing.assert_array_equal(mask, probability > 0.25)
    assert mask.dtype == np.uint8


def test_the_environment_names_versions_and_says_none_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "_LIBRARIES", ("numpy", "no-such-library"))
    found = environment()
    assert found["libraries"] == {"numpy": np.__version__, "no-such-library": None}
    assert found["commit"] == commit()
    assert re.fullmatch(r"3\.\d+\.\d+\S*", found["python"])
    assert json.loads(json.dumps(found)) == found


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
