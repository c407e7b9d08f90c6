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

from surface_package.build import wheels
from surface_package.kaggle import checkpoints, client, publish, training, training_bundle
from surface_package.kaggle.delivery import DeliveryError, Patience
from surface_package.kaggle.training import Record, Training

RUN = f"{OWNER}/surface-some-fold-3"


@pytest.fixture
def kaggle_kind() -> type[SessionKaggle]:
    return SessionKaggle


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kaggle: SessionKaggle) -> Iterator[Training]:
    """A training of 100 steps, of which a session does 60, on two GPUs."""
    cache = tmp_path / "cache"
    cache.mkdir()
    pins = make_pins(cache, gpus=2)
    monkeypatch.setattr(wheels, "read_pins", lambda: pins)
    monkeypatch.setattr(wheels, "cache_folder", lambda: cache)
    settings = tmp_path / "some.toml"
    settings.write_text("steps = 100\nsteps_per_session = 60\n")
    patience = Patience(timeout_s=60, poll_s=0.01)
    yield Training(settings, "3", tmp_path / "runs", make_training_clone(tmp_path / "clone"), patience, patience)
    shutil.rmtree(kaggle.place)


def told(run: Path) -> list[list]:
    return [json.loads(line) for line in (run / "told.json").read_text().splitlines()]


def test_the_real_client_takes_a_run_that_began_here_to_its_end(asked, kaggle, capsys) -> None:
    make_run(asked.run, step=70)
    training.train(asked)
    assert asked.progress() == checkpoints.Progress(100, finished=True)
    (pushed,) = kaggle.bodies("SaveKernel")
    assert (pushed["slug"], pushed["newTitle"]) == (f"{RUN}-training", "Surface Some Fold 3 Training")
    assert (pushed["isPrivate"], pushed["enableGpu"], pushed["enableInternet"]) == (True, True, False)
    assert (pushed["machineShape"], pushed["kernelType"]) == ("NvidiaTeslaT4", "script")
    assert pushed["datasetDataSources"] == [f"{RUN}-training", f"{RUN}-checkpoint"]
    assert pushed["competitionDataSources"] == ["vesuvius-challenge-surface-detection"]
    assert [created["isPrivate"] for created in kaggle.bodies("CreateDataset")] == [True, True]
    said = kaggle.sessions[0].stdout
    assert "going on after step 70\n" in said
    assert said.endswith("verdict: finished\n")
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
    training.train(asked)
    assert asked.progress() == checkpoints.Progress(100, finished=True)
    # Each session was given fold, budget and both GPUs, and the second went on with the first one's files.
    assert [(fold, world) for fold, _, world, _ in told(asked.run)] == [("3", "2"), ("3", "2")]
    assert all(11.2 * 3600 < budget_s < 11.25 * 3600 for _, budget_s, _, _ in told(asked.run))
    assert sorted(path.name for path in asked.run.iterdir()) == [
        *("settings.toml", "state.safetensors", "told.json", "weights.safetensors")
    ]
    verdicts = [session.stdout.splitlines()[-1] for session in kaggle.sessions]
    assert verdicts == ["verdict: continues", "verdict: finished"]
    # Code and settings went once; the run after each session.
    assert kaggle.versions == {f"{RUN}-training": 1, f"{RUN}-checkpoint": 2}
    assert kaggle.contents[f"{RUN}-checkpoint"] == {path.name: path.read_bytes() for path in asked.run.iterdir()}
    assert sorted(path.name for path in asked.run.parent.iterdir()) == [
        *("fold_3", "fold_3.published.json", "fold_3.training.json")
    ]
    training.train(asked)
    assert kaggle.versions == {f"{RUN}-training": 1, f"{RUN}-checkpoint": 2}
    assert kaggle.kernels == 2
    assert "version 2 holds these files already" in capsys.readouterr().out


