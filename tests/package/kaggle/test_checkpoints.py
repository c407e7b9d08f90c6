"""A run on its way to Kaggle and back: which files travel, under which names, and what must not."""

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from package.deliveries import OWNER
from package.sessions import SessionKaggle, make_run, make_training_clone, weights_bytes

from surface_package.build.bundle import BundleRequest, build
from surface_package.kaggle import checkpoints, client
from surface_package.kaggle.checkpoints import CHECKPOINT, TRAINING, RunProgress
from surface_package.kaggle.delivery import DeliveryError, Polling
from surface_package.kaggle.upload import SentDataset

POLLING = Polling(timeout_s=60, poll_s=0.01)
DATASET = f"{OWNER}/surface-some-fold-3-checkpoint"
TRAVEL = {
    "settings.toml",
    "log.csv",
    "environment.json",
    "epoch_1.png",
    "state.safetensors",
    "weights.safetensors",
}


@pytest.fixture
def kaggle_kind() -> type[SessionKaggle]:
    return SessionKaggle


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "some" / "fold_3", step=70)


def test_a_run_goes_there_and_comes_back_flat(run, kaggle, tmp_path, capsys) -> None:
    root = make_training_clone(tmp_path / "clone")
    checkpoints.publish(run, root, POLLING)
    (created,) = kaggle.bodies("CreateDataset")
    assert (created["isPrivate"], created["licenseName"]) == (True, "CC-BY-NC-4.0")
    assert (created["slug"], created["title"]) == (DATASET.partition("/")[2], "Surface Some Fold 3 Checkpoint")
    out = capsys.readouterr().out
    assert f"run {run}: step 70, not finished\ndataset {DATASET}: not there yet, creating it (6 files, " in out
    assert f"kaggle datasets download {DATASET} --unzip -p DIR\n" in out
    assert "fit --settings DIR/settings.toml --data data --fold 3 --out DIR --resume\n" in out
    assert sorted(path.name for path in run.parent.iterdir()) == ["fold_3", "fold_3.published.json"]

    back = tmp_path / "back"
    answer = client.ask(["datasets", "download", DATASET, "--unzip", "-p", str(back)], 60)
    assert answer.code == 0, answer.text
    assert {path.name for path in back.iterdir()} == TRAVEL
    assert all((back / name).read_bytes() == (run / name).read_bytes() for name in TRAVEL)
    assert checkpoints.progress(back) == RunProgress(70, finished=False)

    kaggle.requests.clear()
    checkpoints.publish(run, root, POLLING)
    assert kaggle.calls() == ["GetDatasetStatus", "GetDataset"]
    assert "version 1 holds these files already" in capsys.readouterr().out
    (run / "weights.safetensors").write_bytes(weights_bytes(finished=True))
    checkpoints.publish(run, root, POLLING)
    (versioned,) = kaggle.bodies("CreateDatasetVersion")
    assert versioned["body"]["versionNotes"] == "step 70"
    assert (kaggle.versions[DATASET], len(kaggle.contents[DATASET])) == (2, 6)


def test_a_bundle_is_built_from_what_came_back(run, tmp_path) -> None:
    taken = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("surface_package.build.wheels.gather", lambda pins, folder, offline: [])
        patched.setattr("surface_package.build.bundle.assemble", lambda out, files, *_, **__: taken.append(files))
        build(BundleRequest(weights=[run], out=tmp_path / "bundle", uncommitted=True))
    assert taken[0]["member_0.safetensors"] == run / "weights.safetensors"


def sent(digest: str = "D", dataset: str = DATASET, before: int = 1, version: int | None = 2) -> SentDataset:
    return SentDataset(dataset=dataset, digest=digest, version_before=before, version=version)


@pytest.mark.parametrize(
    ("state", "known", "told", "calls"),
    [
        ("ready", sent(), "holds these files already", []),
        ("ready", sent(version=None), "", []),  # sent, then interrupted
        ("ready", sent(before=0, version=1), "at version 2, adding one", ["version"]),  # somebody added one
        ("ready", sent("other"), "at version 2, adding one", ["version"]),
        ("ready", sent(dataset="tester/other"), "at version 2, adding one", ["version"]),
        ("absent", sent(), "creating it", ["create"]),  # somebody deleted it
        ("absent", sent(version=None), "creating it", ["create"]),
    ],
)
def test_what_is_sent_again(run, tmp_path, monkeypatch, capsys, state, known, told, calls) -> None:
    asked = []

    def ask(words: list[str], limit_s: float, *, show: bool = False) -> client.Answer:
        asked.append(words[1])
        # After an upload Kaggle goes on telling "ready" for a while, of the version before.
        arrived = asked[-2:] == ["status", "status"]
        version = 2 + (arrived and "version" in asked) if state == "ready" else asked.count("create")
        text = json.dumps({"status": "ready", "current_version_number": version}) if version else "404 not found"
        if words[1] != "status":
            text = "".join(f"Upload successful: {name} (1B)\n" for name in TRAVEL) + "Dataset version is being created"
        return client.Answer(tuple(words), 0, text)

    monkeypatch.setattr(client, "ask", ask)
    monkeypatch.setattr("surface_package.kaggle.upload.digest", lambda files: "D")
    checkpoints.record_path(run).write_text(json.dumps(asdict(known)))
    target = checkpoints.target_of(run, make_training_clone(tmp_path / "clone"))
    after = checkpoints.send(run, target, POLLING)
    assert [word for word in asked if word != "status"] == calls
    assert told in capsys.readouterr().out
    assert after == SentDataset(**json.loads(checkpoints.record_path(run).read_text()))
    assert (after.digest, after.version) == ("D", {"create": 1, "version": 3}.get("".join(calls), 2))


