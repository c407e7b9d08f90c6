import csv
import json
import logging
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors
import torch
from torch import Tensor

from surface_kernel import volume, weights
from surface_kernel.architecture import Architecture
from surface_kernel.pipeline import Engine
from surface_kernel.settings import Settings as KernelSettings
from surface_train import cases, folds, validate
from surface_train import fit as story
from surface_train.fit import Request, fit
from surface_train.loss import TERMS
from surface_train.record import Record, RecordError, commit
from surface_train.settings import Average, Optimiser, Settings
from surface_train.state import StateError

ROOT = Path(__file__).parents[2]
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
        monkeypatch.setattr(Record, "picture", name_picture)  # drawing one takes longer than the training


def name_picture(run: Record, predicted: object, threshold: float, name: str) -> None:
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
        patched.setattr(Record, "picture", name_picture)
        assert fit(world.request(folder)) == folder / "weights.safetensors"
    logger.removeHandler(ear)
    return Run(folder, said)


def brief(request: Request, **entries: Any) -> Request:
    """The same request for a run of one short epoch."""
    shortened = {"epochs": 1, "steps_per_epoch": 1, "average": Average(1, batchnorm_steps=1)} | entries
    return replace(request, settings=replace(request.settings, **shortened))


def tensors(path: Path) -> dict[str, Tensor]:
    return weights.load(path)[1]


def told(path: Path) -> dict[str, Any]:
    return dict(weights.describe(path).provenance)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def assert_same_run(folder: Path, other: Path) -> None:
    for name in ("weights", "best", "swa"):
        one, two = tensors(folder / f"{name}.safetensors"), tensors(other / f"{name}.safetensors")
        assert one.keys() == two.keys()
        assert [key for key in one if not torch.equal(one[key], two[key])] == []
        assert weights.describe(folder / f"{name}.safetensors") == weights.describe(other / f"{name}.safetensors")
    timeless = [[{**row, "seconds": ""} for row in rows(place)] for place in (folder, other)]
    assert timeless[0] == timeless[1]


# --- what a run leaves


def test_a_run_leaves_its_evidence(whole: Run, world: Any) -> None:
    found = {path.name for path in whole.folder.iterdir()}
    files = {"settings.toml", "split.json", "environment.json", "log.csv", "state.safetensors"}
    files |= {f"{name}.safetensors" for name in ("best", "swa", "weights")}
    assert found == files | {"epoch_2.png", "epoch_4.png", "average_of_2.png"}
    assert (whole.folder / "settings.toml").read_bytes() == world.settings_file.read_bytes()
    split = json.loads((whole.folder / "split.json").read_text())
    assert (set(split["training"]), set(split["validation"])) == ({"21", "22"}, {"11", "12"})


def test_the_log_has_a_line_an_epoch_and_validations_where_they_are_due(whole: Run) -> None:
    found = rows(whole.folder)
    validated = ["threshold", "dice", "surface_dice", "voi_score", "foreground", "truth", "variance"]
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
        weighted = sum(getattr(Settings().loss, f"{name}_weight") * float(row[name]) for name in TERMS)
        assert float(row["loss"]) == pytest.approx(weighted, rel=1e-5)
        assert 0 <= float(row["variance_of_p"]) <= 0.25


def test_it_says_the_guides_line_with_every_term_in_order(whole: Run) -> None:
    assert "1 rows of train.csv have no image or no label and are left out" in whole.said
    assert "training: 2 cases (scroll 200: 2)" in whole.said
    assert "validation: 2 cases (scroll 100: 2)" in whole.said
    (first,) = [line for line in whole.said if line.startswith("Epoch 1 Train - Loss: ")]
    row = rows(whole.folder)[0]
    terms = ", ".join(f"{name}: {float(row[name]):.4f}" for name in TERMS)
    assert first == f"Epoch 1 Train - Loss: {float(row['loss']):.4f} ({terms})"
    validations = [line.partition(" - surface Dice: ")[0] for line in whole.said if " Val - " in line]
    assert validations == ["Epoch 2 Val", "Epoch 4 Val", "Average of 2 Val"]
    assert whole.said[-1].startswith("shipping ")


