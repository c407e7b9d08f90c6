"""The script that trains on Kaggle, as it is pushed, on small trees: what it finds, starts, and leaves."""

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from package.fake_bundle import make_competition, shared_result
from package.sessions import make_pins, make_run, make_training_clone
from scenes import ROOT

from surface_package.build import manifest, protocol, wheels
from surface_package.build.protocol import ScriptResult
from surface_package.kaggle.checkpoints import SETTINGS, STATE
from surface_package.kaggle.training import training_bundle
from surface_package.kaggle.training.training_bundle import FORMAT

SCRIPT = ROOT / "kernel" / "train_on_kaggle.py"
Tree = Callable[..., Path]


@pytest.fixture
def make_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """Makes a tree whose input holds the competition and a bundle of 100 steps, with so many GPUs and such a fault."""

    def make(gpus: int = 1, fault: str = "") -> Path:
        cache = tmp_path / "cache"
        cache.mkdir()
        pins = make_pins(cache, gpus)
        monkeypatch.setattr(wheels, "read_pins", lambda: pins)
        monkeypatch.setattr(wheels, "cache_folder", lambda: cache)
        (tmp_path / "some.toml").write_text(f'steps = 100\nsteps_per_session = 60\nfault = "{fault}"\n')
        clone = make_training_clone(tmp_path / "clone")
        (tmp_path / "bundle").mkdir()
        files = training_bundle.make(tmp_path / "bundle", settings=tmp_path / "some.toml", fold="all", root=clone)
        (tmp_path / "input" / "code").mkdir(parents=True)
        for name, path in files.items():
            shutil.copyfile(path, tmp_path / "input" / "code" / name)
        competition = make_competition(tmp_path / "input" / "surface-detection", a7=(2, 3, 4))
        (competition / "train.csv").write_text("id,scroll_id\n")
        return tmp_path

    return make


def run_script(
    tree: Path, *words: str, after_step: int = 0, grace_s: float = 900.0
) -> subprocess.CompletedProcess[str]:
    text = training_bundle.script(ROOT, after_step)
    assert text.count("GRACE_S = 900.0") == 1
    (tree / "pushed.py").write_text(text.replace("GRACE_S = 900.0", f"GRACE_S = {grace_s}"))
    places = [word for name in ("input", "working", "scratch") for word in (f"--{name}", str(tree / name))]
    command = [sys.executable, "-I", str(tree / "pushed.py"), *places, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env={"PATH": os.environ["PATH"]})


def test_it_needs_the_standard_library_and_submit_only_and_no_python_newer_than_3_11() -> None:
    tree = ast.parse(SCRIPT.read_text(), feature_version=(3, 11))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported} - sys.stdlib_module_names == {"submit"}


def test_the_names_are_the_same_on_both_sides() -> None:
    text = SCRIPT.read_text()
    assert f'FORMAT = "{FORMAT}"' in text
    assert f'SETTINGS, STATE, WEIGHTS = "{SETTINGS}", "{STATE}", "weights.safetensors"' in text


def test_one_gpu_is_trained_on_by_one_process(make_tree: Tree) -> None:
    tree = make_tree()
    done = run_script(tree, "--budget-s", "500")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "training on 1 GPUs for " in done.stdout
    result = shared_result(done, protocol.TRAIN)
    assert result == ScriptResult(
        program="train",
        verdict="continues",
        reason="",
        message="",
        manifest_sha256=manifest.sha256(tree / "input" / "code" / "manifest.json"),
        files={path.name: manifest.sha256(path) for path in (tree / "working").iterdir()},
        findings=(),
        after_step=0,
        step=60,
    )
    fold, budget_s, world, _ = json.loads((tree / "working" / "told.json").read_text())
    assert (fold, world) == ("all", "none")
    assert 400 <= budget_s < 500
    names = {path.name for path in (tree / "working").iterdir()}
    assert names == {"settings.toml", "state.safetensors", "told.json", "weights.safetensors"}


def test_a_bundle_that_was_changed_is_not_installed(make_tree: Tree) -> None:
    tree = make_tree()
    with (tree / "input" / "code" / "settings.toml").open("a") as file:
        file.write("# more")
    done = run_script(tree)
    assert done.returncode == 1
    assert "finding: 'settings.toml': expected " in done.stdout
    assert "got 1 fault; build and publish it again\nverdict: failed\n" in done.stdout
    result = shared_result(done, protocol.TRAIN)
    assert (result.verdict, result.reason, result.manifest_sha256) == ("failed", "bundle_damaged", "")
    assert (result.files, result.after_step, result.step, len(result.findings)) == ({}, 0, None, 1)
    assert not (tree / "scratch" / "site").exists()


def test_a_competition_without_cases_says_so(make_tree: Tree) -> None:
    tree = make_tree()
    (tree / "input" / "surface-detection" / "train.csv").unlink()
    done = run_script(tree)
    assert f"error: {tree / 'input' / 'surface-detection'}: expected train.csv " in done.stdout
    assert shared_result(done, protocol.TRAIN).reason == "no_cases"


def test_one_run_under_two_paths_is_one_and_two_runs_are_none(make_tree: Tree) -> None:
    tree = make_tree()
    run = make_run(tree / "input" / "run", step=40)
    shutil.copytree(run, tree / "input" / "datasets" / "owner" / "run")
    run.chmod(0o555)
    done = run_script(tree, after_step=40)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "resuming after step 40\n" in done.stdout
    assert "verdict: finished\n" in done.stdout
    result = shared_result(done, protocol.TRAIN)
    assert (result.verdict, result.after_step, result.step) == ("finished", 40, 100)
    assert (tree / "working" / "log.csv").is_file()
    make_run(tree / "input" / "other", step=30)
    done = run_script(tree, after_step=40)
    assert "expected one run at step 40, got runs at the steps [30, 40]" in done.stdout
    assert shared_result(done, protocol.TRAIN).reason == "other_run"
    assert "expected no run, got runs at the steps [30, 40]" in run_script(tree).stdout


def test_a_fit_that_does_not_end_is_ended_and_what_it_left_is_kept(make_tree: Tree) -> None:
    code = "(out / 'log.csv').touch(); (out / 'half.partial').touch(); time.sleep(60)"
    tree = make_tree(fault=code)
    done = run_script(tree, "--budget-s", "1", grace_s=2.5)
    assert done.returncode == 1
    assert "error: fit: expected it to end by itself, it was stopped 2 s after its budget or by a signal" in done.stdout
    result = shared_result(done, protocol.TRAIN)
    assert (result.verdict, result.reason, result.files) == ("failed", "fit_stopped", {})
    assert [path.name for path in (tree / "working").iterdir()] == ["log.csv"]
