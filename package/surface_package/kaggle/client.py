"""Run the real `kaggle` client, and turn what it printed into an error with advice."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
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
USER_LIMIT_S = 60.0
OTHERWISE = "Put right what the client names, then run publish again: it resumes where it stopped."


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


def command() -> list[str]:
    """Return what starts the client; it is never imported here, since importing it logs in. Raises ClientError."""
    spec = importlib.util.find_spec("kaggle")
    if spec is not None and spec.origin is not None:
        return [sys.executable, "-m", "kaggle"]
    script = Path(sys.executable).with_name("kaggle")
    if script.is_file():
        return [str(script)]
    raise ClientError(f"no kaggle client beside {sys.executable}. Install it: pip install kaggle six.")


def user(limit_s: float = USER_LIMIT_S) -> str:
    """Return who is logged in to the client; "" where it does not know, or is not there."""
    try:
        answer = ask(["config", "view"], limit_s)
    except ClientError:
        return ""
    name = re.search(r"^- username: (\S+)$", answer.text, re.MULTILINE)
    return name[1] if name and name[1] != "None" else ""


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