def test_the_weights_explain_themselves(whole: Run, world: Any) -> None:
    request = world.request(whole.folder)
    described = weights.describe(whole.folder / "swa.safetensors")
    found = told(whole.folder / "swa.safetensors")
    assert described.architecture == Architecture("Linknet", "efficientnet-b0")
    assert (described.tile_zyx, described.overlap) == ((32, 32, 32), 0.25)
    assert described.threshold in validate.THRESHOLDS
    assert set(found.pop("validation")) == {"dice", "surface_dice", "voi_score", "foreground"}
    assert found == {
        "settings_sha256": request.settings.digest,
        "split_sha256": json.loads((whole.folder / "split.json").read_text())["sha256"],
        "commit": commit(),
        "fold": "0",
        "epoch": 4,
        "epochs": 4,
        "n_averaged": 2,
    }


def test_the_best_weights_know_their_epoch_and_their_score(whole: Run) -> None:
    found = told(whole.folder / "best.safetensors")
    validated = {row["epoch"]: row for row in rows(whole.folder) if row["val_surface_dice"]}
    best = max(validated.values(), key=lambda row: float(row["val_surface_dice"]))
    assert (str(found["epoch"]), found["n_averaged"]) == (best["epoch"], 0)
    assert found["validation"]["surface_dice"] == pytest.approx(float(best["val_surface_dice"]), abs=1e-6)
    assert weights.describe(whole.folder / "best.safetensors").threshold == float(best["val_threshold"])


def test_a_real_network_is_trained_and_the_kernel_runs_it_as_the_validation_would(
    world: Any, tmp_path: Path, real_network: None
) -> None:
    asked = brief(world.request(tmp_path / "run", fold="all"), network=Architecture("FPN", "mobileone_s0"))
    engine = Engine.load([fit(asked)], KernelSettings(dust_voxels=0), "cpu")
    (case, *_) = cases.read(world.data)[0]
    found = engine.predict(volume.read(case.image))
    (checked,) = validate.predict(engine.members[0].network, [case], asked.settings, engine.device)
    np.testing.assert_array_equal(found.mask, checked.probability > engine.threshold)


# --- interrupted and resumed


def test_a_run_that_died_goes_on_to_the_same_bits(
    whole: Run, world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, saves = story.state.save, []

    def dies_at_the_fourth(*given: Any) -> None:
        saves.append(given)
        if len(saves) == 4:  # the fourth epoch is in the log, and in the average, and its state is not on disk
            raise KeyboardInterrupt
        real(*given)

    with monkeypatch.context() as patched:
        patched.setattr(story.state, "save", dies_at_the_fourth)
        with pytest.raises(KeyboardInterrupt):
            fit(world.request(tmp_path / "run"))
    assert len(rows(tmp_path / "run")) == 4
    torch.manual_seed(12345)  # another process has another past
    fit(world.request(tmp_path / "run", resume=True))
    assert_same_run(tmp_path / "run", whole.folder)


def test_a_budget_ends_a_run_early_with_weights_and_the_rest_can_follow(
    whole: Run, world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now_s=0.0)
    monkeypatch.setattr(story, "time", SimpleNamespace(monotonic=lambda: clock.now_s))
    real = story._Run.epoch

    def epoch_of_100_s(run: Any) -> None:
        real(run)
        clock.now_s += 100

    monkeypatch.setattr(story._Run, "epoch", epoch_of_100_s)
    shipped = fit(world.request(tmp_path / "run", budget_s=319))  # a third one would need 1.2 times 100 s, 119 are left
    assert len(rows(tmp_path / "run")) == 2
    assert told(shipped)["epoch"] == 2
    assert told(shipped)["validation"]["surface_dice"] >= 0
    fit(world.request(tmp_path / "run", resume=True))
    assert_same_run(tmp_path / "run", whole.folder)


def test_an_early_end_ships_the_latest_weights_where_nothing_was_validated(world: Any, tmp_path: Path) -> None:
    # Two early ends, one after the other: the second must not ship what the first left behind.
    asked = brief(world.request(tmp_path / "run", fold="all"), epochs=3, average=Average(3))
    epochs = []
    for _ in range(2):
        real, trained = story._Run.epoch, [0]

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(story._Run, "epoch", lambda run, real=real, trained=trained: (real(run), trained.append(1)))
            patched.setattr(
                story, "time", SimpleNamespace(monotonic=lambda trained=trained: 100.0 * (len(trained) - 1))
            )
            shipped = fit(replace(asked, budget_s=150, resume=bool(epochs)))
        epochs.append(told(shipped)["epoch"])
    assert epochs == [1, 2]
    assert told(shipped)["validation"] == "ungated"


def test_a_finished_run_can_be_finished_again(whole: Run, world: Any, tmp_path: Path) -> None:
    shutil.copytree(whole.folder, tmp_path / "run")
    (tmp_path / "run" / "weights.safetensors").unlink()
    fit(world.request(tmp_path / "run", resume=True))
    assert_same_run(tmp_path / "run", whole.folder)


def test_a_folder_with_a_run_is_not_overwritten(whole: Run, world: Any) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.folder.iterdir()}
    with pytest.raises(RecordError, match="wanted a new one, or --resume"):
        fit(world.request(whole.folder))
    assert {path: path.stat().st_mtime_ns for path in whole.folder.iterdir()} == before


