"""scripts/prepare.sh in every shell that people source it from, with a Python that only pretends to install."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from scenes import ROOT

SHELLS = [
    pytest.param(name, marks=pytest.mark.skipif(shutil.which(name) is None, reason=f"no {name}"))
    for name in ("bash", "dash", "zsh")
]
REQUIREMENTS = ("requirements.txt", "requirements-no-deps.txt", "requirements-dev.txt")

# `-m venv DIR` leaves a copy of itself, `-m pip` and `-c` succeed.
PYTHON = """#!/bin/sh
case "$1 $2" in
    "--version ") echo "Python {version}" ;;
    "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
esac
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone beside Pythons that pretend, in a folder with an environment of its own, which is nobody's business."""
    folder = tmp_path / "parent" / "clone"
    (folder / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "prepare.sh", folder / "scripts")
    shutil.copy(ROOT / "setup.cfg", folder)
    for name in REQUIREMENTS:
        (folder / name).write_text(f"# {name}\n")
    (tmp_path / "parent" / ".venv").mkdir()
    (tmp_path / "parent" / ".venv" / "precious").touch()
    (tmp_path / "bin").mkdir()
    for name, version in (("python3", "3.11.7"), ("python3.12", "3.12.1")):
        path = tmp_path / "bin" / name
        path.write_text(PYTHON.format(version=version))
        path.chmod(0o755)
    return folder


def source(shell: str, clone: Path, at: str = "scripts/prepare.sh", cwd: Path | None = None, **more: str) -> str:
    """Source the script; return what it said, and where the shell was then. PYTHON asks for a version."""
    environment = {"PATH": f"{clone.parent.parent / 'bin'}:{os.environ['PATH']}", "HOME": str(clone)} | more
    command = [shell, "-c", f'. {at} && echo "at $PWD, $PATH"']
    done = subprocess.run(command, cwd=cwd or clone, env=environment, capture_output=True, text=True, check=False)
    assert (clone.parent / ".venv" / "precious").exists()
    return done.stdout + done.stderr


@pytest.mark.parametrize("shell", SHELLS)
def test_it_prepares_the_clone_and_nothing_around_it(shell: str, clone: Path) -> None:
    said = source(shell, clone)
    assert "== preparing .venv with Python 3.11.7" in said
    assert f"at {clone}, {clone}/.venv/bin:" in said
    assert (clone / ".venv" / "prepared").is_file()
    assert source(shell, clone).startswith(f"at {clone}, ")  # what is there is used


@pytest.mark.parametrize("shell", SHELLS)
def test_from_elsewhere_it_finds_the_clone_or_stops_with_a_line(shell: str, clone: Path) -> None:
    said = source(shell, clone, at=str(clone / "scripts" / "prepare.sh"), cwd=clone.parent)
    assert f"at {clone}, " in said or (shell == "dash" and said.startswith("expected a clone of vesuvius-surface"))
    for name in ("requirements.txt", "setup.cfg"):
        (clone / name).write_text("of something else\n") if name == "setup.cfg" else (clone / name).unlink()
        assert source(shell, clone).startswith("expected a clone of vesuvius-surface, got ")


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_an_environment_that_it_did_not_make_is_left_alone(clone: Path, kind: str) -> None:
    own = clone / ".venv" if kind == "folder" else clone.parent / ".venv"
    own.mkdir(exist_ok=True)
    if kind == "link":
        (clone / ".venv").symlink_to(own)
        (own / "prepared").touch()
    (own / "of somebody").touch()
    assert source("bash", clone).startswith("expected no .venv in ")
    assert (own / "of somebody").exists()


def test_one_that_it_made_is_made_again_when_the_requirements_change(clone: Path) -> None:
    source("bash", clone)
    (clone / ".venv" / "old").touch()
    (clone / "requirements.txt").write_text("numpy\n")
    assert "== preparing" in source("bash", clone)
    assert not (clone / ".venv" / "old").exists()
    (clone / ".venv" / "prepared").unlink()  # as one that was interrupted leaves it
    assert "== preparing" in source("bash", clone)


def test_an_earlier_versions_mark_counts(clone: Path) -> None:
    (clone / ".venv").mkdir()
    (clone / ".venv" / "prepared").write_text("Python 3.11.7\nolder requirements\n")
    assert "== preparing" in source("bash", clone)


def test_the_python_that_is_there_is_used_until_another_is_asked_for(clone: Path) -> None:
    assert "with Python 3.12.1" in source("bash", clone, PYTHON="python3.12")
    assert source("bash", clone).startswith("at ")
    assert source("bash", clone, PYTHON="python3.12").startswith("at ")
    assert "with Python 3.11.7" in source("bash", clone, PYTHON="python3")
