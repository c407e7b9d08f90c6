"""The code that a bundle carries, as a commit has it: what git holds counts, not what is in the folder."""

import configparser
import io
import os
import subprocess
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# What the kernel's wheel and the others are made from: where it has changed, no commit can stand for the bundle.
PATHS = ("kernel/surface_kernel", "setup.cfg", "package/wheels.txt")
LISTED = 5  # changed files in an error


class SourceError(ValueError):
    """Code that no commit stands for; the message says what has changed and what to do.

    changed: what git reports of it.
    """

    def __init__(self, root: Path, changed: str, advice: str) -> None:
        super().__init__(f"{root}: expected the code as a commit has it, got {changed}; {advice}")
        self.root, self.changed = root, changed


@dataclass(frozen=True)
class Sources:
    """The code that a bundle carries."""

    root: Path
    """Where it is, laid out as in a clone."""
    commit: str | None
    """That holds it; None where none does."""

    @property
    def kernel(self) -> Path:
        """The folder of the package that runs offline."""
        return self.root / "kernel" / "surface_kernel"

    @property
    def version(self) -> str:
        """The version that setup.cfg gives the project."""
        config = configparser.ConfigParser()
        config.read(self.root / "setup.cfg", encoding="utf-8")
        return config.get("metadata", "version")


def take(root: Path, folder: Path, *, uncommitted: bool = False, paths: Sequence[str] = PATHS) -> Sources:
    """Unpack HEAD's code of the clone `root` into `folder`; outside of git the files are taken as they are.

    Args:
        root: the clone.
        folder: where the committed code is unpacked.
        uncommitted: take the files as they are, and name no commit, where the code has changed since.
        paths: of the clone, what is taken; changes elsewhere do not count.

    Raises:
        SourceError: the code has changed since, or git cannot tell, and not `uncommitted`.
    """
    if not uncommitted and not (root / ".git").exists() and not _is_tracked(root):
        return Sources(root, None)
    status = _ask(root, ["status", "--porcelain", "--untracked-files=all", "--", *paths])
    head = _ask(root, ["rev-parse", "HEAD"])
    packed = _ask(root, ["-c", "core.autocrlf=false", "archive", "--format=zip", "HEAD", "--", *paths])
    refused = next((answer.why for answer in (status, head, packed) if answer.why), "")
    if not refused and status.printed == b"":
        with zipfile.ZipFile(io.BytesIO(packed.printed)) as archive:
            archive.extractall(folder)
        return Sources(folder, head.printed.decode().strip())
    if uncommitted:
        return Sources(root, None)
    if refused:
        got = f"no commit that git can read: {refused}"
        raise SourceError(root, got, "do what git asks for, commit the code, or build with --uncommitted")
    changed = [line[3:] for line in status.printed.decode(errors="replace").splitlines()]
    more = f" and {len(changed) - LISTED} more" if len(changed) > LISTED else ""
    reported = f"changes in {', '.join(changed[:LISTED])}{more}"
    raise SourceError(root, reported, "commit it, or build with --uncommitted")


def _is_tracked(root: Path) -> bool:
    """Whether a larger repository holds the project: one that only surrounds an unpacked archive does not.

    A repository that git will not read, such as one of another user, may hold it: then `take` says what git says.
    """
    answer = _ask(root, ["ls-files", "--error-unmatch", "setup.cfg"])
    return not answer.why or "dubious ownership" in answer.why


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """What git said."""

    printed: bytes = b""
    why: str = ""
    """Why it failed, in its own words; empty where it did not."""


def _ask(root: Path, words: Sequence[str]) -> _Answer:
    try:
        # In English, whatever the user's: `_is_tracked` looks for a word of it.
        answer = subprocess.run(["git", "-C", str(root), *words], capture_output=True, env=os.environ | {"LC_ALL": "C"})
    except FileNotFoundError:
        return _Answer(why="git is not installed")
    if answer.returncode:
        said = " ".join(answer.stderr.decode(errors="replace").split())
        return _Answer(why=said or f"git {words[0]}: exit code {answer.returncode}")
    return _Answer(printed=answer.stdout)


def git(root: Path, words: Sequence[str]) -> bytes | None:
    """Return what git prints; None where there is no git, or it fails."""
    answer = _ask(root, words)
    return None if answer.why else answer.printed