@pytest.mark.parametrize("change", [{"seed": 1}, {"network": Architecture("FPN", "resnet18")}])
def test_another_runs_settings_do_not_resume_it(whole: Run, world: Any, change: dict[str, Any]) -> None:
    asked = world.request(whole.folder, resume=True)
    with pytest.raises(StateError, match="found a run of other settings"):
        fit(replace(asked, settings=replace(asked.settings, **change)))


def test_another_fold_does_not_resume_it(whole: Run, world: Any) -> None:
    with pytest.raises(StateError, match="found a run of other split"):
        fit(world.request(whole.folder, fold="1", resume=True))


@pytest.fixture(scope="module")
def command(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.Popen[bytes]]:
    """Give a function that starts a run of a real network in a process of its own."""
    settings_file = tmp_path_factory.mktemp("settings") / "real.toml"
    # Not every network: in bfloat16 on a CPU the gradients of mobileone differ from one call to the next.
    tiny = world.settings_file.read_text().replace("efficientnet-b0", "resnet18")
    settings_file.write_text(tiny.replace("steps_per_epoch = 2", "steps_per_epoch = 1"))
    paths = os.pathsep.join(str(ROOT / room) for room in ("kernel", "train"))
    words = ["fit", "--settings", str(settings_file), "--data", str(world.data), "--fold", "0", "--device", "cpu"]

    def start(out: Path, *more: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "surface_train", *words, "--out", str(out), *more]
        return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": paths}, stdout=subprocess.DEVNULL)

    return start


