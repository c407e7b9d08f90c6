"""Trainings on Kaggle: the real client and the script that is pushed, against a server that runs it."""

import argparse
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from package.clones import commit
from package.deliveries import OWNER
from package.sessions import SessionKaggle, make_pins, make_run, make_training_clone

from surface_package.build import protocol, wheels
from surface_package.kaggle import checkpoints, client, publish
from surface_package.kaggle.delivery import DeliveryError, Polling
from surface_package.kaggle.training import command, sessions, training_bundle
from surface_package.kaggle.training.job import TrainingJob, TrainingRecord

RUN = f"{OWNER}/surface-some-fold-3"


@pytest.fixture
def kaggle_kind() -> type[SessionKaggle]:
    return SessionKaggle


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kaggle: SessionKaggle) -> Iterator[TrainingJob]:
    """A training of 100 steps, of which a session does 60, on two GPUs."""
    cache = tmp_path / "cache"
    cache.mkdir()
    pins = make_pins(cache, gpus=2)
    monkeypatch.setattr(wheels, "read_pins", lambda: pins)
    monkeypatch.setattr(wheels, "cache_folder", lambda: cache)
    settings = tmp_path / "some.toml"
    settings.write_text("steps = 100\nsteps_per_session = 60\n")
    polling = Polling(timeout_s=60, poll_s=0.01)
    yield TrainingJob(
        settings=settings,
        fold="3",
        runs=tmp_path / "runs",
        root=make_training_clone(tmp_path / "clone"),
        polling=polling,
        session=polling,
    )
    shutil.rmtree(kaggle.place)


def told(run: Path) -> list[list]:
    return [json.loads(line) for line in (run / "told.json").read_text().splitlines()]


@pytest.mark.slow
def test_the_real_client_takes_a_run_that_began_here_to_its_end(asked, kaggle, capsys) -> None:
    make_run(asked.run, step=70)
    sessions.train(asked)
    assert asked.progress() == checkpoints.RunProgress(100, finished=True)
    (pushed,) = kaggle.bodies("SaveKernel")
    assert (pushed["slug"], pushed["newTitle"]) == (f"{RUN}-training", "Surface Some Fold 3 Training")
    assert (pushed["isPrivate"], pushed["enableGpu"], pushed["enableInternet"]) == (True, True, False)
    assert (pushed["machineShape"], pushed["kernelType"]) == ("NvidiaTeslaT4", "script")
    assert pushed["datasetDataSources"] == [f"{RUN}-training", f"{RUN}-checkpoint"]
    assert pushed["competitionDataSources"] == ["vesuvius-challenge-surface-detection"]
    assert [created["isPrivate"] for created in kaggle.bodies("CreateDataset")] == [True, True]
    said = kaggle.sessions[0].stdout
    assert "resuming after step 70\n" in said
    result = protocol.read_result(said, protocol.TRAIN)
    assert (result.verdict, result.after_step, result.step) == ("finished", 70, 100)
    assert set(result.files) == set(checkpoints.files(asked.run))
    assert [path.name for path in (asked.run / "events").iterdir()] == ["events.out.tfevents.000001"]
    assert kaggle.versions == {f"{RUN}-training": 1, f"{RUN}-checkpoint": 2}
    out = capsys.readouterr().out
    assert "session 1: step 70 to 100" in out
    assert out.endswith(
        f"finished: {asked.run / 'weights.safetensors'}, and the whole run in dataset {RUN}-checkpoint\n"
    )


