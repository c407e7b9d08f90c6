import csv
import json
import logging
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors
import torch
from torch import Tensor

from surface_kernel.inference.engine import Engine
from surface_kernel.inference.settings import Settings as KernelSettings
from surface_kernel.networks import weights
from surface_kernel.networks.architecture import Architecture
from surface_kernel.postprocess.mask import finish_mask
from surface_kernel.postprocess.mask_settings import MaskSettings
from surface_kernel.probability import above, logit
from surface_kernel.runs.report import validation_fault
from surface_kernel.volumes import volume
from surface_kernel.volumes.scanned import clear_unscanned
from surface_train.checks import validate
from surface_train.checks.audit import audit
from surface_train.checks.sentinel import Collapse
from surface_train.data import cases, folds
from surface_train.distributed import Group
from surface_train.loop import budget, epoch, state, step
from surface_train.loop.fit import Request, fit, forecast
from surface_train.loop.state import StateError
from surface_train.loop.validation import Validator
from surface_train.losses import loss
from surface_train.losses.terms import TERMS
from surface_train.records.environment import commit
from surface_train.records.run_folder import RunFolder, RunFolderError
from surface_train.settings import Average, Optimiser, Sentinel, TrainingSettings, Validation

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.usefixtures("one_thread")


@dataclass(frozen=True)
class Run:
    """A finished training and what it said."""

    folder: Path
    said: list[str]


@pytest.fixture(autouse=True)
def small_networks(request: pytest.FixtureRequest, with_small_networks: Callable, monkeypatch: Any) -> None:
    """Train networks of two layers, except where the real one is asked for."""
    if "real_network" not in request.fixturenames:
        with_small_networks(monkeypatch)
        undrawn(monkeypatch)


def undrawn(patched: pytest.MonkeyPatch) -> None:
    """Leave pictures, curves and the page out: drawing one takes longer than the training."""
    patched.setattr(RunFolder, "picture", name_picture)
    patched.setattr(RunFolder, "show", lambda run, row, loss, picture: None)
    patched.setattr("surface_kernel.page.leave_page", lambda out, **inputs: "")


def name_picture(run: RunFolder, predicted: object, threshold: float, name: str) -> None:
    (run.folder / f"{name}.png").touch()


