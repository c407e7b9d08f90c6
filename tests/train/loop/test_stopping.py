"""Signals to a training: they wait for the step and its state, and are obeyed at once where nothing can be lost."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from surface_kernel.interrupts import Stopped
from surface_train.__main__ import main
from surface_train.loop import epoch, step
from surface_train.loop.budget import StopSignals
from surface_train.loop.fit import fit
from surface_train.records.run_folder import RunFolder
from surface_train.settings import Validation

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def small_networks(with_small_networks: Callable, monkeypatch: Any) -> None:
    with_small_networks(monkeypatch)
    monkeypatch.setattr(RunFolder, "picture", lambda *_: None)
    monkeypatch.setattr(RunFolder, "show", lambda *_: None)


@pytest.fixture(autouse=True)
def signals_as_usual() -> Iterator[None]:
    """Handle Ctrl-C as Python does, also where these tests run in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def signalled(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, at: int, number: int) -> list[int]:
    """Let a function send a signal to this process at its n-th call, before it does what it does."""
    real, calls = getattr(owner, name), list[int]()

    def call(*given: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == at:
            os.kill(os.getpid(), number)
        return real(*given, **named)

    monkeypatch.setattr(owner, name, call)
    return calls


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_a_step_ends_the_run_after_it_with_its_state(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, number: int, code: int
) -> None:
    calls = signalled(monkeypatch, step.Stepper, "step", at=3, number=number)
    words = {"--settings": str(world.settings_file), "--data": str(world.data), "--fold": "all", "--device": "cpu"}
    line = ["fit", *(part for pair in words.items() for part in pair), "--out", str(tmp_path / "run")]
    assert main(line) == code
    assert len(calls) == 3
    said = capsys.readouterr().out.splitlines()
    assert said[-2:] == [
        f"{signal.Signals(number).name}: stopping after this step; a second one stops at once",
        "stopped at step 3; resume with --resume",
    ]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert main([*line, "--resume"]) == 0
    assert len(calls) == 8


def test_one_in_a_validation_ends_the_run_at_once_and_no_step_is_lost(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = world.request(tmp_path / "run")
    asked = replace(
        request, settings=replace(request.settings, epochs=3, validation=Validation(every_epochs=1, cases=1))
    )
    steps = signalled(monkeypatch, step.Stepper, "step", at=0, number=0)
    validations = signalled(monkeypatch, epoch, "_validate", at=2, number=signal.SIGTERM)
    with pytest.raises(Stopped, match=r"stopped at step 4; resume with --resume"):
        fit(asked)
    assert (len(steps), len(validations)) == (4, 2)
    fit(replace(asked, resume=True))
    assert (len(steps), len(validations)) == (6, 4)
    assert [row["epoch"] for row in RunFolder(asked.out).rows()] == ["1", "2", "3"]


def test_one_before_the_first_step_leaves_nothing(world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signalled(monkeypatch, RunFolder, "begin", at=1, number=signal.SIGTERM)
    with pytest.raises(Stopped, match="stopped before the first step"):
        fit(world.request(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_second_one_is_the_systems() -> None:
    with StopSignals() as stop:
        with suppress(Stopped), stop.held():
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.number == signal.SIGTERM
        assert {signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)} == {signal.SIG_DFL}


def test_what_is_ignored_stays_ignored() -> None:
    """As a shell starts what it puts in the background: Ctrl-C is for what is in front."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
    assert stop.number == 0