@pytest.fixture
def quick(kaggle: SessionKaggle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask the server without the real client, which takes a second a question."""
    monkeypatch.setattr(client, "ask", kaggle.ask)


@pytest.mark.usefixtures("quick")
def test_sessions_follow_one_another_until_the_run_is_finished(asked, kaggle, capsys) -> None:
    sessions.train(asked)
    assert asked.progress() == checkpoints.RunProgress(100, finished=True)
    # Each session was given fold, budget and both GPUs, and the second went on with the first one's files.
    assert [(fold, world) for fold, _, world, _ in told(asked.run)] == [("3", "2"), ("3", "2")]
    assert all(11.2 * 3600 < budget_s < 11.25 * 3600 for _, budget_s, _, _ in told(asked.run))
    assert sorted(path.name for path in asked.run.iterdir()) == [
        "settings.toml",
        "state.safetensors",
        "told.json",
        "weights.safetensors",
    ]
    results = [protocol.read_result(session.stdout, protocol.TRAIN) for session in kaggle.sessions]
    assert [result.verdict for result in results] == ["continues", "finished"]
    assert [(result.after_step, result.step) for result in results] == [(0, 60), (60, 100)]
    # Code and settings went once; the run after each session.
    assert kaggle.versions == {f"{RUN}-training": 1, f"{RUN}-checkpoint": 2}
    assert kaggle.contents[f"{RUN}-checkpoint"] == {path.name: path.read_bytes() for path in asked.run.iterdir()}
    assert sorted(path.name for path in asked.run.parent.iterdir()) == [
        "fold_3",
        "fold_3.published.json",
        "fold_3.training.json",
    ]
    sessions.train(asked)
    assert kaggle.versions == {f"{RUN}-training": 1, f"{RUN}-checkpoint": 2}
    assert kaggle.kernels == 2
    assert "version 2 holds these files already" in capsys.readouterr().out


@pytest.mark.usefixtures("quick")
def test_an_interrupted_publish_takes_the_session_that_it_pushed(asked, kaggle, monkeypatch) -> None:
    def interrupted(job: TrainingJob, target: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(sessions, "session_end", interrupted)
        with pytest.raises(KeyboardInterrupt):
            sessions.train(asked)
    assert TrainingRecord.read(asked).kernel_version == 1
    # Meanwhile the settings were edited: what is on its way is taken first, and what follows has the new ones.
    asked.settings.write_text("")
    with pytest.raises(DeliveryError, match=r"some.toml: expected steps"):
        sessions.train(asked)
    assert asked.progress().step == 60
    asked.settings.write_text("steps = 100\nsteps_per_session = 50\n")
    sessions.train(asked)
    assert kaggle.kernels == 2
    assert kaggle.versions[f"{RUN}-training"] == 2
    assert asked.progress().finished


@pytest.mark.usefixtures("quick")
def test_a_move_that_breaks_off_is_made_again(asked, kaggle, monkeypatch) -> None:
    real = Path.replace

    def full(path: Path, target: Path) -> Path:
        if path.name == "weights.safetensors" and path.parent == asked.beside(".output"):
            raise OSError("no space left")
        return real(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full)
        with pytest.raises(OSError, match="no space left"):
            sessions.train(asked)
    assert asked.progress() == checkpoints.RunProgress(0, finished=False)
    sessions.train(asked)
    assert (kaggle.kernels, asked.progress().step) == (2, 100)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("fault", "match"),
    [
        (
            "sys.exit('CUDA out of memory')",
            r"version 1 ended with ERROR: exit code 1\.(.|\n)*Running publish again starts",
        ),
        ("settings['steps_per_session'] = 0", "ended at step 0 and began after step 0: it made no progress"),
    ],
)
def test_a_session_that_came_to_nothing_stops_the_loop(asked, kaggle, fault, match) -> None:
    asked.settings.write_text(f'steps = 100\nsteps_per_session = 60\nfault = "{fault}"\n')
    with pytest.raises(DeliveryError, match=match):
        sessions.train(asked)
    assert kaggle.kernels == 1
    assert TrainingRecord.read(asked).kernel_version is None  # the next one pushes again
    assert list(asked.beside(".output").glob("*.log"))
    assert not asked.run.exists()


@pytest.mark.usefixtures("quick")
def test_a_verdict_counts_whatever_kaggle_says_of_the_session(asked, kaggle) -> None:
    asked.settings.write_text('steps = 100\nsteps_per_session = 60\nfault = "sys.exit(5)"\n')
    kaggle.kernel_states.append({"status": "COMPLETE"})
    with pytest.raises(
        DeliveryError, match=r"training failed: fit: expected exit code 0, got 5.*log in .*fold_3.output"
    ):
        sessions.train(asked)
    assert "error: fit: expected exit code 0, got 5" in kaggle.sessions[0].stdout


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("name", "logged"), [("state.safetensors", False), ("told.json", True)])
def test_an_output_that_came_damaged_is_fetched_again(asked, kaggle, monkeypatch, name, logged) -> None:
    real = kaggle.ask_kernels_output

    def damaged(kernel: str, folder: Path) -> str:
        real(kernel, folder)
        (folder / name).write_text("<html>503</html>")
        if not logged:
            next(folder.glob("*.log")).unlink()
        return ""

    with monkeypatch.context() as patched:
        patched.setattr(kaggle, "ask_kernels_output", damaged)
        reason = rf"{name} is missing or came damaged" if logged else "expected a line 'surface-submit: .*, got none"
        with pytest.raises(DeliveryError, match=rf"{reason}.*it fetches the output again. If that changes nothing"):
            sessions.train(asked)
    sessions.train(asked)
    assert (kaggle.kernels, asked.progress().step) == (2, 100)


@pytest.mark.usefixtures("quick")
def test_a_session_without_its_run_does_not_begin_anew(asked, kaggle) -> None:
    make_run(asked.run, step=70)
    kaggle.forget = "-checkpoint"
    with pytest.raises(DeliveryError, match="ended with ERROR"):
        sessions.train(asked)
    assert "expected one run at step 70, got runs at the steps []" in kaggle.sessions[0].stdout
    assert asked.progress().step == 70


@pytest.mark.usefixtures("quick")
def test_a_session_without_code_or_data_says_so(asked, kaggle) -> None:
    kaggle.forget = "-training"
    with pytest.raises(DeliveryError, match="ended with ERROR"):
        sessions.train(asked)
    said = kaggle.sessions[0].stdout
    assert "expected one folder with a manifest.json of format 'surface-training/1', got none" in said
    result = protocol.read_result(said, protocol.TRAIN)
    assert (result.verdict, result.reason, result.files) == ("failed", "no_bundle", {})


@pytest.mark.usefixtures("quick")
def test_without_a_gpu_nothing_is_trained(asked, kaggle, tmp_path, monkeypatch) -> None:
    cache = tmp_path / "cpu"
    cache.mkdir()
    pins = make_pins(cache, gpus=0)
    monkeypatch.setattr(wheels, "read_pins", lambda: pins)
    monkeypatch.setattr(wheels, "cache_folder", lambda: cache)
    with pytest.raises(DeliveryError, match="ended with ERROR"):
        sessions.train(asked)
    assert "torch: expected one or two GPUs, got '0'" in kaggle.sessions[0].stdout


@pytest.mark.usefixtures("quick")
def test_a_checkpoint_that_is_never_ready_is_waited_for_again(asked, kaggle) -> None:
    kaggle.never_ready = "-checkpoint"
    impatient = replace(asked, polling=Polling(timeout_s=20, poll_s=21))
    make_run(asked.run, step=70)
    with pytest.raises(DeliveryError, match=r"dataset is still 'absent' after 20 s"):
        sessions.train(replace(impatient, session=asked.session))
    assert kaggle.kernels == 0
    kaggle.never_ready = ""
    sessions.train(asked)
    assert kaggle.versions[f"{RUN}-checkpoint"] == 2  # as it began and as it ended: nothing was sent twice
    assert asked.progress().finished


def test_the_code_is_that_of_a_commit(asked, tmp_path) -> None:
    head = commit(asked.root)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    made = [
        training_bundle.make(tmp_path / name, settings=asked.settings, fold="3", root=asked.root)
        for name in ("one", "two")
    ]
    first, second = ({name: path.read_bytes() for name, path in files.items()} for files in made)
    assert first == second
    assert json.loads(first["manifest.json"])["commit"] == head
    (asked.root / "train" / "surface_train" / "more.py").touch()
    with pytest.raises(DeliveryError, match=r"has changes in train/surface_train/more.py\. Commit it first"):
        sessions.train(asked)


@pytest.mark.parametrize(
    ("text", "fold", "match"),
    [
        ("steps = 100", "x", "--fold is 'x'. Set the number"),
        ("", "3", "some.toml: expected steps"),
        ('steps = 100\nlabels_dir = "repaired"', "all", "names the labels_dir repaired, absent on Kaggle"),
        ("steps = 100\n# key = 0123456789abcdef0123456789abcdef", "3", "holds a Kaggle key. Take it out"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_asked(asked, kaggle, text, fold, match) -> None:
    asked.settings.write_text(text)
    for way in (sessions.train, command.show_plan):
        with pytest.raises(DeliveryError, match=match):
            way(replace(asked, fold=fold))
    assert kaggle.requests == []


def test_dry_run_prints_every_command_and_file_and_asks_nothing(asked, kaggle, capsys) -> None:
    make_run(asked.run, step=70)
    before = sorted(asked.runs.rglob("*"))
    command.show_plan(asked)
    out = capsys.readouterr().out
    for line in (
        f"{asked.run} is at step 70. Until the run is finished:",
        "STAGED/state.safetensors: ",
        f"kaggle datasets status {RUN}-checkpoint --format json",
        "kaggle datasets version -p STAGED -m 'step 70'    if these files are not its newest version already",
        "STAGED/surface_train-0.1.0-py3-none-any.whl: ",
        "STAGED/settings.toml: ",
        f"kaggle datasets status {RUN}-training --format json    until ready",
        f'"dataset_sources": ["{RUN}-training", "{RUN}-checkpoint"]',
        "STAGED/train_on_kaggle.py: ",
        "kaggle kernels push -p STAGED",
        f"kaggle kernels status {RUN}-training    until COMPLETE",
        f"kaggle kernels output {RUN}-training -p {asked.run}.output    then moved into",
    ):
        assert line in out
    assert kaggle.requests == []
    assert sorted(asked.runs.rglob("*")) == before


def words(*more: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    publish.add_arguments(parser)
    return parser.parse_args(more)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--training", "s.toml"], "belong together"),
        (["--checkpoints", "run", "--fold", "3"], "belong together"),
        (["bundle", "--checkpoints", "run"], "give no BUNDLE, --public or --submit"),
        (["--checkpoints", "run", "--public"], "give no BUNDLE, --public or --submit"),
        (["--checkpoints", "run", "--timeout-s", "0"], "--timeout-s is 0.0"),
        (["--training", "s.toml", "--fold", "3"], 'write your own Kaggle user name for "your-kaggle-name"'),
    ],
)
def test_the_command_line_refuses_what_does_not_fit(more, told, capsys) -> None:
    assert publish.run(words(*more)) == 1
    assert told in capsys.readouterr().err


def test_an_interrupt_is_no_traceback(monkeypatch, capsys) -> None:
    def interrupted(asked: TrainingJob) -> None:
        assert (asked.settings, asked.fold, asked.run) == (Path("s.toml"), "all", Path("runs/s/fold_all"))
        raise KeyboardInterrupt

    monkeypatch.setattr(sessions, "train", interrupted)
    assert publish.run(words("--training", "s.toml", "--fold", "all")) == 130
    assert "Run publish again to resume" in capsys.readouterr().err