@pytest.fixture(scope="module")
def whole(world: Any, one_thread: None, with_small_networks: Callable, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The tiny run, never interrupted: what every interrupted one must end as."""
    folder, said = tmp_path_factory.mktemp("runs") / "whole", list[str]()
    ear, logger = logging.Handler(), logging.getLogger("surface_train")
    ear.emit = lambda entry: said.append(entry.getMessage())  # type: ignore[method-assign]
    logger.addHandler(ear)
    logger.setLevel(logging.INFO)
    with pytest.MonkeyPatch.context() as patched:
        with_small_networks(patched)
        undrawn(patched)
        assert fit(world.request(folder)) == folder / "weights.safetensors"
    logger.removeHandler(ear)
    return Run(folder, said)


def brief(request: Request, **entries: Any) -> Request:
    """The same request for a run of one short epoch."""
    shortened = {
        "epochs": 1,
        "steps_per_epoch": 1,
        "average": Average(kind="swa", start_epoch=1, batchnorm_steps=1),
    } | entries
    return replace(request, settings=replace(request.settings, **shortened))


def tensors(path: Path) -> dict[str, Tensor]:
    return weights.load(path)[1]


def told(path: Path) -> dict[str, Any]:
    return dict(weights.describe(path).provenance)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def assert_same_run(folder: Path, other: Path) -> None:
    for name in ("weights", "best", "swa", "last"):
        one, two = tensors(folder / f"{name}.safetensors"), tensors(other / f"{name}.safetensors")
        assert one.keys() == two.keys()
        assert [key for key in one if not torch.equal(one[key], two[key])] == []
        assert weights.describe(folder / f"{name}.safetensors") == weights.describe(other / f"{name}.safetensors")
    timeless = [[{**row, "seconds": ""} for row in rows(place)] for place in (folder, other)]
    assert timeless[0] == timeless[1]


# --- what a run leaves


def test_a_run_leaves_its_evidence(whole: Run, world: Any) -> None:
    found = {path.name for path in whole.folder.iterdir()}
    files = {"settings.toml", "split.json", "environment.json", "log.csv", "state.safetensors", ".lock"}
    files |= {f"{name}.safetensors" for name in ("best", "last", "swa", "weights")}
    assert found - {"best.png"} == files | {"epoch_2.png", "epoch_4.png", "average_of_2.png"}
    assert (whole.folder / "settings.toml").read_bytes() == world.settings_file.read_bytes()
    split = json.loads((whole.folder / "split.json").read_text())
    assert (set(split["training"]), set(split["validation"])) == ({"21", "22"}, {"11", "12"})


def test_the_log_has_a_line_an_epoch_and_validations_where_they_are_due(whole: Run) -> None:
    found = rows(whole.folder)
    validated = ["loss", *(field.name for field in fields(validate.Validated))]
    assert list(found[0]) == [
        *("epoch", "seconds", "learning_rate", "loss"),
        *TERMS,
        "variance_of_p",
        *(f"val_{name}" for name in validated),
    ]
    assert [row["epoch"] for row in found] == ["1", "2", "3", "4"]
    assert [bool(row["val_surface_dice"]) for row in found] == [False, True, False, True]
    assert [float(row["learning_rate"]) for row in found[2:]] == [2e-4, 2e-4]
    for row in found:
        weighted = sum(getattr(TrainingSettings().loss, f"{name}_weight") * float(row[name]) for name in TERMS)
        assert float(row["loss"]) == pytest.approx(weighted, rel=1e-5)
        assert 0 <= float(row["variance_of_p"]) <= 0.25


def test_it_says_the_guides_line_with_every_term_in_order(whole: Run) -> None:
    assert "1 rows of train.csv skipped: image or label missing" in whole.said
    assert "training: 2 cases (scroll 200: 2)" in whole.said
    assert "validation: 2 cases (scroll 100: 2)" in whole.said
    assert any(line.startswith("fold 0: 2 (100 ×2); fold 1: 2 (200 ×2); scroll 100") for line in whole.said)
    (first,) = [line for line in whole.said if line.startswith("Epoch 1 Train - Loss: ")]
    row = rows(whole.folder)[0]
    terms = ", ".join(f"{name}: {float(row[name]):.4f}" for name in TERMS)
    assert first == f"Epoch 1 Train - Loss: {float(row['loss']):.4f} ({terms})"
    validations = [line.partition(" - ")[0] for line in whole.said if " Val - score: " in line]
    assert validations[:3] == ["Epoch 2 Val", "Epoch 4 Val", "Average of 2 Val"]
    losses = [line for line in whole.said if re.match(r"Epoch [24] Val - Loss: 0\.\d{4} \(dice: 0\.", line)]
    assert len(losses) == 2
    assert all(re.findall(r"(\w+): ", line.partition("(")[2]) == list(TERMS) for line in losses)
    (gate,) = [line for line in whole.said if line.startswith("using ")]
    assert re.fullmatch(r"using the .* weights: .*, difference [+-]0\.\d{4}, margin 0\.0000", gate)


def test_the_weights_explain_themselves(whole: Run, world: Any) -> None:
    request = world.request(whole.folder)
    described = weights.describe(whole.folder / "swa.safetensors")
    found = told(whole.folder / "swa.safetensors")
    assert described.architecture == Architecture("Linknet", "efficientnet-b0")
    assert (described.tile_zyx, described.overlap) == ((32, 32, 32), 0.25)
    assert described.threshold in validate.THRESHOLDS
    assert set(found.pop("validation")) == {field.name for field in fields(validate.Validated)}
    assert found == {
        "settings_sha256": request.settings.digest,
        "split_sha256": json.loads((whole.folder / "split.json").read_text())["sha256"],
        "commit": commit(),
        "fold": "0",
        "label_2": "ignored",
        "limits": asdict(Sentinel()),
        "loss": "rebalanced",
        "mask": MaskSettings().to_entries(),
        "init_sha256": "",
        "epoch": 4,
        "epochs": 4,
        "steps": 8,
        "n_averaged": 2,
    }


def test_the_best_weights_know_their_epoch_and_their_score(whole: Run) -> None:
    found = told(whole.folder / "best.safetensors")
    validated = {row["epoch"]: row for row in rows(whole.folder) if row["val_surface_dice"]}
    best = max(validated.values(), key=lambda row: float(row["val_score"]))
    assert (str(found["epoch"]), found["n_averaged"]) == (best["epoch"], 0)
    assert found["validation"]["score"] == pytest.approx(float(best["val_score"]), abs=1e-6)
    assert weights.describe(whole.folder / "best.safetensors").threshold == float(best["val_threshold"])


@pytest.mark.slow
def test_a_real_network_is_trained_and_the_kernel_runs_it_as_the_validation_would(
    world: Any, tmp_path: Path, real_network: None
) -> None:
    asked = brief(world.request(tmp_path / "run", fold="all"), network=Architecture("FPN", "mobileone_s0"))
    (case, *_) = cases.read(world.data)[0]
    image = volume.read(case.image)
    mask = np.empty(image.shape, np.uint8)
    with Engine.load([fit(asked)], KernelSettings(), device_name="cpu") as engine:
        scanned = engine.scanned(image)
        engine.predict(image, mask=mask, scanned=scanned)
        finish_mask(mask, scanned, engine.mask)
        network = engine.members[0].network
        how = {"settings": asked.settings, "device": engine.device, "group": Group()}
        (checked,) = validate.predict(network, [case], **how)
        np.testing.assert_array_equal(mask, checked.mask(engine.threshold))


def test_the_shipped_weights_say_how_every_threshold_scored(whole: Run) -> None:
    found = told(whole.folder / "weights.safetensors")
    assert found["shipped"] in ("swa", "best")
    shipped, chosen = (tensors(whole.folder / f"{name}.safetensors") for name in ("weights", found["shipped"]))
    assert all(torch.equal(shipped[name], chosen[name]) for name in chosen)
    scores = {float(threshold): score for threshold, score in found["score_by_threshold"].items()}
    assert tuple(scores) == validate.THRESHOLDS
    threshold = weights.describe(whole.folder / "weights.safetensors").threshold
    assert scores[threshold] == max(scores.values()) == found["validation"]["score"]
    assert found["whole_fold"]["cases"] == 2  # one of them was checked while training
    assert found["whole_fold"]["threshold"] == threshold


# --- interrupted and resumed


def test_a_run_that_died_goes_on_to_the_same_bits(
    whole: Run, world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, saves = state.save, []

    def dies_at_the_seventh(*given: Any, **named: Any) -> None:
        saves.append(given)
        # The first is the untrained one's; epochs with a validation save before it too. The fourth epoch is in the log
        # and the average, and its validation is not in the state on disk.
        if len(saves) == 7:
            raise KeyboardInterrupt
        real(*given, **named)

    with monkeypatch.context() as patched:
        patched.setattr(state, "save", dies_at_the_seventh)
        with pytest.raises(KeyboardInterrupt):
            fit(world.request(tmp_path / "run"))
    assert len(rows(tmp_path / "run")) == 4
    torch.manual_seed(12345)  # another process has another past
    fit(world.request(tmp_path / "run", resume=True))
    assert_same_run(tmp_path / "run", whole.folder)


@pytest.fixture
def slow_steps(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock on which only steps take time: 100 s each."""
    clock = SimpleNamespace(now_s=0.0)
    for module in (budget, epoch):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now_s))
    real = step.Stepper.step

    def step_of_100_s(*given: Any) -> dict[str, Tensor]:
        clock.now_s += 100
        return real(*given)

    monkeypatch.setattr(step.Stepper, "step", step_of_100_s)
    return clock


