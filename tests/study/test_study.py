"""The whole study in small: tiny phantoms, networks of two layers, one process."""

import json
import logging
import os
import re
import shutil
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from surface_study import arm, plan, work
from surface_study.__main__ import DONE, FAILED, main
from surface_study.page import BY_HAND, END_BY_HAND
from surface_study.plan import QUICK, Arm
from surface_study.work import Piece, WorkError
from surface_train.records.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("one_thread")
ARM = Arm("calibrated", "surface", 0)


@pytest.fixture(scope="module")
def small(one_thread: None, with_small_networks: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the study once; read-only."""
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patched:
        with_small_networks(patched)
        patched.setattr(RunFolder, "show", lambda *_: None)  # curves take longer than the training
        assert run(folder) == DONE
    return folder


@pytest.fixture
def again(small: Path, tmp_path: Path, with_small_networks: Callable, monkeypatch: Any) -> Path:
    """Copy the finished study, to be damaged."""
    with_small_networks(monkeypatch)
    monkeypatch.setattr(RunFolder, "show", lambda *_: None)
    shutil.copytree(small, tmp_path, dirs_exist_ok=True)
    return tmp_path


def run(folder: Path) -> int:
    return main(["--work", str(folder / "work"), "--docs", str(folder / "docs"), "--quick", "--workers", "0"])


def times(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in (folder / "work").rglob("*") if p.is_file()}


@pytest.mark.slow
def test_every_arm_leaves_its_numbers(small: Path) -> None:
    for one in QUICK.arms():
        result = arm.load_result(small / "work", one)
        assert [epoch["epoch"] for epoch in result.epochs] == [1, 2]
        assert {"loss", "variance_of_p", "dice"} <= set(result.epochs[0])
        assert len(result.volumes) == QUICK.unseen
        assert result.picture.shape == (64, 64)
        reading, _ = arm.load_reading(small / "work", one)
        assert reading.twice == pytest.approx(78**3 / 80**3)
    assert len(QUICK.arms()) == 8


@pytest.mark.slow
def test_of_an_arms_weights_only_those_that_are_read_stay(small: Path) -> None:
    kept = sorted(path.name for path in arm.folder(small / "work", ARM).rglob("*.safetensors"))
    assert kept == ["weights.safetensors"]


@pytest.mark.slow
def test_the_same_seed_has_the_same_first_weights_and_another_loss_other_last_ones(small: Path) -> None:
    first = {
        one.preset: arm.load_result(small / "work", one).volumes for one in QUICK.arms() if one.label_2 == "ignored"
    }
    assert len({volumes[0].variance for volumes in first.values()}) == 4


@pytest.mark.slow
def test_the_page_has_every_part_and_no_number_that_is_none(small: Path) -> None:
    text = (small / "docs" / "bias_study.md").read_text()
    heads = re.findall("^## (.*)", text, re.MULTILINE)
    assert heads == [
        *("In short", "The data", "The losses", "The same networks under the reference's inference"),
        *("Against the guide's expected results", "Every row of the guide", "How this page was produced"),
    ]
    assert "nan" not in text
    assert str(small) not in text
    assert (small / "docs" / "bias_study.png").stat().st_size > 10_000
    tables = [block for block in text.split("\n\n") if block.startswith("|")]
    for table in tables:
        assert len({line.count(" | ") for line in table.splitlines() if not line.startswith("| ---")}) == 1


@pytest.mark.slow
def test_what_is_done_is_not_done_again(again: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = times(again)
    with caplog.at_level(logging.INFO, logger="surface_study"):
        assert run(again) == DONE
    assert times(again) == before


@pytest.mark.slow
def test_what_was_written_by_hand_stays(again: Path) -> None:
    page = again / "docs" / "bias_study.md"
    page.write_text(page.read_text().replace(f"{BY_HAND}\n", f"{BY_HAND}\nA person's judgement, 5 % of it."))
    assert run(again) == DONE
    assert "A person's judgement, 5 % of it." in page.read_text()
    assert page.read_text().count(BY_HAND) == page.read_text().count(END_BY_HAND) == 1


@pytest.mark.slow
def test_a_result_of_another_plan_is_not_used(again: Path) -> None:
    path = arm.folder(again / "work", ARM) / arm.RESULT
    path.write_text(json.dumps(json.loads(path.read_text()) | {"plan": "other"}))
    assert not arm.is_done(path, QUICK)
    arm.train(again / "work", QUICK, ARM)
    assert arm.is_done(path, QUICK)


@pytest.mark.slow
def test_other_settings_begin_an_arm_anew(again: Path) -> None:
    place = arm.folder(again / "work", ARM)
    (place / f"{ARM.name}.toml").write_text("epochs = 1")
    (place / "left_over").touch()
    arm.train(again / "work", QUICK, ARM)
    assert not (place / "left_over").exists()
    assert arm.is_done(place / arm.RESULT, QUICK)


@pytest.mark.slow
def test_a_killed_training_is_resumed_and_gives_the_same(
    again: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = arm.folder(again / "work", ARM)
    shutil.rmtree(place)
    saved = RunFolder.log

    def die(record: Any, row: Any) -> None:
        if row["epoch"] == 2:
            raise KeyboardInterrupt
        saved(record, row)

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "log", die)
        with pytest.raises(KeyboardInterrupt):
            arm.train(again / "work", QUICK, ARM)
    assert not (place / arm.RESULT).exists()
    arm.train(again / "work", QUICK, ARM)
    first, second = (arm.load_result(folder / "work", ARM) for folder in (small, again))
    assert second.volumes == first.volumes


# --- processes


@pytest.fixture
def fake_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that puts a shell script in the place of Python."""

    def put(body: str) -> None:
        script = tmp_path / "python"
        script.write_text(f"#!/bin/sh\n{body}\n")
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(sys, "executable", str(script))

    return put


def test_each_piece_is_a_process_of_one_thread_on_one_core(
    tmp_path: Path, fake_python: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5})
    fake_python('echo "$OMP_NUM_THREADS $NUMBA_NUM_THREADS $*"')
    wanted = [Piece("train", Arm("original", "ignored", seed)) for seed in range(4)]
    work.run_pieces(wanted, work=tmp_path, plan=QUICK, workers=2, quick=True)
    said = [(tmp_path / f"original-ignored-{seed}.train.log").read_text() for seed in range(4)]
    assert all(line.startswith("1 1 -m surface_study --work ") for line in said)
    assert [line.split("--quick --piece ")[1].strip() for line in said] == [
        f"train original ignored {seed}" for seed in range(4)
    ]
    assert {re.search(r"--core (\d)", line).group(1) for line in said} <= {"3", "5"}  # type: ignore[union-attr]


