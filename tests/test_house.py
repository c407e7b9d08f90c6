"""What the tree says of itself is so."""

import configparser
import os
import re
import runpy
import shutil
import subprocess
from fnmatch import fnmatch

import pytest
from packaging.requirements import Requirement
from scenes import ROOT

from surface_kernel import __version__

SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg", encoding="utf-8")


def lines(text):
    return [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]


def test_the_package_list_is_what_is_on_disk():
    found = {
        ".".join(init.parent.relative_to(ROOT / room).parts): str(init.parent.relative_to(ROOT))
        for room in ("kernel", "train", "package")
        for init in (ROOT / room).rglob("__init__.py")
    }
    assert sorted(lines(SETUP["options"]["packages"])) == sorted(found)
    folders = dict(line.split(" = ") for line in lines(SETUP["options"]["package_dir"]))
    assert folders == {name: folder for name, folder in found.items() if "." not in name}
    assert sorted(lines(SETUP["importlinter"]["root_packages"])) == sorted(folders)


def test_pytest_looks_into_every_folder_of_tests(pytestconfig):
    """By default it passes over any that is called `build`."""
    folders = {part for path in (ROOT / "tests").rglob("test_*.py") for part in path.relative_to(ROOT).parent.parts}
    passed_over = pytestconfig.getini("norecursedirs")
    assert [name for name in folders if any(fnmatch(name, pattern) for pattern in passed_over)] == []


def test_pytest_leaves_the_simulated_gpu_to_its_own_command_in_the_environment_of_ci(monkeypatch):
    for name, value in re.findall(r"\b([A-Z_]+)=(\S+) ", (ROOT / ".ci" / "run").read_text()):
        monkeypatch.setenv(name, value)
    assert "SIMULATED_CUDA_REQUIRED" in os.environ
    conftest = runpy.run_path(str(ROOT / "tests" / "simulated_cuda" / "conftest.py"))
    assert conftest.get("collect_ignore_glob") == ["test_*.py"]


def test_the_kernel_bears_the_projects_version():
    assert SETUP["metadata"]["version"] == __version__


def test_every_pin_satisfies_what_is_required():
    """Of the extras too: scripts/prepare.sh installs all."""
    texts = [SETUP["options"]["install_requires"], *SETUP["options.extras_require"].values()]
    required = {r.name.lower(): r for text in texts for r in map(Requirement, lines(text))}
    pinned = {r.name.lower(): r for r in map(Requirement, lines((ROOT / "requirements.txt").read_text()))}
    assert pinned.keys() == required.keys()
    for name, pin in pinned.items():
        (version,) = re.fullmatch("==(.*)", str(pin.specifier)).groups()
        assert required[name].specifier.contains(version), f"{pin} is pinned, {required[name]} is required"


def test_no_file_names_a_developers_home():
    """docs/ may quote, and an example may be someone's."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("no git checkout")
    command = [git, "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\0")
    home = re.compile(rb"/(root|home)/(?!someone\b)[a-z.]")
    paths = [ROOT / name for name in names if name and not name.startswith("docs/")]
    assert len(paths) > 20
    assert [path for path in paths if path.is_file() and home.search(path.read_bytes())] == []