@pytest.mark.usefixtures("quick")
def test_an_interrupted_publish_takes_the_session_that_it_pushed(asked, kaggle, monkeypatch) -> None:
    def interrupted(training: Training, target: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(training, "_session_end", interrupted)
        with pytest.raises(KeyboardInterrupt):
            training.train(asked)
    assert Record.read(asked).kernel_version == 1
    # Meanwhile the settings were edited: what is on its way is taken first, and what follows has the new ones.
    asked.settings.write_text("")
    with pytest.raises(DeliveryError, match=r"some.toml: found no steps"):
        training.train(asked)
    assert asked.progress().step == 60
    asked.settings.write_text("steps = 100\nsteps_per_session = 50\n")
    training.train(asked)
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
            training.train(asked)
    assert asked.progress() == checkpoints.Progress(0, finished=False)
    training.train(asked)
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
        training.train(asked)
    assert kaggle.kernels == 1
    assert Record.read(asked).kernel_version is None  # the next one pushes again
    assert list(asked.beside(".output").glob("*.log"))
    assert not asked.run.exists()


@pytest.mark.usefixtures("quick")
def test_a_verdict_counts_whatever_kaggle_says_of_the_session(asked, kaggle) -> None:
    asked.settings.write_text('steps = 100\nsteps_per_session = 60\nfault = "sys.exit(5)"\n')
    kaggle.kernel_states.append({"status": "COMPLETE"})
    with pytest.raises(DeliveryError, match=r"the training failed. Read the log in .*fold_3.output"):
        training.train(asked)
    assert "error: fit ended with exit code 5, wanted 0" in kaggle.sessions[0].stdout


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
        with pytest.raises(DeliveryError, match=rf"{name} (.|\n)*it fetches the output again. If it stays so, delete"):
            training.train(asked)
    training.train(asked)
    assert (kaggle.kernels, asked.progress().step) == (2, 100)


@pytest.mark.usefixtures("quick")
def test_a_session_without_its_run_does_not_begin_anew(asked, kaggle) -> None:
    make_run(asked.run, step=70)
    kaggle.forget = "-checkpoint"
    with pytest.raises(DeliveryError, match="ended with ERROR"):
        training.train(asked)
    assert "found runs at the steps [], wanted one at step 70" in kaggle.sessions[0].stdout
    assert asked.progress().step == 70


@pytest.mark.usefixtures("quick")
def test_a_session_without_code_or_data_says_so(asked, kaggle) -> None:
    kaggle.forget = "-training"
    with pytest.raises(DeliveryError, match="ended with ERROR"):
        training.train(asked)
    assert "found no bundle, wanted one folder with a manifest.json of format 'surface-training/1'" in (
        kaggle.sessions[0].stdout
    )


@pytest.mark.usefixtures("quick")
def test_without_a_gpu_nothing_is_trained(asked, kaggle, tmp_path, monkeypatch) -> None:
    cache = tmp_path / "cpu"
    cache.mkdir()
    pins = make_pins(cache, gpus=0)
    monkeypatch.setattr(wheels, "read_pins", lambda: pins)
    monkeypatch.setattr(wheels, "cache_folder", lambda: cache)
    with pytest.raises(DeliveryError, match="ended with ERROR"):
        training.train(asked)
    assert "torch: found '0' GPUs, wanted one or two" in kaggle.sessions[0].stdout


@pytest.mark.usefixtures("quick")
def test_a_checkpoint_that_is_never_ready_is_waited_for_again(asked, kaggle) -> None:
    kaggle.never_ready = "-checkpoint"
    impatient = replace(asked, patience=Patience(timeout_s=20, poll_s=21))
    make_run(asked.run, step=70)
    with pytest.raises(DeliveryError, match=r"dataset still stands at 'absent' after 20 s"):
        training.train(replace(impatient, session=asked.session))
    assert kaggle.kernels == 0
    kaggle.never_ready = ""
    training.train(asked)
    assert kaggle.versions[f"{RUN}-checkpoint"] == 2  # as it began and as it ended: nothing was sent twice
    assert asked.progress().finished


def test_an_output_of_another_session_is_not_taken(asked, kaggle, tmp_path) -> None:
    output = make_run(tmp_path / "output", step=60)
    (output / "k.log").write_text(f"manifest sha256 {'a' * 64}\nbeginning anew, after step 0\nverdict: continues")
    training._check_session(output, Record(manifest_sha256="a" * 64, after_step=0))
    for record in (Record(manifest_sha256="a" * 64, after_step=60), Record(manifest_sha256="b" * 64)):
        with pytest.raises(DeliveryError, match="the output is of another session, after step 0 with the bundle aaaa"):
            training._check_session(output, record)


def test_the_code_is_that_of_a_commit(asked, tmp_path) -> None:
    head = commit(asked.root)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    made = [training_bundle.make(tmp_path / name, asked.settings, "3", asked.root) for name in ("one", "two")]
    first, second = ({name: path.read_bytes() for name, path in files.items()} for files in made)
    assert first == second
    assert json.loads(first["manifest.json"])["commit"] == head
    (asked.root / "train" / "surface_train" / "more.py").touch()
    with pytest.raises(DeliveryError, match=r"found changes in train/surface_train/more.py\. Commit it first"):
        training.train(asked)


@pytest.mark.parametrize(
    ("text", "fold", "match"),
    [
        ("steps = 100", "x", "--fold is 'x'. Give the number"),
        ("", "3", "some.toml: found no steps, wanted them"),
        ('steps = 100\nlabels_dir = "repaired"', "all", "names the labels_dir repaired, which Kaggle has not"),
        ("steps = 100\n# key = 0123456789abcdef0123456789abcdef", "3", "holds a Kaggle key. Take it out"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_asked(asked, kaggle, text, fold, match) -> None:
    asked.settings.write_text(text)
    for way in (training.train, training.show_plan):
        with pytest.raises(DeliveryError, match=match):
            way(replace(asked, fold=fold))
    assert kaggle.requests == []


def test_dry_run_prints_every_command_and_file_and_asks_nothing(asked, kaggle, capsys) -> None:
    make_run(asked.run, step=70)
    before = sorted(asked.runs.rglob("*"))
    training.show_plan(asked)
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
    def interrupted(asked: Training) -> None:
        assert (asked.settings, asked.fold, asked.run) == (Path("s.toml"), "all", Path("runs/s/fold_all"))
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", interrupted)
    assert publish.run(words("--training", "s.toml", "--fold", "all")) == 130
    assert "Run publish again to go on" in capsys.readouterr().err
