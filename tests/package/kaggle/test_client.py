"""What the client printed, as the real one (2.2.4) prints it, and what is made of it; how it is started."""

import importlib.util
import sys
from pathlib import Path

import pytest

from surface_package.kaggle import client
from surface_package.kaggle.client import Answer, BoardEntry, ClientError, DatasetState, SubmissionLimits

HELP = "Authentication required to call the Kaggle API.\n\nRecommended: log in\n    kaggle auth login\n"
REFUSED = "HTTPConnectionPool(host='127.0.0.1', port=9): Max retries exceeded with url: http://localhost/api\n"
BARS = "\r  0%|          | 0.00/5.00 [00:00<?, ?B/s]\r100%|██████████| 5.00/5.00 [00:00<00:00, 602B/s]\n"
SENT = f"Starting upload for file a.whl\n{BARS}Upload successful: a.whl (5B)\n"
LOST = f"Starting upload for file b.json\n{BARS}Upload unsuccessful: b.json\n"
CREATED = "Your private Dataset is being created. Please check progress at https://www.kaggle.com/datasets/r\n"
VERSIONED = "Dataset version is being created. Please check progress at https://www.kaggle.com/datasets/r\n"
LIMITS = "Submissions today: 1\nLifetime submissions: 12\nRemaining today: 4"
BOARD = """Warning: an outdated version
[
  {
    "ref": 2,
    "fileName": "submission.zip",
    "date": "2026-11-26T03:00:00",
    "description": "ours [1]",
    "status": "SubmissionStatus.COMPLETE",
    "publicScore": "0.561",
    "privateScore": ""
  },
  {
    "ref": 1,
    "description": "No submissions found",
    "status": "SubmissionStatus.PENDING",
    "publicScore": null,
    "privateScore": null
  }
]
"""
PUSHED = "Kernel version 12 successfully pushed.  Please check progress at https://www.kaggle.com/code/k\n"


def said(text: str, code: int = 0) -> Answer:
    return Answer(("kernels", "push"), code, text)


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ('{"status": "ready", "current_version_number": 3}', DatasetState("ready", 3)),
        ('Warning: old\n{"status": "failed", "current_version_number": null}', DatasetState("failed", 0)),
        ("404 Client Error: Not Found for url: https://api.kaggle.com/v1\n", DatasetState("absent", 0)),
        ("Permission 'datasets.get' was denied\n", DatasetState("absent", 0)),
        ("403 Client Error: Forbidden for url: x\n", DatasetState("absent", 0)),
    ],
)
def test_dataset_state(text, state) -> None:
    assert client.dataset_state(said(text)) == state


@pytest.mark.parametrize("text", [HELP, REFUSED, "", '{"state": "ready"}', "{not json", "[]"])
def test_dataset_state_that_was_not_told(text) -> None:
    with pytest.raises(ClientError, match="did not report the dataset's status"):
        client.dataset_state(said(text))


def test_upload() -> None:
    client.check_upload(said(SENT + CREATED), ["a.whl"])
    client.check_upload(said(SENT + VERSIONED), ["a.whl"])
    with pytest.raises(ClientError, match=r"made without b.json, whose(.|\n)*sends all files"):
        client.check_upload(said(SENT + LOST + CREATED), ["a.whl", "b.json"])
    with pytest.raises(ClientError, match=r"without l\.whl"):  # the end of another's name
        client.check_upload(said(SENT + CREATED), ["l.whl"])
    taken = 'Dataset creation error: The requested title "T" is already in use by a dataset.\n'
    with pytest.raises(ClientError, match=r"did not accept(.|\n)*already in use(.|\n)*another slug"):
        client.check_upload(said(taken), ["a.whl"])


def test_push() -> None:
    assert client.pushed_version(said(PUSHED)) == 12
    warning = "Your kernel title does not resolve to the specified id. This may result in surprising behavior.\n"
    assert client.pushed_version(said(warning + PUSHED)) == 12
    lost = "The following are not valid competition sources and could not be added to the kernel: ['c']\n"
    with pytest.raises(ClientError, match=r"without its competition source \['c'\], and will fail(.|\n)*rules"):
        client.pushed_version(said(lost + PUSHED))
    for text in ("Kernel push error: Notebook not found\n", REFUSED, ""):
        with pytest.raises(ClientError, match="did not take the kernel"):
            client.pushed_version(said(text))


def test_kernel_status() -> None:
    assert client.kernel_status(said('o/k has status "KernelWorkerStatus.QUEUED"\n')) == ("QUEUED", "")
    assert client.kernel_status(said('o/k has status "complete"\n')) == ("complete", "")
    failed = 'o/k has status "KernelWorkerStatus.ERROR"\nFailure message: "line one\nline "two""\n'
    assert client.kernel_status(said(failed)) == ("ERROR", 'line one\nline "two"')
    with pytest.raises(ClientError, match="did not report the kernel's status"):
        client.kernel_status(said("Cannot access kernel 'o/k'\n", 1))


def test_submission_limits() -> None:
    for text, capped in ((LIMITS + "\n", False), (LIMITS + " (limited by lifetime cap)\n", True)):
        limits = SubmissionLimits(left=4, today=1, total=12, capped=capped)
        assert client.submission_limits(said(text)) == limits
    for text in (REFUSED, "", "{}", "Remaining today: 4\n"):
        with pytest.raises(ClientError, match="did not report how many submissions are left"):
            client.submission_limits(said(text))


def test_submissions() -> None:
    ours, other = client.submissions(said(BOARD))
    assert ours == BoardEntry(description="ours [1]", status="COMPLETE", public_score="0.561", private_score="")
    assert other == BoardEntry(description="No submissions found", status="PENDING", public_score="", private_score="")
    assert client.submissions(said("Warning: old\nNo submissions found\n")) == []
    for text in (REFUSED, "", "[\n{\n]", "[\n1\n]\n", '[\n{"ref": 1}\n]\n'):
        with pytest.raises(ClientError, match="did not list the submissions"):
            client.submissions(said(text))


def test_took_submission() -> None:
    assert client.took_submission(said("4 submissions remaining today.\nSuccessfully submitted to Vesuvius"))
    assert not client.took_submission(said("4 submissions remaining today.\nNot allowed"))


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