def test_a_budget_ends_a_run_in_the_middle_of_an_epoch_and_the_rest_can_follow(
    whole: Run, world: Any, tmp_path: Path, slow_steps: SimpleNamespace
) -> None:
    # Two steps an epoch. After the third one 119 s are left, and a fourth would need 1.2 times 100 s.
    shipped = fit(world.request(tmp_path / "run", budget_s=419))
    assert slow_steps.now_s == 300
    assert len(rows(tmp_path / "run")) == 1
    assert (told(shipped)["epoch"], told(shipped)["shipped"], told(shipped)["validation"]) == (1, "last", "ungated")
    fit(world.request(tmp_path / "run", resume=True))
    assert_same_run(tmp_path / "run", whole.folder)


def test_a_budget_keeps_the_time_that_checking_takes(
    whole: Run, world: Any, tmp_path: Path, slow_steps: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = validate.predict

    def prediction_of_50_s(*given: Any, **named: Any) -> Any:
        slow_steps.now_s += 50
        return real(*given, **named)

    monkeypatch.setattr(validate, "predict", prediction_of_50_s)
    # Epochs 1 and 2 and a validation take 450 s. Another step takes 100 s, and the end 2 · 50 s and 2 batches of 100 s.
    fit(world.request(tmp_path / "one", budget_s=450 + 1.2 * 400 + 1))
    assert slow_steps.now_s >= 550
    slow_steps.now_s = 0
    shipped = fit(world.request(tmp_path / "two", budget_s=450 + 1.2 * 400 - 1))
    assert slow_steps.now_s <= 450 + 2 * 50
    assert told(shipped)["validation"]["score"] >= 0  # nothing was averaged: the best single ones are checked and ship
    assert told(shipped)["shipped"] == "best"


def test_a_run_that_travelled_flat_goes_on_and_says_when_it_is_finished(
    whole: Run, world: Any, tmp_path: Path, slow_steps: SimpleNamespace
) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    stopped = fit(world.request(there, budget_s=419))
    assert told(stopped)["finished"] is False
    (there / "events").mkdir()  # folders do not travel
    here.mkdir()
    for path in filter(Path.is_file, there.iterdir()):
        shutil.copyfile(path, here / path.name)
    request = replace(world.request(here, resume=True), settings_file=here / "settings.toml")
    assert told(fit(request))["finished"] is True
    assert_same_run(here, whole.folder)


def test_a_run_whose_end_came_too_soon_to_be_checked_is_not_finished(
    whole: Run, world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(whole.folder, tmp_path / "run")
    monkeypatch.setattr(budget.Timings, "finish_s", 100.0)
    shipped = fit(world.request(tmp_path / "run", resume=True, budget_s=50))
    assert (told(shipped)["validation"], told(shipped)["finished"]) == ("ungated", False)


def test_an_early_end_ships_the_latest_weights_where_nothing_was_validated(
    world: Any, tmp_path: Path, slow_steps: SimpleNamespace
) -> None:
    # Two early ends, one after the other: the second must not ship what the first left behind.
    asked = brief(world.request(tmp_path / "run", fold="all"), epochs=3, average=Average(start_epoch=3))
    epochs = []
    for resume in (False, True):
        slow_steps.now_s = 0
        shipped = fit(replace(asked, budget_s=150, resume=resume))
        epochs.append(told(shipped)["epoch"])
    assert epochs == [1, 2]
    assert told(shipped)["validation"] == "ungated"


def test_a_finished_run_can_be_finished_again_with_logits(whole: Run, world: Any, tmp_path: Path) -> None:
    shutil.copytree(whole.folder, tmp_path / "run")
    (tmp_path / "run" / "weights.safetensors").unlink()
    shipped = fit(world.request(tmp_path / "run", resume=True, save_logits=True))
    assert_same_run(tmp_path / "run", whole.folder)
    assert not (whole.folder / "logits").exists()
    fold = json.loads((tmp_path / "run" / "split.json").read_text())["validation"]
    written = {path.stem: np.load(path) for path in (tmp_path / "run" / "logits").iterdir()}
    assert sorted(written) == sorted(fold)
    with Engine.load([shipped], KernelSettings(), device_name="cpu") as engine:
        for case in cases.read(world.data)[0]:
            if case.name in written:
                logits = written[case.name]
                assert logits.dtype == np.float16
                image = volume.read(case.image)
                mask = np.empty(image.shape, np.uint8)
                engine.predict(image, mask=mask, scanned=(scanned := engine.scanned(image)))
                counted = above(logits.astype(np.float32), engine.threshold)
                sure = np.abs(logits - logit(engine.threshold)) > 0.01  # float16 rounds
                clear_unscanned(counted, scanned)
                np.testing.assert_array_equal(counted[sure], mask[sure])


def test_a_folder_with_a_run_is_not_overwritten(whole: Run, world: Any) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.folder.iterdir()}
    with pytest.raises(RunFolderError, match="got one with files; use --resume"):
        fit(world.request(whole.folder))
    assert {path: path.stat().st_mtime_ns for path in whole.folder.iterdir()} == before


@pytest.mark.parametrize("change", [{"seed": 1}, {"network": Architecture("FPN", "resnet18")}])
def test_another_runs_settings_do_not_resume_it(whole: Run, world: Any, change: dict[str, Any]) -> None:
    asked = world.request(whole.folder, resume=True)
    with pytest.raises(StateError, match="expected the state of a run with this settings"):
        fit(replace(asked, settings=replace(asked.settings, **change)))


def test_another_fold_does_not_resume_it(whole: Run, world: Any) -> None:
    with pytest.raises(StateError, match="expected the state of a run with this split"):
        fit(world.request(whole.folder, fold="1", resume=True))


CHILD = """
import os, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one thread, as its reference had
from pytest import MonkeyPatch
from surface_kernel.networks import network
from surface_train.__main__ import main
import small_networks, test_fit
test_fit.undrawn(MonkeyPatch())
if sys.argv.pop(1) == "small":
    network._library = small_networks.small_library
sys.exit(main(sys.argv[1:]))
"""


def start(world: Any, settings_file: Path, networks: str, out: Path, *more: str) -> subprocess.Popen[bytes]:
    """Start a run in a process of its own, with "small" or "real" networks."""
    paths = [*(str(ROOT / room) for room in ("kernel", "train", "tests")), str(Path(__file__).parent)]
    words = ["fit", "--settings", str(settings_file), "--data", str(world.data), "--fold", "0", "--device", "cpu"]
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, networks, *words, "--out", str(out), *more],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.DEVNULL,
    )


