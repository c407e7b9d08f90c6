import os
import re
import subprocess
import venv
from pathlib import Path
from typing import Any

import pytest

from surface_package.rehearsal import guard

WRITE, READ = os.O_WRONLY | os.O_CREAT, os.O_RDONLY


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """A writable folder `in`, another `out`, and a link from the first to the second."""
    for name in ("in", "out", "in-too"):
        (tmp_path / name).mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "out")
    return tmp_path


@pytest.mark.parametrize(
    ("event", "arguments", "allowed"),
    [
        ("open", ("in/a", "w", WRITE), True),
        ("open", (b"in/a", None, WRITE), True),
        ("open", ("in/../in/a", "w", WRITE), True),
        ("open", ("/dev/null", "w", WRITE), True),
        ("open", (3, "w", WRITE), True),
        ("open", ("out/a", "r", READ), True),
        ("open", ("out/a", "w", WRITE), False),
        ("open", ("out/a", "r+", os.O_RDWR), False),
        ("open", ("in/../out/a", "w", WRITE), False),
        ("open", ("in/link/a", "w", WRITE), False),
        ("open", ("in-too/a", "w", WRITE), False),
        ("os.remove", ("in/a", -1), True),
        ("os.remove", ("out/a", -1), False),
        ("os.rename", ("in/a", "in/b", -1, -1), True),
        ("os.rename", ("in/a", "out/b", -1, -1), False),
        ("os.rename", ("out/a", "in/b", -1, -1), False),
        ("os.link", ("out/a", "in/a", -1, -1), True),
        ("os.symlink", ("anything", "out/a", -1), False),
        ("os.mkdir", ("out", 0o777, -1), True),
        ("os.mkdir", ("out/new", 0o777, -1), False),
        ("os.truncate", ("out/a", 0), False),
        ("os.chmod", (3, 0o600, -1), True),
        ("os.chmod", ("out/a", 0o600, -1), False),
        ("socket.connect", (None, ("10.0.0.1", 80)), False),
        ("socket.connect", (None, "/run/socket"), True),
        ("socket.sendto", (None, ("10.0.0.1", 53)), False),
        ("socket.sendmsg", (None, ("10.0.0.1", 53)), False),
        ("socket.sendmsg", (None, None), True),
        ("socket.getaddrinfo", ("example.org", 443, 0, 0, 0), False),
        ("socket.bind", (None, ("127.0.0.1", 0)), True),
        ("import", ("json",), True),
    ],
)
def test_what_is_forbidden(
    folders: Path, monkeypatch: pytest.MonkeyPatch, event: str, arguments: tuple[Any, ...], allowed: bool
) -> None:
    monkeypatch.chdir(folders)
    what = guard.forbidden(event, arguments, [str(folders / "in"), "/dev"])
    assert what is None if allowed else (what or "").startswith(event)


def test_a_path_may_start_from_an_open_folder(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folders / "in")
    directory = os.open(folders / "out", os.O_RDONLY)
    try:
        assert guard.forbidden("os.remove", ("a", -1), [str(folders / "in")]) is None
        assert guard.forbidden("os.remove", ("a", directory), [str(folders / "in")]) == "os.remove 'a'"
    finally:
        os.close(directory)


def test_a_guarded_python_and_its_children_are_stopped_and_what_they_tried_is_kept(tmp_path: Path) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    venv.create(tmp_path / "env", symlinks=True)
    (site,) = tmp_path.glob("env/lib/python*/site-packages")
    # Debian's Python has a sitecustomize of its own, which is found first: the guard must not be one.
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "sitecustomize.py").touch()
    guard.install_into(site, [inside], tmp_path / "log")
    tries = """
import pathlib, socket, subprocess, sys
pathlib.Path("kept").write_text("fine")
for attempt in (lambda: pathlib.Path("../lost").write_text(""), lambda: socket.create_connection(("127.0.0.1", 9), 1)):
    try:
        attempt()
    except PermissionError as error:
        print(error)
if sys.argv[1:]:
    subprocess.run([sys.executable, "-c", sys.argv[1]], check=True)
"""
    command = [str(tmp_path / "env" / "bin" / "python"), "-c", tries, tries]
    environment = {"PYTHONPATH": str(tmp_path / "first"), "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run(command, cwd=inside, env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.count("refused by the rehearsal: ") == 4
    tried = (tmp_path / "log").read_text().splitlines()
    assert tried[:2] == tried[2:]
    assert re.fullmatch(r"open .*\.\./lost'\)? for writing", tried[0])
    assert tried[1] == "socket.getaddrinfo '127.0.0.1'"
    assert not (tmp_path / "lost").exists()
    assert (inside / "kept").read_text() == "fine"
