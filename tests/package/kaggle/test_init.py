"""Whose kernel-metadata.json it becomes, who is asked, and that the real client pushes from where it lies."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from package.clones import make_clone
from package.deliveries import OWNER
from package.kaggle_server import Kaggle

from surface_package.__main__ import _parser
from surface_package.build import manifest
from surface_package.kaggle import answers, client, init
from surface_package.kaggle.client import Answer, ClientError
from surface_package.kaggle.init import InitError
from surface_package.target import TargetError, findings


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone's kernel-metadata.json, which names nobody; nobody sits at the terminal, and the client is not there."""

    def ask(*arguments: object) -> Answer:
        raise ClientError("no kaggle client")

    monkeypatch.setattr(client, "ask", ask)
    monkeypatch.setattr("sys.stdin", io.StringIO("typed-in\n"))
    return make_clone(tmp_path / "clone") / "kernel-metadata.json"


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def run(words: list[str]) -> int:
    """Runs a command as `main` does, without its logging, which would outlive the test."""
    arguments = _parser().parse_args(words)
    return arguments.run(arguments)


def test_an_owner_is_all_that_is_missing(path: Path) -> None:
    before = read(path)
    assert init.init(path, owner="ada")
    after = read(path)
    assert findings(after, public=False) == []
    assert after["id"] == "ada/" + before["id"].partition("/")[2]
    assert after["dataset_sources"] == ["ada/" + before["dataset_sources"][0].partition("/")[2]]
    assert {**after, "id": before["id"], "dataset_sources": before["dataset_sources"]} == before


def test_again_nothing_is_asked_and_nothing_changes(path: Path) -> None:
    init.init(path, owner="ada")
    first, stamp = path.read_bytes(), path.stat().st_mtime_ns
    assert not init.init(path)
    assert not init.init(path, owner="ada")
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (first, stamp)


def test_title_and_slugs_are_set_when_given(path: Path) -> None:
    assert init.init(path, owner="ada", title="Sheets of Papyrus (v2)", dataset="papyrus-sheets")
    after = read(path)
    assert (after["title"], after["id"]) == ("Sheets of Papyrus (v2)", "ada/sheets-of-papyrus-v2")
    assert after["dataset_sources"] == ["ada/papyrus-sheets"]
    assert init.init(path, owner="bob")  # another owner takes them along
    assert (read(path)["id"], read(path)["dataset_sources"]) == ("bob/sheets-of-papyrus-v2", ["bob/papyrus-sheets"])


def test_what_is_public_stays_public(path: Path) -> None:
    path.write_text(path.read_text().replace('"is_private": true', '"is_private": false'))
    assert init.init(path, owner="ada")
    assert read(path)["is_private"] is False


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"owner": "ada/x"}, "write"),
        ({"owner": "your-kaggle-name"}, "write your own Kaggle user name"),
        ({"owner": ""}, "write"),
        ({"owner": "ada", "title": "Short"}, "write 6 to 50 characters"),
        ({"owner": "ada", "dataset": "x"}, "write a slug of 6 to 50 characters, not 1"),
        ({"owner": "ada", "dataset": "Not A Slug"}, "the slug in a-z"),
    ],
)
def test_what_could_not_be_pushed_is_not_written(path: Path, words: dict[str, str], told: str) -> None:
    before = path.read_bytes()
    with pytest.raises(TargetError, match=told):
        init.init(path, **words)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [{"enable_internet": True}, {"id": 1}, {"id": "x"}, {"dataset_sources": []}, {"dataset_sources": "a"}],
)
def test_a_file_that_was_spoilt_is_told_and_left_alone(path: Path, change: dict[str, object]) -> None:
    path.write_text(json.dumps(read(path) | change))
    before = path.read_bytes()
    with pytest.raises(TargetError, match="was left unchanged"):
        init.init(path, owner="ada")
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_file_that_is_none_is_named(path: Path, content: str | None) -> None:
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(InitError, match=r"kernel-metadata\.json: expected .*, got .*; take it from git again"):
        init.init(path, owner="ada")


def answering(text: str) -> Callable[..., Answer]:
    return lambda arguments, limit_s: Answer(tuple(arguments), 0, text)


def test_the_client_is_asked_first(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "ask", answering("Warning: old\nConfiguration values\n- username: ada\n- path: None\n"))
    init.init(path)
    assert read(path)["id"].startswith("ada/")


@pytest.mark.parametrize("text", ["- username: None\n", "Authentication required to call the Kaggle API.\n", ""])
def test_then_whoever_sits_at_the_terminal(path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(client, "ask", answering(text))
    with pytest.raises(InitError, match=r"expected your Kaggle user name, got none.*kaggle auth login.*--owner NAME"):
        init.init(path)  # a pipe is not asked
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    init.init(path)
    assert read(path)["id"].startswith("typed-in/")


def test_an_empty_answer_is_none(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO("  \n")
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)
    before = path.read_bytes()
    with pytest.raises(InitError):
        init.init(path)
    assert path.read_bytes() == before


def test_the_command_and_then_a_push_by_hand(
    tmp_path: Path, kaggle: Kaggle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The real client tells who is logged in, and takes the clone's root as it is."""
    clone = make_clone(tmp_path / "clone")
    monkeypatch.setattr(manifest, "ROOT", clone)
    assert run(["init"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"{clone / 'kernel-metadata.json'}: written"
    assert printed[1].split() == ["kernel", f"{OWNER}/vesuvius-surface-kernel", "(Vesuvius", "Surface", "Kernel)"]
    assert printed[2].split() == ["dataset", f"{OWNER}/vesuvius-surface-bundle"]
    assert run(["init"]) == 0
    assert ": nothing to change" in capsys.readouterr().out
    kaggle.version = 1  # the dataset is there
    assert answers.pushed_version(client.ask(["kernels", "push", "-p", str(clone)], 60)) == 1
    (pushed,) = kaggle.bodies("SaveKernel")
    assert pushed["slug"] == f"{OWNER}/vesuvius-surface-kernel"
    assert pushed["text"] == (clone / "kernel" / "submit.py").read_text()
    assert pushed["datasetDataSources"] == [f"{OWNER}/vesuvius-surface-bundle"]
    assert pushed["isPrivate"] is True
    assert pushed["enableInternet"] is False