def test_a_piece_that_failed_is_named_after_the_others_were_done(
    tmp_path: Path, fake_python: Callable[[str], None]
) -> None:
    fake_python('case "$*" in *"ignored 1"*) exit 7;; esac; echo done')
    wanted = [Piece("read", Arm("original", "ignored", seed)) for seed in range(3)]
    with pytest.raises(WorkError, match=r"read original-ignored-1: expected exit code 0, got 7; see .*\.read\.log"):
        work.run_pieces(wanted, work=tmp_path, plan=QUICK, workers=1, quick=True)
    assert (tmp_path / "original-ignored-2.read.log").read_text() == "done\n"


def test_a_failure_is_one_line_and_an_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise WorkError("expected something,\ngot nothing")

    monkeypatch.setattr("surface_study.phantoms.make", fail)
    assert main(["--work", str(tmp_path), "--quick", "--workers", "0"]) == FAILED
    assert capsys.readouterr().out.splitlines()[-1] == "error: expected something, got nothing"


def test_the_study_compares_four_losses_two_readings_and_three_seeds_with_one_budget() -> None:
    arms = plan.FULL.arms()
    assert len(set(arms)) == 24
    texts = [plan.FULL.settings_toml(one) for one in arms]
    differing = [re.sub(r"(?m)^(seed|label_2|preset) = .*|^# .*", "", text) for text in texts]
    assert len(set(differing)) == 1
    assert [one.seed for one in arms] == [0] * 8 + [1] * 8 + [2] * 8
