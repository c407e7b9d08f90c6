"""A clone of the project with what a bundle is made from and with, and no more."""

import shutil
import subprocess
from pathlib import Path

from scenes import ROOT

OWNER = "tester"


def make_clone(folder: Path, owner: str | None = None) -> Path:
    """Copies what lies here, committed or not; without an owner, kernel-metadata.json names nobody, as shipped."""
    for room in ("kernel", "package"):
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ROOT / "setup.cfg", folder / "setup.cfg")
    name_owner(folder, owner or "your-kaggle-name")
    return folder


def name_owner(clone: Path, owner: str) -> None:
    """Writes kernel-metadata.json with this owner."""
    text = (ROOT / "kernel-metadata.json").read_text()
    shipped = text.partition('"id": "')[2].partition("/")[0]
    (clone / "kernel-metadata.json").write_text(text.replace(f'"{shipped}/', f'"{owner}/'))


def git(folder: Path, *words: str) -> str:
    """Runs git as a user of its own, without anybody's settings."""
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def commit(clone: Path) -> str:
    """Makes a clone a repository with all of it committed; gives the commit."""
    git(clone, "init", "-q")
    git(clone, "add", ".")
    git(clone, "commit", "-qm", "first")
    return git(clone, "rev-parse", "HEAD")