def kill_and_resume(begin: Callable[..., subprocess.Popen[bytes]], folder: Path, kills: int, seed: int) -> None:
    """Kill a run at random moments after it made its folder, then let it end."""
    rng, more = random.Random(seed), []
    for _ in range(kills):
        child = begin(folder, *more)
        while child.poll() is None and not (folder / "settings.toml").exists():
            time.sleep(0.01)
        # A run takes about as long as its process needs to begin; later kills meet one that is already further.
        time.sleep(rng.uniform(0, 1.5) + (2.0 if more else 0.0))
        child.kill()  # SIGKILL: nothing is tidied up
        child.wait()
        more = ["--resume"]
    assert begin(folder, *more).wait() == 0


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 7))])
def test_a_run_that_was_killed_at_any_moments_ends_with_the_same_bits(
    whole: Run, world: Any, tmp_path: Path, seed: int
) -> None:
    def begin(*given: Any) -> subprocess.Popen[bytes]:
        return start(world, world.settings_file, "small", *given)

    kill_and_resume(begin, tmp_path / "run", 3 if seed else 2, seed)
    assert_same_run(tmp_path / "run", whole.folder)


@pytest.mark.slow
def test_a_real_network_that_was_killed_ends_with_the_same_bits(world: Any, tmp_path: Path) -> None:
    settings_file = tmp_path / "real.toml"
    # Not every network: in bfloat16 on a CPU the gradients of mobileone differ from one call to the next.
    settings_file.write_text(world.settings_file.read_text().replace("efficientnet-b0", "resnet18"))

    def begin(*given: Any) -> subprocess.Popen[bytes]:
        return start(world, settings_file, "real", *given)

    assert begin(tmp_path / "whole").wait() == 0
    kill_and_resume(begin, tmp_path / "run", 2, seed=0)
    assert_same_run(tmp_path / "run", tmp_path / "whole")


