"""What a session says it left, compared with what came."""

import json
from pathlib import Path

import pytest
from package.fake_bundle import result_line
from package.kaggle_server import log_of
from package.sessions import make_run

from surface_package.build import manifest
from surface_package.kaggle.checkpoints import RunProgress
from surface_package.kaggle.delivery import DeliveryError
from surface_package.kaggle.training import session_output
from surface_package.kaggle.training.job import TrainingRecord

OURS = "a" * 64
GIVEN = TrainingRecord(manifest_sha256=OURS, after_step=0)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return make_run(tmp_path / "output", step=60)


def files(output: Path) -> dict[str, str]:
    return {
        path.name: manifest.sha256(path) for path in output.iterdir() if path.suffix not in ("", ".partial", ".log")
    }


def log(output: Path, verdict: str = "continues", **entries: object) -> None:
    """Write the session's log, with the line that the script would print."""
    left = {"manifest_sha256": OURS, "after_step": 0, "step": 60, "files": files(output)}
    (output / "k.log").write_text(log_of("training on 2 GPUs", result_line("train", verdict, **left | entries)))


def test_a_session_that_says_what_it_left_is_taken(output) -> None:
    log(output)
    result = session_output.read_session(output, GIVEN)
    assert session_output.check_files(output, result) == RunProgress(60, finished=False)


def test_a_log_without_the_line_is_fetched_again(output) -> None:
    (output / "k.log").write_text(log_of(f"manifest sha256 {OURS}", "after step 0", "verdict: continues"))
    with pytest.raises(DeliveryError, match=r"k\.log: expected a line 'surface-submit: .*got none.*fetches the output"):
        session_output.read_session(output, GIVEN)


@pytest.mark.parametrize(
    ("given", "entries"),
    [
        (TrainingRecord(manifest_sha256=OURS, after_step=60), {}),
        (TrainingRecord(manifest_sha256="b" * 64), {}),
        (GIVEN, {"after_step": None}),
        (GIVEN, {"manifest_sha256": ""}),
    ],
)
def test_another_session_is_not_taken(output, given, entries) -> None:
    log(output, **entries)
    with pytest.raises(DeliveryError, match=r"the output is of another session, after step .* with the bundle "):
        session_output.read_session(output, given)


def test_a_session_that_failed_before_it_verified_a_bundle_is_ours_by_its_step(output) -> None:
    log(output, "failed", manifest_sha256="", step=None, files={}, reason="no_bundle")
    assert session_output.read_session(output, GIVEN).reason == "no_bundle"
    with pytest.raises(DeliveryError, match="the output is of another session"):
        session_output.read_session(output, TrainingRecord(manifest_sha256=OURS, after_step=60))


def test_each_difference_between_line_and_files_is_an_error(output) -> None:
    good = files(output)

    def refused(message: str, verdict: str = "continues", **entries: object) -> None:
        log(output, verdict, **entries)
        result = session_output.read_session(output, GIVEN)
        with pytest.raises(DeliveryError, match=message):
            session_output.check_files(output, result)

    refused(r"names no settings\.toml and no state\.safetensors", files={})
    less = {name: digest for name, digest in good.items() if name != "state.safetensors"}
    refused(r"names no state\.safetensors", files=less)
    refused(r"log\.csv is missing or came damaged", files=good | {"log.csv": "0" * 64})
    refused(r"best\.safetensors is missing or came damaged", files=good | {"best.safetensors": "0" * 64})
    refused("holds a run at step 60, not finished, but its log says step 61, continues", step=61)
    refused("holds a run at step 60, not finished, but its log says step None, continues", step=None)
    refused("holds a run at step 60, not finished, but its log says step 60, finished", "finished")
    (output / "log.csv").write_text("damaged")
    refused(r"log\.csv is missing or came damaged", files=good)


def test_the_state_is_moved_last_and_the_log_stays(output, tmp_path, monkeypatch) -> None:
    log(output)
    order: list[str] = []
    real = Path.replace
    monkeypatch.setattr(Path, "replace", lambda path, target: (order.append(path.name), real(path, target))[1])
    session_output.move_into(output, tmp_path / "run")
    assert order[-1] == "state.safetensors"
    assert "k.log" not in order
    assert json.loads((tmp_path / "run" / "environment.json").read_text()) == {}
