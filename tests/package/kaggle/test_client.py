"""How the client is started, and what its errors say."""

import importlib.util
import sys
from pathlib import Path

import pytest

from surface_package.kaggle import client
from surface_package.kaggle.client import Answer, ClientError

HELP = "Authentication required to call the Kaggle API.\n\nRecommended: log in\n    kaggle auth login\n"
REFUSED = "HTTPConnectionPool(host='127.0.0.1', port=9): Max retries exceeded with url: http://localhost/api\n"
BARS = "\r  0%|          | 0.00/5.00 [00:00<?, ?B/s]\r100%|██████████| 5.00/5.00 [00:00<00:00, 602B/s]\n"
LOST = f"Starting upload for file b.json\n{BARS}Upload unsuccessful: b.json\n"


def said(text: str, code: int = 0) -> Answer:
    return Answer(("kernels", "push"), code, text)


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("ModuleNotFoundError: No module named 'six'", "pip install kaggle six"),
        (HELP, "kaggle auth login."),
        ("kaggle: error: unrecognized arguments: --format json", "too old"),
        ("429 Client Error: Too Many Requests", "asks for a pause"),
        (REFUSED, "Check the network"),
        ("You have reached the daily submission limit.", "after midnight UTC"),
        ("You must accept this competition's rules before", "Accept the competition's rules"),
        ("403 Client Error: Forbidden", "owner named in kernel-metadata.json, and that it accepted the competition's"),
        ("something never seen", "resumes where it stopped"),
    ],
)
def test_an_error_tells_the_command_the_words_and_what_to_do(text, advice) -> None:
    told = str(said(text, 1).error("it failed"))
    assert told.startswith("it failed.\n  kaggle kernels push\n  printed (exit code 1):\n    ")
    assert text.split("\n")[0] in told
    assert advice in told.splitlines()[-1]


def test_an_error_tells_no_progress_bars_and_no_signed_address() -> None:
    told = str(said(LOST + "no answer from https://host/blob?signature=SECRET&x=1 now\n").error("it failed"))
    assert "SECRET" not in told
    assert "https://host/blob?... now" in told
    assert "B/s" not in told


def test_each_run_has_a_fresh_tmpdir_and_the_rest_of_the_environment(monkeypatch, tmp_path) -> None:
    code = "import os, sys; e = os.environ; print(e['TMPDIR'], os.getcwd(), e['MARK'], sys.argv[1], len(os.listdir()))"
    monkeypatch.setattr(client, "command", lambda: [sys.executable, "-c", code])
    monkeypatch.setenv("MARK", "kept")
    first, second = (client.ask(["asked"], 60).text.split() for _ in range(2))
    assert first[0] == first[1]
    assert first[2:] == second[2:] == ["kept", "asked", "0"]
    assert first[0] != second[0]
    assert not Path(first[0]).exists()


def test_a_client_that_does_not_end_is_stopped(monkeypatch) -> None:
    monkeypatch.setattr(client, "command", lambda: [sys.executable, "-c", "import time; time.sleep(600)"])
    with pytest.raises(ClientError, match=r"no end after 1 s\.(.|\n)*run publish again"):
        client.ask(["kernels", "status"], 1)


def test_where_the_client_is_found(monkeypatch, tmp_path) -> None:
    assert client.command() == [sys.executable, "-m", "kaggle"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(ClientError, match="pip install kaggle six"):
        client.command()
    (tmp_path / "kaggle").touch()
    assert client.command() == [str(tmp_path / "kaggle")]