# --- early stopping, the sentinel, and what else ends a run


def scored(score: float, foreground: float = 0.1, variance: float = 0.1, threshold: float = 0.5) -> validate.Validated:
    names = ("topo_score", "surface_dice", "voi_score", "dice", "truth", "entropy")
    fixed = dict.fromkeys(names, 0.1) | {"foreground": foreground, "variance": variance}
    return validate.Validated(threshold=threshold, score=score, **fixed)


def long_run(world: Any, folder: Path, **entries: Any) -> Request:
    """Eight epochs of a step, the last two averaged, validated after each."""
    changed = {
        "epochs": 8,
        "average": Average(kind="swa", start_epoch=7, batchnorm_steps=1),
        "validation": Validation(every_epochs=1, cases=1, whole_fold=False, patience=2),
    }
    return brief(world.request(folder), **(changed | entries))


def with_scores(monkeypatch: pytest.MonkeyPatch, *results: validate.Validated) -> None:
    """Let validations find these, and the last one again and again."""
    given = list(results)
    predicted = [SimpleNamespace()]  # only named in a picture, which is not drawn here
    monkeypatch.setattr(Validator, "validate", lambda *_: (given.pop(0) if len(given) > 1 else given[0], predicted))
    monkeypatch.setattr(Validator, "sweep", lambda *_: [results[-1]])


