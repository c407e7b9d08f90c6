"""What the client printed, as the real one (2.2.4) prints it, and what is made of it."""

import pytest

from surface_package.kaggle import answers
from surface_package.kaggle.answers import BoardEntry, DatasetState, SubmissionLimits
from surface_package.kaggle.client import Answer, ClientError

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
    assert answers.dataset_state(said(text)) == state


@pytest.mark.parametrize("text", [HELP, REFUSED, "", '{"state": "ready"}', "{not json", "[]"])
def test_dataset_state_that_was_not_told(text) -> None:
    with pytest.raises(ClientError, match="did not report the dataset's status"):
        answers.dataset_state(said(text))


def test_upload() -> None:
    answers.check_upload(said(SENT + CREATED), ["a.whl"])
    answers.check_upload(said(SENT + VERSIONED), ["a.whl"])
    with pytest.raises(ClientError, match=r"made without b.json, whose(.|\n)*sends all files"):
        answers.check_upload(said(SENT + LOST + CREATED), ["a.whl", "b.json"])
    with pytest.raises(ClientError, match=r"without l\.whl"):  # the end of another's name
        answers.check_upload(said(SENT + CREATED), ["l.whl"])
    taken = 'Dataset creation error: The requested title "T" is already in use by a dataset.\n'
    with pytest.raises(ClientError, match=r"did not accept(.|\n)*already in use(.|\n)*another slug"):
        answers.check_upload(said(taken), ["a.whl"])


def test_push() -> None:
    assert answers.pushed_version(said(PUSHED)) == 12
    warning = "Your kernel title does not resolve to the specified id. This may result in surprising behavior.\n"
    assert answers.pushed_version(said(warning + PUSHED)) == 12
    lost = "The following are not valid competition sources and could not be added to the kernel: ['c']\n"
    with pytest.raises(ClientError, match=r"without its competition source \['c'\], and will fail(.|\n)*rules"):
        answers.pushed_version(said(lost + PUSHED))
    for text in ("Kernel push error: Notebook not found\n", REFUSED, ""):
        with pytest.raises(ClientError, match="did not take the kernel"):
            answers.pushed_version(said(text))


def test_kernel_status() -> None:
    assert answers.kernel_status(said('o/k has status "KernelWorkerStatus.QUEUED"\n')) == ("QUEUED", "")
    assert answers.kernel_status(said('o/k has status "complete"\n')) == ("complete", "")
    failed = 'o/k has status "KernelWorkerStatus.ERROR"\nFailure message: "line one\nline "two""\n'
    assert answers.kernel_status(said(failed)) == ("ERROR", 'line one\nline "two"')
    with pytest.raises(ClientError, match="did not report the kernel's status"):
        answers.kernel_status(said("Cannot access kernel 'o/k'\n", 1))


def test_submission_limits() -> None:
    for text, capped in ((LIMITS + "\n", False), (LIMITS + " (limited by lifetime cap)\n", True)):
        limits = SubmissionLimits(left=4, today=1, total=12, capped=capped)
        assert answers.submission_limits(said(text)) == limits
    for text in (REFUSED, "", "{}", "Remaining today: 4\n"):
        with pytest.raises(ClientError, match="did not report how many submissions are left"):
            answers.submission_limits(said(text))


def test_submissions() -> None:
    ours, other = answers.submissions(said(BOARD))
    assert ours == BoardEntry(description="ours [1]", status="COMPLETE", public_score="0.561", private_score="")
    assert other == BoardEntry(description="No submissions found", status="PENDING", public_score="", private_score="")
    assert answers.submissions(said("Warning: old\nNo submissions found\n")) == []
    for text in (REFUSED, "", "[\n{\n]", "[\n1\n]\n", '[\n{"ref": 1}\n]\n'):
        with pytest.raises(ClientError, match="did not list the submissions"):
            answers.submissions(said(text))


def test_took_submission() -> None:
    assert answers.took_submission(said("4 submissions remaining today.\nSuccessfully submitted to Vesuvius"))
    assert not answers.took_submission(said("4 submissions remaining today.\nNot allowed"))