def test_a_dataset_that_came_out_failed_is_sent_anew(run, tmp_path, monkeypatch) -> None:
    def ask(words: list[str], limit_s: float, *, show: bool = False) -> client.Answer:
        return client.Answer(tuple(words), 0, '{"status": "failed", "current_version_number": 2}')

    monkeypatch.setattr(client, "ask", ask)
    digest = checkpoints.upload.digest(checkpoints.files(run))
    checkpoints.record_path(run).write_text(json.dumps(asdict(sent(digest, version=None))))
    target = checkpoints.target_of(run, make_training_clone(tmp_path / "clone"))
    with pytest.raises(DeliveryError, match=r"came out 'failed'\. Run publish again: it sends it once more"):
        checkpoints.send(run, target, POLLING)
    assert json.loads(checkpoints.record_path(run).read_text()) == asdict(SentDataset())


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("kaggle.json", "{}", "has a name like kaggle.json"),
        ("settings.toml", "# key = 0123456789abcdef0123456789abcdef", "holds what looks like a Kaggle key"),
        ("environment.json", '"KGAT_0123456789abcdef"', "holds what looks like a Kaggle token"),
        ("log.csv", f"{Path.home()}/secret", "names the folder"),
        ("settings.toml", 'labels_dir = "/data/repaired"', "names the folder /data/repaired of this machine"),
    ],
)
def test_what_must_not_travel(run, name, text, told) -> None:
    (run / name).write_text(text)
    with pytest.raises(DeliveryError, match=re.escape(told)) as caught:
        checkpoints.files(run)
    assert "0123456789abcdef" not in str(caught.value)


def test_a_secret_in_the_metadata_of_weights_does_not_travel(run) -> None:
    content = (run / "state.safetensors").read_bytes()
    header = content[8:].rstrip().replace(b'"x"', b'"hf_0123456789012345678901"')
    (run / "state.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(DeliveryError, match="a Hugging Face token"):
        checkpoints.files(run)


def test_a_relative_labels_dir_may_travel(run) -> None:
    (run / "settings.toml").write_text('labels_dir = "repaired"')
    assert checkpoints.files(run).keys() == TRAVEL


@pytest.mark.parametrize("missing", ["settings.toml", "state.safetensors"])
def test_a_folder_that_is_no_run(run, missing) -> None:
    (run / missing).unlink()
    with pytest.raises(DeliveryError, match=f"has no {missing}. Name the folder of a training"):
        checkpoints.files(run)


@pytest.mark.parametrize(
    "content", [b"", b"\2\0\0\0\0\0\0\0{}", b"\x20\0\0\0\0\0\0\0" + b'{"__metadata__":{"progress":"1"}}'[:32]]
)
def test_a_damaged_state_is_named(run, content) -> None:
    (run / "state.safetensors").write_bytes(content)
    with pytest.raises(DeliveryError, match=r"state.safetensors (is no readable safetensors|names no step)"):
        checkpoints.progress(run)


def test_how_far_a_run_is(run) -> None:
    assert checkpoints.progress(run) == RunProgress(70, finished=False)
    (run / "weights.safetensors").write_bytes(weights_bytes(finished=True))
    assert checkpoints.progress(run) == RunProgress(70, finished=True)
    (run / "weights.safetensors").unlink()
    assert checkpoints.progress(run) == RunProgress(70, finished=False)


@pytest.mark.parametrize(
    ("run", "ending", "slug"),
    [
        ("runs/unet_resnet18/fold_3", CHECKPOINT, "surface-unet-resnet18-fold-3-checkpoint"),
        ("runs/unet_resnet18/fold_all", TRAINING, "surface-unet-resnet18-fold-all-training"),
        ("elsewhere/My Run", CHECKPOINT, "surface-my-run-checkpoint"),
        ("runs/é", CHECKPOINT, "surface-e-checkpoint"),
        (f"runs/{'x' * 40}/fold_3", TRAINING, None),
    ],
)
def test_a_runs_name_makes_its_slug(run, ending, slug) -> None:
    made = checkpoints.slug(Path(run), ending)
    assert made == slug or (slug is None and re.fullmatch(r"surface-x+-[0-9a-f]{8}-training", made))


@settings(max_examples=50)
@given(st.text(min_size=1, max_size=60).filter(lambda name: "/" not in name and "\0" not in name))
def test_every_slug_is_one_that_kaggle_takes(name) -> None:
    for ending in (CHECKPOINT, TRAINING):
        made = checkpoints.slug(Path("/runs", name), ending)
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", made)
        assert 6 <= len(made) <= 50


def test_long_names_that_differ_at_their_end_stay_apart() -> None:
    one, two = (checkpoints.slug(Path(f"/runs/{'x' * 60}_{last}/fold_0"), CHECKPOINT) for last in "ab")
    assert one != two


def test_a_public_kernels_checkpoints_are_private(run, tmp_path) -> None:
    root = make_training_clone(tmp_path / "clone")
    path = root / "kernel-metadata.json"
    path.write_text(path.read_text().replace('"is_private": true', '"is_private": false'))
    assert not checkpoints.target_of(run, root).public


def test_dry_run_prints_every_command_and_file(run, tmp_path, capsys) -> None:
    checkpoints.show_plan(run, make_training_clone(tmp_path / "clone"))
    out = capsys.readouterr().out
    for name in TRAVEL:
        assert f"STAGED/{name}: {(run / name).stat().st_size} bytes\n" in out
    assert f"kaggle datasets status {DATASET} --format json    until ready\n" in out
    assert "kaggle datasets create -p STAGED    if it is not there yet, else\n" in out
    assert "kaggle datasets version -p STAGED -m 'step 70'" in out
    assert [path.name for path in run.parent.iterdir()] == ["fold_3"]
