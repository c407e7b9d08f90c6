"""The code that a bundle carries, as a commit has it: what git holds counts, not what is in the folder."""

import configparser
import io
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
    status = git(root, ["status", "--porcelain", "--untracked-files=all", "--", *paths])
    head = git(root, ["rev-parse", "HEAD"])
    packed = git(root, ["-c", "core.autocrlf=false", "archive", "--format=zip", "HEAD", "--", *paths])
    if status == b"" and head and packed:
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            archive.extractall(folder)
        return Sources(folder, head.decode().strip())
    if uncommitted:
        return Sources(root, None)
    changed = [line[3:] for line in (status or b"").decode(errors="replace").splitlines()]
    more = f" and {len(changed) - LISTED} more" if len(changed) > LISTED else ""
    reported = f"changes in {', '.join(changed[:LISTED])}{more}" if changed else "no commit that git can read"
    raise SourceError(root, reported, "commit it, or build with --uncommitted")


def _is_tracked(root: Path) -> bool:
    """Whether a larger repository holds the project: one that only surrounds an unpacked archive does not."""
    return git(root, ["ls-files", "--error-unmatch", "setup.cfg"]) is not None


def git(root: Path, words: Sequence[str]) -> bytes | None:
    """Return what git prints; None where there is no git, or it fails."""
    try:
        answer = subprocess.run(["git", "-C", str(root), *words], capture_output=True)
    except FileNotFoundError:
        return None
    return answer.stdout if answer.returncode == 0 else None