def test_patience_brings_the_averaging_forward_and_the_run_ends_with_it(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    caplog.set_level(logging.INFO, "surface_train")
    with_scores(monkeypatch, scored(0.4), scored(0.5), scored(0.45), scored(0.5), scored(0.3))
    shipped = fit(long_run(world, tmp_path / "run"))
    found = rows(tmp_path / "run")
    assert [row["epoch"] for row in found] == ["1", "2", "3", "4", "5", "6"]
    assert [float(row["learning_rate"]) for row in found[4:]] == [2e-4, 2e-4]
    assert "early stopping: 2 consecutive validations did not improve on epoch 2's 0.5000" in caplog.text
    assert told(tmp_path / "run" / "swa.safetensors")["n_averaged"] == 2
    assert told(tmp_path / "run" / "best.safetensors")["epoch"] == 2
    assert told(shipped)["shipped"] == "best"


def test_a_run_that_keeps_getting_better_is_not_stopped(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_scores(monkeypatch, *(scored(0.1 + 0.01 * index) for index in range(8)))
    fit(long_run(world, tmp_path / "run"))
    assert len(rows(tmp_path / "run")) == 8


def test_a_plateau_lowers_the_learning_rate(world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_scores(monkeypatch, scored(0.5), scored(0.4))
    optimiser = Optimiser(schedule="plateau", plateau_validations=2, warmup_steps=0)
    patient = Validation(every_epochs=1, cases=1, whole_fold=False, patience=100)
    fit(long_run(world, tmp_path / "run", optimiser=optimiser, validation=patient))
    rates = [float(row["learning_rate"]) for row in rows(tmp_path / "run")]
    assert rates == pytest.approx([1e-3] * 3 + [2e-4] * 5)  # a tenth of it, but never below the averaging's


@pytest.mark.parametrize("dead", [scored(0.1, foreground=0.999), scored(0.1, 0.0), scored(0.1, variance=1e-5)])
def test_the_sentinel_stops_a_run_whose_prediction_is_uniform(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead: validate.Validated
) -> None:
    with_scores(monkeypatch, dead)
    asked = long_run(world, tmp_path / "run", sentinel=Sentinel(validations=3), optimiser=Optimiser(warmup_steps=2))
    with pytest.raises(Collapse, match="past a limit in 3 consecutive validations"):
        fit(asked)
    assert len(rows(tmp_path / "run")) == 4  # the first epoch is warm-up
    assert weights.describe(tmp_path / "run" / "last.safetensors")


def test_the_sentinels_count_survives_a_resume(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow_steps: SimpleNamespace
) -> None:
    with_scores(monkeypatch, scored(0.1, 0.999))
    asked = long_run(world, tmp_path / "run", sentinel=Sentinel(validations=3), optimiser=Optimiser(warmup_steps=0))
    fit(replace(asked, budget_s=310))
    assert len(rows(tmp_path / "run")) == 2
    with pytest.raises(Collapse):
        fit(replace(asked, resume=True))
    assert len(rows(tmp_path / "run")) == 3


def test_an_exponential_mean_ships_like_the_other(world: Any, tmp_path: Path) -> None:
    average = Average(kind="ema", start_epoch=2, decay=0.5, batchnorm_steps=1)
    fit(brief(world.request(tmp_path / "run"), epochs=3, steps_per_epoch=2, average=average))
    assert told(tmp_path / "run" / "swa.safetensors")["n_averaged"] == 4  # every step of two epochs


def test_more_samples_an_epoch_are_averaged(world: Any, tmp_path: Path) -> None:
    average = Average(kind="swa", start_epoch=2, samples_per_epoch=2, batchnorm_steps=1)
    fit(brief(world.request(tmp_path / "run"), epochs=2, steps_per_epoch=5, average=average))
    assert told(tmp_path / "run" / "swa.safetensors")["n_averaged"] == 2


def test_a_margin_lets_averaged_weights_pass_that_are_a_little_worse(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_scores(monkeypatch, scored(0.50), scored(0.49))
    for margin, name in ((0.02, "swa"), (0.005, "best")):
        average = Average(kind="swa", start_epoch=1, batchnorm_steps=1, gate_margin=margin)
        shipped = fit(brief(world.request(tmp_path / name), average=average))
        with_scores(monkeypatch, scored(0.50), scored(0.49))
        assert told(shipped)["shipped"] == name


def test_a_forecast_runs_a_few_steps_and_writes_nothing(world: Any, tmp_path: Path) -> None:
    text = forecast(brief(world.request(tmp_path / "run")))
    found = re.fullmatch(
        r"network: ([\d.]+) M parameters\nstep: ([\d.]+) s; its patches: ([\d.]+) s, .*\n"
        r"validation: ([\d.]+) s per volume, .*\nepoch: .*; 1 epochs: .*\nmemory: ([\d.]+) GB peak of the process .*",
        text,
    )
    assert found, text
    assert float(found[5]) > 0.05
    assert not (tmp_path / "run").exists()


# --- which weights are shipped


@pytest.mark.parametrize(("advantage", "name"), [(-0.01, "best"), (0.0, "swa"), (0.01, "swa")])
def test_the_average_ships_unless_the_single_best_is_better(
    whole: Run, world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any, advantage: float, name: str
) -> None:
    shutil.copytree(whole.folder, tmp_path / "run")
    with safetensors.safe_open(tmp_path / "run" / "state.safetensors", framework="pt") as opened:
        best = json.loads(opened.metadata()["progress"])["best_score"]
    with_scores(monkeypatch, scored(best + advantage, threshold=0.45))
    caplog.set_level(logging.INFO, "surface_train")
    shipped = fit(world.request(tmp_path / "run", resume=True))
    assert told(shipped)["shipped"] == name
    chosen = tensors(tmp_path / "run" / f"{name}.safetensors")
    assert all(torch.equal(tensor, chosen[key]) for key, tensor in tensors(shipped).items())
    assert weights.describe(tmp_path / "run" / "swa.safetensors").threshold == 0.45
    said = {"swa": "averaged", "best": "best single"}[name]
    assert f"using the {said} weights: score {best + advantage:.4f} averaged, {best:.4f} best single" in caplog.text
    assert f"difference {advantage:+.4f}" in caplog.text


UNIFORM = scored(0.9, foreground=1.0)  # an empty or full mask may score well: it has no topology to get wrong


@pytest.mark.parametrize(
    ("results", "shipped", "uniform"),
    [
        ((scored(0.2), UNIFORM), "best", False),  # the average is uniform, and the best single one is not
        ((UNIFORM, scored(0.2)), "swa", False),
        ((UNIFORM, UNIFORM), "swa", True),  # there is nothing else
    ],
)
def test_what_predicts_the_same_everywhere_ships_only_where_there_is_nothing_else(
    world: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: Any,
    results: tuple[validate.Validated, ...],
    shipped: str,
    uniform: bool,
) -> None:
    """One validation of the epoch, one of the average; what ships is validated once more, at every threshold."""
    sound = scored(0.2)
    with_scores(monkeypatch, *results, *([sound] if shipped == "best" else []))
    monkeypatch.setattr(Validator, "sweep", lambda *_: [UNIFORM, UNIFORM if uniform else sound])
    few = Validation(every_epochs=1, cases=1, whole_fold=False)
    path = fit(brief(world.request(tmp_path / "run"), validation=few))
    assert told(path)["shipped"] == shipped
    assert told(path)["validation"]["foreground"] == (1.0 if uniform else 0.1)
    assert (tmp_path / "run" / "best.safetensors").exists() == (shipped == "best")
    assert bool(validation_fault(told(path))) == uniform
    assert ("the weights predict the same everywhere: expected at most 95% foreground" in caplog.text) == uniform
    assert audit(path).sound != uniform


def test_with_all_cases_nothing_is_checked_and_the_weights_say_so(world: Any, tmp_path: Path) -> None:
    shipped = fit(brief(world.request(tmp_path / "run", fold="all")))
    found = told(shipped)
    assert (found["validation"], found["fold"], found["n_averaged"]) == ("ungated", "all", 1)
    assert found["finished"] is True  # there was nothing to check on
    assert weights.describe(shipped).threshold == 0.5
    assert not (tmp_path / "run" / "best.safetensors").exists()
    assert {row["val_dice"] for row in rows(tmp_path / "run")} == {""}
    assert json.loads((tmp_path / "run" / "split.json").read_text())["validation"] == []


def test_the_average_has_batchnorm_statistics_of_its_own(whole: Run) -> None:
    with safetensors.safe_open(whole.folder / "state.safetensors", framework="pt") as opened:
        names = [name for name in opened.keys() if name.startswith("average/")]  # noqa: SIM118, it is no mapping
        mean = {name.removeprefix("average/"): opened.get_tensor(name) for name in names}
    shipped = tensors(whole.folder / "swa.safetensors")
    assert mean.keys() == shipped.keys()
    changed = {name for name in mean if not torch.equal(mean[name], shipped[name])}
    assert changed
    assert {name.rpartition(".")[2] for name in changed} <= {"running_mean", "running_var", "num_batches_tracked"}
    counted = {int(tensor) for name, tensor in shipped.items() if name.endswith("num_batches_tracked")}
    assert counted == {2}  # settings.average.batchnorm_steps


# --- where a run starts


def test_a_run_can_start_from_weights(whole: Run, world: Any, tmp_path: Path) -> None:
    start = whole.folder / "weights.safetensors"
    asked = brief(
        world.request(tmp_path / "run", fold="all", init=start),
        optimiser=Optimiser(learning_rate=1e-12, weight_decay=0),
        average=Average(kind="swa", start_epoch=1, learning_rate=1e-12, batchnorm_steps=1),
    )
    found, wanted = tensors(fit(asked)), tensors(start)
    assert found.keys() == wanted.keys()
    learned = [name for name in wanted if "running_" not in name and "num_batches" not in name]
    for name in learned:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-6, atol=1e-9)
    assert told(tmp_path / "run" / "weights.safetensors")["init_sha256"] == sha256(start.read_bytes()).hexdigest()
    moved = brief(world.request(tmp_path / "moved", fold="all", init=start))
    assert any(not torch.equal(tensors(fit(moved))[name], wanted[name]) for name in learned)


def test_weights_of_another_network_are_no_start(whole: Run, world: Any, tmp_path: Path) -> None:
    asked = brief(world.request(tmp_path / "run", init=whole.folder / "weights.safetensors"))
    asked = replace(asked, settings=replace(asked.settings, network=Architecture("FPN", "resnet18")))
    with pytest.raises(ValueError, match=r"weights\.safetensors: expected .*FPN.* as in the settings, got .*Linknet"):
        fit(asked)
    assert not (tmp_path / "run").exists()


# --- faults


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_loss_that_is_no_number_stops_the_run_with_a_sentence(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    real, calls = loss.total, list[Tensor]()

    def broken(*given: Any) -> tuple[Tensor, dict[str, Tensor]]:
        total, parts = real(*given)
        calls.append(total)
        return (total if len(calls) == 1 else total * float(value)), parts

    monkeypatch.setattr(step.loss, "total", broken)
    with pytest.raises(
        RuntimeError,
        match=f"expected a finite loss and gradient, got a loss of {value} with a gradient of norm nan; lower",
    ):
        fit(brief(world.request(tmp_path / "run", fold="all"), epochs=2, average=Average(start_epoch=2)))
    with safetensors.safe_open(tmp_path / "run" / "state.safetensors", framework="pt") as opened:
        assert json.loads(opened.metadata()["progress"])["step"] == 1  # the last sound one
    assert not (tmp_path / "run" / "weights.safetensors").exists()


def test_a_broken_case_stops_the_run_with_its_name(
    world: Any, tmp_path: Path, write_case: Callable, write_table: Callable, make_sheet: Callable
) -> None:
    image, label = make_sheet(0)
    write_case(tmp_path, "5", "100", image, label[:-1])
    write_table(tmp_path, [("5", "100")])
    with pytest.raises(
        ValueError, match=r"5\.tif: expected a label of \(32, 40, 36\) as its image, got \(31, 40, 36\)"
    ):
        fit(brief(replace(world.request(tmp_path / "run", fold="all"), data=tmp_path)))


# --- the split


def test_the_same_cases_are_split_the_same_by_the_run_and_by_hand(whole: Run, world: Any) -> None:
    sides = folds.split(cases.read(world.data)[0], "0", kind="scroll", count=2)
    assert told(whole.folder / "weights.safetensors")["split_sha256"] == sides.digest
