"""bare.py as it is run, by this Python: what it makes of a fake bundle's kernel."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from package.fake_bundle import SUBMIT, make_bundle, shared_result

from surface_package.build import protocol
from surface_package.rehearsal import bare


def run(tmp_path: Path, modules: dict[str, str], **changes: list[str]) -> subprocess.CompletedProcess[str]:
    make_bundle(tmp_path / "input" / "bundle", modules=modules, **changes)
    places = [word for name in ("input", "scratch") for word in (f"--{name}", str(tmp_path / name))]
    (tmp_path / "scratch").mkdir()
    command = [sys.executable, "-I", bare.__file__, str(SUBMIT), "json,module_of_old", *places]
    return subprocess.run(command, capture_output=True, text=True, env={"PATH": os.environ["PATH"]})


def test_what_needs_the_standard_library_alone_is_imported(tmp_path: Path) -> None:
    modules = {"good": "import json\nfrom surface_kernel import other", "other": ""}
    modules |= {"one": "import no_such_thing.part", "two": "from surface_kernel import one"}
    done = run(tmp_path, modules)
    assert done.returncode == 0, done.stdout + done.stderr
    result = shared_result(done, protocol.BARE)
    assert (result.verdict, result.findings) == ("verified", ())
    assert result.message == "installed, compiled, 3 modules of surface_kernel imported; the others need no_such_thing"
    assert f"{result.message}\n" in done.stdout


def test_modules_of_sub_packages_are_imported_too(tmp_path: Path) -> None:
    done = run(
        tmp_path, {"sub/__init__": "", "sub/good": "from surface_kernel.sub.other import A", "sub/other": "A = 1"}
    )
    assert shared_result(done, protocol.BARE).message == "installed, compiled, 4 modules of surface_kernel imported"
    done = run(tmp_path / "again", {"sub/__init__": "", "sub/bad": "1 / 0"})
    assert "finding: surface_kernel.sub.bad: expected to import it, got ZeroDivisionError" in done.stdout


@pytest.mark.parametrize(
    ("code", "found"),
    [
        (
            "import no_such_thing\nmatch = 1 2",
            "surface_kernel/bad.py: .* got invalid syntax",
        ),
        (
            "import module_of_old",
            "surface_kernel.bad: .* got ModuleNotFoundError: No module named 'module_of_old'",
        ),
        (
            "import surface_kernel.none",
            "surface_kernel.bad: .* got ModuleNotFoundError: No module named 'surface_",
        ),
        (
            "from json import no_such_name",
            "surface_kernel.bad: .* got ImportError: cannot import name",
        ),
        ("1 / 0", "surface_kernel.bad: .* got ZeroDivisionError: division by zero"),
    ],
)
def test_what_this_python_cannot_do_is_a_finding(tmp_path: Path, code: str, found: str) -> None:
    done = run(tmp_path, {"bad": code, "good": ""})
    assert done.returncode == 1
    assert re.search(f"^finding: {found}", done.stdout, re.MULTILINE)
    assert done.stdout.count("finding: ") == 1
    result = shared_result(done, protocol.BARE)
    assert (result.verdict, [bool(re.match(found, finding)) for finding in result.findings]) == ("refused", [True])
    assert done.stderr == ""


def test_a_bundle_for_other_pythons_is_not_installed(tmp_path: Path) -> None:
    done = run(tmp_path, {}, python=["3.99"])
    assert done.returncode == 1
    assert done.stdout.startswith("finding: ")
    assert shared_result(done, protocol.BARE).verdict == "refused"
    assert "expected Python 3.99 on Linux x86_64" in done.stdout
