"""What the `kaggle` client's output means: its words, its JSON, and what is missing from them.

Its exit code is 0 after most failures. An output that does not say what was asked is an error.
"""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass

from surface_package.kaggle.client import Answer

# Kaggle answers 403 as often as 404 for a dataset that is not there.
ABSENT = re.compile(r"\b40[34]\b|not found|forbidden|was denied", re.IGNORECASE)


@dataclass(frozen=True)
class DatasetState:
    """Whether there is a dataset, and which version is current."""

    status: str
    """In Kaggle's words; "absent" where there is none."""
    version: int
    """The current one; 0 where there is none."""


@dataclass(frozen=True, kw_only=True)
class SubmissionLimits:
    """How many submissions may be made."""

    left: int
    """Today."""
    today: int
    """Made today."""
    total: int
    """Made in all."""
    capped: bool
    """Whether none is left because of a limit for all days."""


@dataclass(frozen=True, kw_only=True)
class BoardEntry:
    """One submission on the competition's board."""

    description: str
    """As given when it was made."""
    status: str
    """Kaggle's: "PENDING", "COMPLETE" or "ERROR"."""
    public_score: str
    """Empty before it is known."""
    private_score: str
    """The same."""


def dataset_state(answer: Answer) -> DatasetState:
    """Read `datasets status REF --format json`. Raises ClientError where it gives neither a status nor "not there"."""
    for line in answer.lines():
        if line.startswith("{"):
            try:
                state = json.loads(line)
                return DatasetState(str(state["status"]), int(state["current_version_number"] or 0))
            except (ValueError, KeyError, TypeError):
                break
    if ABSENT.search(answer.text):
        return DatasetState("absent", 0)
    raise answer.error("Kaggle did not report the dataset's status")


def check_upload(answer: Answer, names: Collection[str]) -> None:
    """Check `datasets create` or `datasets version`: accepted, and every file of `names` sent. Raises ClientError.

    A file whose upload fails is left out, and the client continues without it.
    """
    if not re.search(r"(Your (private|public) Dataset|Dataset version) is being created", answer.text):
        raise answer.error("Kaggle did not accept the dataset")
    lost = [name for name in names if f"Upload successful: {name} (" not in answer.text]
    if lost:
        advice = "Run publish again: it sends all files as a new version."
        raise answer.error(f"the dataset was made without {', '.join(lost)}, whose upload failed", advice)


def pushed_version(answer: Answer) -> int:
    """Read the version number that `kernels push` made. Raises ClientError where it failed or lost a source."""
    lost = re.search(r"not valid (\w+) sources? .*?: (.*)", answer.text)
    if lost:
        raise answer.error(
            f"the kernel was pushed without its {lost[1]} source {lost[2]}, and will fail",
            "Check the name in kernel-metadata.json, that the logged-in account may read it, and (for a competition) "
            "that its rules are accepted on the site; then run publish again.",
        )
    done = re.search(r"Kernel version (\d+) successfully pushed", answer.text)
    if not done:
        raise answer.error("Kaggle did not take the kernel")
    return int(done[1])


def kernel_status(answer: Answer) -> tuple[str, str]:
    """Read `kernels status`: (a status like "COMPLETE", failure message or ""). Raises ClientError where none is."""
    status = re.search(r'has status "(?:KernelWorkerStatus\.)?(\w+)"', answer.text)
    if not status:
        raise answer.error("Kaggle did not report the kernel's status")
    failure = re.search(r'Failure message: "(.*)"', answer.text, re.DOTALL)
    return status[1], failure[1] if failure else ""


def submission_limits(answer: Answer) -> SubmissionLimits:
    """Read `competitions submission-limits`. Raises ClientError where it does not list them."""
    counts = [
        re.search(rf"^{name}: (\d+)", answer.text, re.MULTILINE)
        for name in ("Remaining today", "Submissions today", "Lifetime submissions")
    ]
    left, today, total = (int(count[1]) if count else None for count in counts)
    if left is None or today is None or total is None:
        raise answer.error("Kaggle did not report how many submissions are left")
    return SubmissionLimits(left=left, today=today, total=total, capped="(limited by lifetime cap)" in answer.text)


def took_submission(answer: Answer) -> bool:
    """Whether `competitions submit` reported success; where it did not, the board knows."""
    return "Successfully submitted" in answer.text


def submissions(answer: Answer) -> list[BoardEntry]:
    """Read `competitions submissions --format json`, the newest first. Raises ClientError where it lists none."""
    if re.search(r"^No submissions found", answer.text, re.MULTILINE):
        return []
    listed = re.search(r"^\[$.*^\]$", answer.text, re.MULTILINE | re.DOTALL)
    try:
        return [
            BoardEntry(
                description=str(row["description"]),
                status=str(row["status"]).rpartition(".")[2],
                public_score=_score(row["publicScore"]),
                private_score=_score(row["privateScore"]),
            )
            for row in json.loads(listed[0] if listed else "")
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise answer.error("Kaggle did not list the submissions") from error


def _score(value: object) -> str:
    return "" if value is None else str(value)