@pytest.fixture(scope="module")
def unkilled(command: Callable, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A run that was left alone, and how long it took."""
    folder, started_s = tmp_path_factory.mktemp("unkilled") / "run", time.monotonic()
    assert command(folder).wait() == 0
    return folder, time.monotonic() - started_s


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_run_that_was_killed_at_any_moment_goes_on_to_the_same_bits(
    unkilled: tuple[Path, float], command: Callable, tmp_path: Path, real_network: None, seed: int
) -> None:
    whole, seconds = unkilled
    rng, folder = random.Random(seed), tmp_path / "run"
    for more in ([], ["--resume"]):
        child = command(folder, *more)
        while child.poll() is None and not (folder / "settings.toml").exists():
            time.sleep(0.01)
        time.sleep(rng.uniform(0, seconds / 2))
        child.kill()  # SIGKILL: nothing is tidied up
        child.wait()
    assert command(folder, "--resume").wait() == 0
    assert_same_run(folder, whole)


# --- which weights are shipped


@pytest.mark.parametrize(("advantage", "name"), [(-0.01, "best"), (0.0, "swa"), (0.01, "swa")])
def test_the_average_ships_unless_the_single_best_is_better(
    whole: Run, world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any, advantage: float, name: str
) -> None:
    shutil.copytree(whole.folder, tmp_path / "run")
    with safetensors.safe_open(tmp_path / "run" / "state.safetensors", framework="pt") as opened:
        best = json.loads(opened.metadata()["progress"])["best_surface_dice"]
    score = validate.Checked(0.45, 0.1, best + advantage, 0.1, 0.1, 0.1, 0.1)
    monkeypatch.setattr(story._Run, "_validate", lambda *_: score)
    caplog.set_level(logging.INFO, "surface_train")
    shipped = fit(world.request(tmp_path / "run", resume=True))
    assert shipped.read_bytes() == (tmp_path / "run" / f"{name}.safetensors").read_bytes()
    assert weights.describe(tmp_path / "run" / "swa.safetensors").threshold == 0.45
    assert f"shipping {name}.safetensors: surface Dice {best + advantage:.4f} averaged, {best:.4f} best" in caplog.text


def test_with_all_cases_nothing_is_checked_and_the_weights_say_so(world: Any, tmp_path: Path) -> None:
    shipped = fit(brief(world.request(tmp_path / "run", fold="all")))
    found = told(shipped)
    assert (found["validation"], found["fold"], found["n_averaged"]) == ("ungated", "all", 1)
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
        optimiser=Optimiser(1e-12, weight_decay=0),
        average=Average(1, learning_rate=1e-12, batchnorm_steps=1),
    )
    found, wanted = tensors(fit(asked)), tensors(start)
    assert found.keys() == wanted.keys()
    learned = [name for name in wanted if "running_" not in name and "num_batches" not in name]
    for name in learned:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-6, atol=1e-9)
    moved = brief(world.request(tmp_path / "moved", fold="all", init=start))
    assert any(not torch.equal(tensors(fit(moved))[name], wanted[name]) for name in learned)


def test_weights_of_another_network_are_no_start(whole: Run, world: Any, tmp_path: Path) -> None:
    asked = brief(world.request(tmp_path / "run", init=whole.folder / "weights.safetensors"))
    asked = replace(asked, settings=replace(asked.settings, network=Architecture("FPN", "resnet18")))
    with pytest.raises(ValueError, match=r"weights\.safetensors: found .*Linknet.*, wanted .*FPN"):
        fit(asked)
    assert not (tmp_path / "run").exists()


# --- faults


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_loss_that_is_no_number_stops_the_run_with_a_sentence(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    real = story.loss.total

    def broken(*given: Any) -> tuple[Tensor, dict[str, Tensor]]:
        total, parts = real(*given)
        return total * float(value), parts

    monkeypatch.setattr(story.loss, "total", broken)
    with pytest.raises(
        RuntimeError, match=f"found a loss of {value} with a gradient of norm nan, wanted finite ones: lower"
    ):
        fit(brief(world.request(tmp_path / "run")))
    assert not (tmp_path / "run" / "state.safetensors").exists()
    assert not (tmp_path / "run" / "weights.safetensors").exists()


def test_a_broken_case_stops_the_run_with_its_name(
    world: Any, tmp_path: Path, write_case: Callable, write_table: Callable, make_sheet: Callable
) -> None:
    image, label = make_sheet(0)
    write_case(tmp_path, "5", "100", image, label[:-1])
    write_table(tmp_path, [("5", "100")])
    with pytest.raises(ValueError, match=r"5\.tif: found a label of \(31, 40, 36\), wanted \(32, 40, 36\)"):
        fit(brief(replace(world.request(tmp_path / "run", fold="all"), data=tmp_path)))


# --- which cases are checked


def test_the_cases_to_check_are_few_fixed_and_of_many_scrolls() -> None:
    made = tuple(cases.Case(f"{scroll}{n}", scroll, Path(), Path()) for scroll in "abcd" for n in range(5))
    found = story._spread(made, 4)
    assert [case.scroll for case in found] == ["a", "b", "c", "d"]
    assert story._spread(made[::-1], 4) == found
    assert len(story._spread(made, 7)) == 7
    assert story._spread(made[:3], 7) == list(made[:3])
    assert story._spread((), 4) == []


def test_the_same_cases_are_split_the_same_by_the_run_and_by_hand(whole: Run, world: Any) -> None:
    sides = folds.split(cases.read(world.data)[0], "0", "scroll", 2)
    assert told(whole.folder / "weights.safetensors")["split_sha256"] == sides.digest
