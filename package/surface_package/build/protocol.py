"""The line that our scripts print for other programs: read here, and written by `Result` in kernel/submit.py.

submit.py, train_on_kaggle.py and bare.py end with one line of PREFIX and a JSON object. What else they print is for
people and may be reworded; nothing here reads it. A line that is absent or malformed is an error.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PREFIX = "surface-submit: "
SUBMIT, VERIFY, TRAIN, BARE = "submit", "verify", "train", "bare"
COMPLETE, DEGRADED, FAILED, NO_SUBMISSION = "complete", "degraded", "failed", "no submission"
VERIFIED, REFUSED = "verified", "refused"
FINISHED, CONTINUES = "finished", "continues"
VERDICTS = {
    SUBMIT: (COMPLETE, DEGRADED, FAILED, NO_SUBMISSION),
    VERIFY: (VERIFIED, REFUSED),
    TRAIN: (FINISHED, CONTINUES, FAILED),
    BARE: (VERIFIED, REFUSED),
}
_SHA256 = re.compile(r"[0-9a-f]{64}")


class ProtocolError(ValueError):
    """A program did not print the line that we read, or not as we read it."""


@dataclass(frozen=True, kw_only=True)
class ScriptResult:
    """What a script says of its run; the entries of `Result` in kernel/submit.py."""

    program: str
    """Which one ran: a key of VERDICTS."""
    verdict: str
    """How it ended, in one of its program's VERDICTS."""
    reason: str
    """Why it was refused, in one word that does not change with the message; empty otherwise."""
    message: str
    """The same for people."""
    manifest_sha256: str
    """Of the bundle; empty where none was verified."""
    files: Mapping[str, str]
    """What was left in the output and may be used: sha256 by name."""
    findings: tuple[str, ...]
    """What is wrong with the bundle or the submission, for people; the first of many."""
    after_step: int | None
    """Of a training: the step it began after."""
    step: int | None
    """Of a training: the step it reached."""

    @property
    def why(self) -> str:
        """Why it did not end well, for people."""
        return "; ".join([*([self.message] if self.message else []), *self.findings]) or "it gives no reason"


def read_result(output: str, program: str) -> ScriptResult:
    """Return what a program says of its run, in the last such line of its output.

    Raises:
        ProtocolError: there is no such line, or it is malformed, lacks an entry or is another program's.
    """
    # Kaggle's logs put times before a line, and a retried script prints more than one: the last one counts.
    lines = [line.partition(PREFIX)[2] for line in output.splitlines() if PREFIX in line]
    if not lines:
        raise ProtocolError(f"expected a line '{PREFIX}{{…}}' that says how the run ended, got none")
    try:
        entries = json.loads(lines[-1])
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"line '{PREFIX}…': expected JSON, got {_short(lines[-1])} ({error})") from error
    if wrong := _wrong(entries):
        raise ProtocolError(f"line '{PREFIX}…': {wrong}")
    result = ScriptResult(**entries | {"findings": tuple(entries["findings"])})
    if result.program != program or result.verdict not in VERDICTS[program]:
        got = f"{result.verdict!r} of {result.program!r}"
        expected = f"{' or '.join(map(repr, VERDICTS[program]))} of {program!r}"
        raise ProtocolError(f"line '{PREFIX}…': verdict: expected {expected}, got {got}")
    return result


def _wrong(entries: Any) -> str:
    """Return what is wrong with the entries of a line; empty if nothing is."""
    if not isinstance(entries, dict):
        return f"expected a JSON object, got {_short(entries)}"
    expected = set(ScriptResult.__dataclass_fields__)
    if entries.keys() != expected:
        differing = ", ".join(sorted(entries.keys() ^ expected))
        return f"expected the entries {', '.join(sorted(expected))}, got others or fewer: {differing}"
    for name, value in entries.items():
        if not _fits(name, value):
            return f"{name}: expected another kind of value, got {_short(value)}"
    return ""


def _fits(name: str, value: Any) -> bool:
    """Whether an entry has the type, and digests the form, that `ScriptResult` says."""
    if name in ("after_step", "step"):
        return value is None or (type(value) is int and value >= 0)
    if name == "findings":
        return isinstance(value, list) and all(isinstance(line, str) for line in value)
    if name == "files":
        return isinstance(value, dict) and all(_is_digest(digest) for digest in value.values())
    if name == "manifest_sha256":
        return value == "" or _is_digest(value)
    return isinstance(value, str)


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:120]}…"
