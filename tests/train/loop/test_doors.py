"""What a training refuses before its first step, what it can do without, and what it leaves when it does not begin."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from surface_kernel import disk
from surface_kernel.networks import weights
from surface_train.data.cases import Case
from surface_train.loop import step
from surface_train.loop.fit import Request, fit
from surface_train.records import curves, events, picture
from surface_train.records.run_folder import RunFolder, RunFolderError
from surface_train.settings import Average, Patches, TrainingSettings, TrainingSettingsError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def small_networks(with_small_networks: Callable, monkeypatch: Any) -> None:
    with_small_networks(monkeypatch)


@pytest.fixture
def asked(world: Any, tmp_path: Path) -> Request:
    """A run of one step and one validation."""
    request: Request = world.request(tmp_path / "run")
    average = Average(kind="swa", start_epoch=1, batchnorm_steps=1)
    return replace(request, settings=replace(request.settings, epochs=1, steps_per_epoch=1, average=average))


def without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw nothing: that takes longer than the training."""
    for module, name in ((curves, "draw"), (picture, "draw"), (events, "write")):
        monkeypatch.setattr(module, name, lambda *_, **__: None)


# --- inputs


def test_a_label_that_only_the_end_reads_is_refused_at_the_start(
    world: Any, tmp_path: Path, write_case: Callable, write_table: Callable, make_sheet: Callable
) -> None:
    """One validation case is scored after every epoch, the other one by the whole-fold check alone."""
    rows = [("1", "100"), ("2", "100"), ("3", "200")]
    for name, scroll in rows:
        image, label = make_sheet(0)
        if name == "2":
            label[0, 0, 0] = 255
        write_case(tmp_path / "data", name, scroll, image, label)
    write_table(tmp_path / "data", rows)
    with pytest.raises(ValueError, match=r'2\.tif: expected labels 0, 1 and 2 only, got 255 .* exclude = \["2"\]'):
        fit(replace(world.request(tmp_path / "run"), data=tmp_path / "data"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("batch", "side"), [(1, 32), (2, 32), (1, 64)])
def test_a_batchnorm_with_one_value_is_refused_by_its_setting(batch: int, side: int) -> None:
    def made() -> TrainingSettings:
        return TrainingSettings(patches=Patches(batch=batch, shape_zyx=(32, 32, side)))

    if (batch, side) != (1, 32):
        assert made()
        return
    with pytest.raises(TrainingSettingsError, match=r"patches\.batch: expected at least 2 .*, got 1"):
        made()


def test_a_start_that_never_trained_leaves_nothing_in_the_way(asked: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch)
    with monkeypatch.context() as patched:
        patched.setattr(step.Stepper, "step", lambda *_: (_ for _ in ()).throw(RuntimeError("out of memory")))
        with pytest.raises(RuntimeError, match="out of memory"):
            fit(asked)
    assert not asked.out.exists()
    asked.out.mkdir()
    (asked.out / "notes.txt").touch()  # of somebody else
    with pytest.raises(RunFolderError, match="got one with files"):
        fit(asked)
    assert [path.name for path in asked.out.iterdir()] == ["notes.txt"]


# --- by-products


def test_what_a_run_can_do_without_never_ends_it(
    asked: Request, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("module://matplotlib_inline.backend_inline")

    for module, name in ((curves, "draw"), (picture, "draw"), (events, "write")):
        monkeypatch.setattr(module, name, fail)
    whole = replace(asked.settings, validation=replace(asked.settings.validation, whole_fold=True))
    real, calls = Case.load, list[str]()

    def load(case: Case, *given: Any) -> Any:
        calls.append(case.name)
        if case.name == "12":  # which only the whole fold's score reads
            raise OSError(errno.EIO, "Input/output error", str(case.image))
        return real(case, *given)

    monkeypatch.setattr(Case, "load", load)
    shipped = fit(replace(asked, settings=whole))
    assert "12" in calls
    assert "whole_fold" not in weights.describe(shipped).provenance
    for name in ("curves.png", "events for TensorBoard", "the picture of Epoch 1", "the score of the whole fold"):
        assert len([line for line in caplog.messages if line.startswith(f"{name} left out: ")]) >= 1, name


def test_pictures_are_drawn_whatever_backend_the_environment_asks_for(tmp_path: Path) -> None:
    code = "from pathlib import Path; from surface_train.records import curves; curves.draw([], Path('a.png'))"
    notebook = {"MPLBACKEND": "module://not_installed.backend_inline"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=os.environ | notebook, check=False)
    assert (done.returncode, (tmp_path / "a.png").is_file()) == (0, True)


# --- two at once


def test_a_second_process_does_not_train_in_the_same_folder(asked: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch)
    fit(asked)
    before = {path.name: path.stat().st_mtime_ns for path in asked.out.iterdir()}
    refused = pytest.raises(RunFolderError, match=r"run: expected a run that nobody else continues, got one that")
    with RunFolder(asked.out).held(resume=True), refused:
        fit(replace(asked, resume=True))
    assert {path.name: path.stat().st_mtime_ns for path in asked.out.iterdir()} == before
    fit(replace(asked, resume=True))


def test_a_disk_without_locks_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(disk.fcntl, "flock", refuse)
    with RunFolder(tmp_path).held(resume=False):
        assert [line.partition(" has no locks")[0] for line in caplog.messages] == [str(tmp_path)]


# --- a full disk


def test_the_room_is_asked_for_before_an_epoch(asked: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch)
    monkeypatch.setattr(disk, "free_bytes", lambda folder: 1000)
    with pytest.raises(
        OSError, match=r"No space left on device: expected [\d,]+ bytes free for an epoch's files, got 1,000"
    ):
        fit(asked)
