"""Run the real `kaggle` client and judge what it printed; its exit code is 0 after most failures."""

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

# The first match tells the user what to do; the order goes from the certain to the vague.
ADVICE = (
    (r"No module named", "Install the client: pip install kaggle six."),
    (r"Authentication required|\b401\b|Unauthorized", "Log the client in: kaggle auth login."),
    (r"unrecognized arguments|invalid choice", "The client is too old: pip install --upgrade kaggle six."),
    (r"\b429\b|Too many requests", "Kaggle asks for a pause: wait some minutes, then run publish again."),
    (r"quota", "Wait until Kaggle gives new GPU hours (see kaggle.com/settings), then run publish again."),
    (r"already in use", "Choose another slug in kernel-metadata.json, or wait and run publish again if it is yours."),
    (r"submission limit|daily limit|submissions per day", "Run publish --submit again after midnight UTC."),
    (r"accept\b.*\brules|rules\b.*\baccept", "Accept the competition's rules on its site, then run publish again."),
    (
        r"\b403\b|Forbidden|denied",
        "Check that the logged-in account is the owner named in kernel-metadata.json, and that it accepted the "
        "competition's rules on the site.",
    ),
    (r"Max retries|Connection|timed out|\b5\d\d\b", "Check the network and kaggle.com, then run publish again."),
)
OTHERWISE = "Put right what the client names, then run publish again: it resumes where it stopped."
# Kaggle answers 403 as often as 404 for a dataset that is not there.
ABSENT = re.compile(r"\b40[34]\b|not found|forbidden|was denied", re.IGNORECASE)


class ClientError(RuntimeError):
    """The client did not do what was asked of it; the message says what happened and what to do."""


@dataclass(frozen=True)
class Answer:
    """What one run of the client left."""

    arguments: tuple[str, ...]
    """Of its command line."""
    code: int
    """Its exit code."""
    text: str
    """stdout and stderr in one."""

    def lines(self) -> list[str]:
        """Return the non-empty lines without progress bars; a signed address loses its query, a secret for a week."""
        lines = (line.strip() for line in re.split(r"[\r\n]+", self.text))
        return [re.sub(r"\?\S+", "?...", line) for line in lines if line and not re.search(r"\d%\||B/s\]", line)]

    def error(self, happened: str, advice: str = "") -> ClientError:
        """Return an error: what happened, what the client printed, what to do (by default what its words suggest)."""
        printed = "\n".join(f"    {line}" for line in self.lines()[-8:]) or "    (nothing)"
        known = (words for pattern, words in ADVICE if re.search(pattern, self.text, re.IGNORECASE))
        advice = advice or next(known, OTHERWISE)
        command = shlex.join(["kaggle", *self.arguments])
        return ClientError(f"{happened}.\n  {command}\n  printed (exit code {self.code}):\n{printed}\n  {advice}")


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


def command() -> list[str]:
    """Return what starts the client; it is never imported here, since importing it logs in. Raises ClientError."""
    spec = importlib.util.find_spec("kaggle")
    if spec is not None and spec.origin is not None:
        return [sys.executable, "-m", "kaggle"]
    script = Path(sys.executable).with_name("kaggle")
    if script.is_file():
        return [str(script)]
    raise ClientError(f"no kaggle client beside {sys.executable}. Install it: pip install kaggle six.")


def ask(arguments: Sequence[str], limit_s: float, *, show: bool = False) -> Answer:
    """Run the client once, stopped after `limit_s` seconds. Raises ClientError where it is absent or too late.

    TMPDIR is fresh for each run: the client keeps tokens of finished uploads there, and after a failed create would not
    send a changed file of the same size and time again. The rest of the environment, credentials too, is its own
    affair.

    Args:
        arguments: of its command line.
        limit_s: until it is stopped.
        show: pass its progress on to a terminal.
    """
    with tempfile.TemporaryDirectory(prefix="surface-client-") as scratch:
        process = subprocess.Popen(
            [*command(), *arguments],
            cwd=scratch,
            env=os.environ | {"TMPDIR": scratch, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        timer = threading.Timer(limit_s, process.kill)
        with process:
            assert process.stdout is not None
            timer.start()
            try:
                text = _receive(process.stdout, show and sys.stderr.isatty())
            except BaseException:
                process.kill()
                raise
            finally:
                timer.cancel()
    answer = Answer(tuple(arguments), process.returncode, text)
    if answer.code < 0:
        raise answer.error(f"no end after {limit_s:.0f} s", "Check the network, then run publish again.")
    return answer


def _receive(stream: IO[bytes], show: bool) -> str:
    received = bytearray()
    while chunk := os.read(stream.fileno(), 65536):
        received += chunk
        if show:
            sys.stderr.write(chunk.decode(errors="replace"))
            sys.stderr.flush()
    return received.decode(errors="replace")


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

    A file whose upload fails is left out, and the client goes on without it.
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
