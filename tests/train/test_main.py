import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from surface_kernel.networks import weights
from surface_phantom import LOOKS, Summary
from surface_train import settings
from surface_train.__main__ import main
from surface_train.loop import fit as story
from surface_train.loop.fit import Request


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, provenance: dict[str, Any]) -> list[Request]:
    """What would be trained."""
    requests: list[Request] = []

    def remember(request: Request) -> Path:
        requests.append(request)
        return request.out / "weights.safetensors"

    monkeypatch.setattr(story, "fit", remember)
    monkeypatch.setattr(weights, "describe", lambda path: SimpleNamespace(provenance=provenance))
    monkeypatch.setattr("surface_kernel.page.leave_page", lambda out, **inputs: "")
    return requests


@pytest.fixture
def provenance() -> dict[str, Any]:
    """What the weights say of themselves."""
    return {"validation": "ungated"}


@pytest.mark.parametrize(("settings_word", "data_word"), [("--settings", "--data"), ("--config", "--data_dir")])
def test_a_run_is_asked_for_in_either_spelling(asked: list[Request], world: Any, settings_word, data_word) -> None:
    assert main(["fit", settings_word, str(world.settings_file), data_word, str(world.data), "--fold", "1"]) == 0
    chosen = settings.read(world.settings_file)
    assert asked == [
        Request(
            settings_file=world.settings_file,
            settings=chosen,
            data=world.data,
            fold="1",
            out=Path("runs/tiny/fold_1"),
        )
    ]


def test_weights_that_predict_the_same_everywhere_have_an_exit_code_of_their_own(
    asked: list[Request], world: Any, provenance: dict[str, Any]
) -> None:
    provenance["validation"] = {"foreground": 1.0, "variance": 0.1}
    assert main(["fit", "--settings", str(world.settings_file), "--data", str(world.data), "--fold", "1"]) == 4


def test_every_word_reaches_the_run(asked: list[Request], world: Any, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--out", "o", "--init", "w", "--resume", "--device", "cuda:1", "--budget-s", "60"]
    assert main(["fit", "--settings", str(world.settings_file), "--data", "d", "--fold", "all", *words]) == 0
    chosen = settings.read(world.settings_file)
    assert asked == [
        Request(
            settings_file=world.settings_file,
            settings=chosen,
            data=Path("d"),
            fold="all",
            out=Path("o"),
            init=Path("w"),
            resume=True,
            device="cuda:1",
            budget_s=60.0,
        )
    ]
    assert capsys.readouterr().out == f"weights: {Path('o/weights.safetensors')}\n"


@pytest.mark.parametrize(("rank", "left"), [(None, True), ("0", True), ("1", False)])
def test_a_page_is_left_after_all_is_saved(
    asked: list[Request],
    world: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    rank: str | None,
    left: bool,
) -> None:
    """By one of several processes; what goes wrong is a line, and the run ended well all the same."""
    pages: list[tuple[Path, dict[str, Path]]] = []

    def leave(out: Path, **inputs: Path) -> str:
        assert asked  # the run is over
        pages.append((out, inputs))
        return "no page: reasons"

    monkeypatch.setattr("surface_kernel.page.leave_page", leave)
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    words = ["fit", "--settings", str(world.settings_file), "--data", "d", "--fold", "1", "--out", "o"]
    assert main(words) == 0
    assert pages == ([(Path("o/page.html"), {"run": Path("o")})] if left else [])
    assert capsys.readouterr().out.splitlines()[1:] == (["no page: reasons"] if left else [])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"--data": "nowhere"},
            "error: nowhere/train.csv: no such file; expected a table with the columns id and scroll_id",
        ),
        ({"--fold": "7"}, 'error: fold: expected 0 to 1, or "all", got "7"'),
        ({"--device": "tpu"}, 'error: device: expected cpu, cuda or cuda:N, got "tpu"'),
        ({"--init": "nowhere"}, "error: nowhere: no such file; expected a weights file"),
        ({"--settings": "nowhere.toml"}, "error: nowhere.toml: no such file; expected a settings file"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    world: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, str], sentence: str
) -> None:
    words = {"--settings": str(world.settings_file), "--data": str(world.data), "--fold": "0", "--device": "cpu"}
    words |= {"--out": str(tmp_path / "run")} | change
    assert main(["fit", *(part for pair in words.items() for part in pair)]) == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith(sentence)
    assert not (tmp_path / "run").exists()


def test_a_phantom_is_written_where_it_is_wanted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given: list[dict[str, object]] = []

    def write(out: Path, **arguments: object) -> Summary:
        given.append({"out": out, **arguments})
        return Summary(
            competition=Path("o/competition"),
            test_labels=Path("o/test_labels"),
            train_ids=("1", "2", "3"),
            test_ids=("4", "5"),
            absent_ids=("6",),
            surface_share=0.0531,
        )

    monkeypatch.setattr("surface_phantom.write_dataset", write)
    assert main(["phantom", "--out", "o", "--volumes", "3", "--size", "64", "80", "96", "--seed", "5"]) == 0
    expected = {"out": Path("o"), "volumes": 3, "test_volumes": 2, "size_zyx": (64, 80, 96), "seed": 5, "looks": LOOKS}
    assert given == [expected]
    said = capsys.readouterr().out
    assert said == f"{Path('o/competition')}: 3 training volumes, 5.3 % of their voxels surface, and 2 test volumes\n"


@pytest.mark.parametrize("words", [[], ["train"], ["fit", "--fold", "0"], ["audit"]])
def test_a_command_that_is_not_whole_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert "usage: surface_train" in capsys.readouterr().err


def test_a_data_folder_is_audited_as_a_training_judges_it(world: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "--data", str(world.data)]) == 0
    first, shapes, labels, verdict = capsys.readouterr().out.splitlines()
    assert first == f"{world.data}: 4 cases (scroll 100: 2, scroll 200: 2)"
    assert shapes == "  shapes: 32×40×36 ×4"
    assert re.fullmatch(r"  labels: 0 .*%, 1 .*%, 2 \(unlabelled\) .*%, other 0.00%", labels)
    assert verdict == f"{world.data}: sound; 1 rows of train.csv without image or label"


CODE = """
import numba.core.caching
numba.core.caching.CacheImpl._locator_classes = []
import surface_phantom.raster, surface_kernel.inference.engine, surface_kernel.postprocess.mask
import surface_score, surface_train.checks.audit, surface_train.loop.fit
print("imported")
"""


def test_every_entry_begins_where_nothing_compiled_can_be_kept() -> None:
    """In a read-only clone of a user without a writable home numba finds no place for its cache, and refuses."""
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("imported\n", "")
