import getpass
import json
import re
import socket
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from surface_train.records import environment as module
from surface_train.records.environment import commit, environment


def test_code_from_wheels_has_the_commit_that_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SURFACE_COMMIT", "c0ffee")
    assert commit() == "c0ffee"
    monkeypatch.setenv("SURFACE_COMMIT", "")
    assert commit() != ""


def test_the_environment_names_versions_and_says_none_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LIBRARIES", ("numpy", "no-such-library"))
    found = environment()
    assert found["libraries"] == {"numpy": np.__version__, "no-such-library": None}
    assert found["commit"] == commit()
    assert re.fullmatch(r"3\.\d+\.\d+\S*", found["python"])
    assert json.loads(json.dumps(found)) == found


def test_the_environment_tells_the_machine_and_not_whose_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"card {index}")
    found = environment()
    assert found["gpus"] == ["card 0", "card 1"]
    assert found["cuda"] == torch.version.cuda
    assert found["cores"] >= 1
    assert found["memory_gib"] > 0.1
    assert found["torch_threads"] == torch.get_num_threads()
    values = json.dumps(found)
    for word in (socket.gethostname(), str(Path.home()), str(Path(__file__).parent)):
        assert f'"{word}' not in values
    assert f'"{getpass.getuser()}"' not in values


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (None, None),
        ("processor : 0\n", None),
        ("processor : 0\nmodel name\t: A CPU: fast\nmodel name\t: another\n", "A CPU: fast"),
    ],
)
def test_the_processor_is_named_where_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, name: str | None
) -> None:
    told = tmp_path / "cpuinfo"
    if content is not None:
        told.write_text(content)
    monkeypatch.setattr(module, "Path", lambda path: told)
    assert module._cpu() == name


def test_outside_a_checkout_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "__file__", str(tmp_path / "environment.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert commit() is None
    monkeypatch.setenv("PATH", "")
    assert commit() is None


def test_a_commit_is_marked_when_files_were_changed_since(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> str:
        who = ("-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false")
        done = subprocess.run(["git", *who, *words], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init")
    (tmp_path / "environment.py").write_text("one")
    git("add", "environment.py")
    git("commit", "-m", "one")
    monkeypatch.setattr(module, "__file__", str(tmp_path / "environment.py"))
    assert commit() == git("rev-parse", "HEAD")
    (tmp_path / "environment.py").write_text("two")
    assert commit() == git("rev-parse", "HEAD") + "-dirty"
