"""Finding Pythons among shell scripts that say they are some; and real ones, where this machine has any."""

import logging
import os
import re
import sys
from pathlib import Path

import pytest
from package.fake_bundle import make_bundle, result_line

from surface_package.build import manifest, protocol, wheels
from surface_package.rehearsal import enclosure, pythons
from surface_package.rehearsal.image import PythonImage
from surface_package.rehearsal.pythons import Interpreter, PythonError
from surface_package.rehearsal.sandbox import AUDIT_HOOK, NAMESPACES, SandboxRun

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Path:
    """A folder on PATH for Pythons, and no others."""
    caplog.set_level(logging.INFO, "surface_package")
    for name in (
        "CI",
        "PYENV_ROOT",
        "UV_PYTHON_INSTALL_DIR",
        "ASDF_DATA_DIR",
        "MAMBA_ROOT_PREFIX",
        "RUNNER_TOOL_CACHE",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}/no/such/folder")
    monkeypatch.setattr(pythons, "FOLDERS", [name for name in pythons.FOLDERS if not name.startswith("/")])
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin"


def fake(path: Path, says: str = "cpython 3.99.1", exit_code: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\nexit {exit_code}\n")
    path.chmod(0o755)
    return path


def test_each_candidate_is_tried_and_told_where_it_fails(bare_machine: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = fake(bare_machine / "python3.99")
    second = fake(bare_machine / "python3.98", "cpython 3.98.0")
    fake(bare_machine / f"python{HERE}", f"cpython {HERE}.99")
    broken = {
        "python3.91": fake(bare_machine / "python3.91", "pyenv: python3.91: command not found", 127),
        "python3.92": fake(bare_machine / "python3.92", "cpython 3.9.2"),
        "python3.93": fake(bare_machine / "python3.93", "cpythont 3.93.0"),
        "python3.94": fake(bare_machine / "python3.94", "pypy 3.94.0"),
        "python3.95": bare_machine / "python3.95",
        "python3.96": fake(bare_machine / "python3.96", "cpython 3.96.0", 1),
    }
    broken["python3.95"].write_text("no program")
    for name in ("python3", "python3.10", "python3.99-config", "python3.99t"):
        fake(bare_machine / name)
    assert pythons.find() == {"3.98": [Interpreter(second, "3.98.0")], "3.99": [Interpreter(good, "3.99.1")]}
    told = [record.getMessage() for record in caplog.records]
    assert [
        re.match(r"not tried: (\S+): expected CPython 3\.11 or newer that runs, got ", line)[1] for line in told
    ] == [str(path) for path in broken.values()]
    assert "'pyenv: python3.91: command not found' and exit code 127" in told[0]


def test_of_a_version_managers_script_the_python_itself_is_taken(bare_machine: Path, tmp_path: Path) -> None:
    real = fake(tmp_path / "versions" / "python3.99", "cpython 3.99.1 $0")
    real.write_text('#!/bin/sh\necho "cpython 3.99.1 $0"\n')
    shim = fake(bare_machine / "python3.99")
    shim.write_text(f"#!/bin/sh\nexec {real}\n")
    assert pythons.ask(shim) == Interpreter(real, "3.99.1")


def test_a_build_that_takes_other_wheels_is_refused(bare_machine: Path) -> None:
    path = fake(bare_machine / "python3.99")
    path.write_text(f"#!/bin/sh\nexec {sys.executable} -I -c \"import sys; sys.abiflags = '$FLAGS'; $3\"\n")
    assert pythons.ask(path).minor == HERE
    path.write_text(path.read_text().replace("$FLAGS", "t"))
    with pytest.raises(PythonError, match=r"expected CPython .*, got 'cpythont 3\.\d+\.\d+ .*' and exit code 0"):
        pythons.ask(path)


def test_one_that_hangs_is_given_up(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bare_machine / "python3.99"
    path.write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    path.chmod(0o755)
    monkeypatch.setattr(pythons, "PROBE_LIMIT_S", 0.2)
    with pytest.raises(PythonError, match=r"python3\.99: expected CPython .*, got .*timed out"):
        pythons.ask(path)


@pytest.mark.parametrize("pattern", pythons.FOLDERS)
def test_version_managers_folders_are_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    if pattern.startswith("/"):
        monkeypatch.setattr(pythons, "FOLDERS", [str(tmp_path / "root" / pattern.lstrip("/"))])
        folder = tmp_path / "root" / pattern.lstrip("/")
    elif pattern.startswith("$"):
        variable, _, rest = pattern[1:].partition("/")
        monkeypatch.setenv(variable, str(tmp_path / "variable"))
        folder = tmp_path / "variable" / rest
    else:
        folder = tmp_path / "home" / pattern.removeprefix("~/")
    names = ("one", "two") if "*" in pattern else ("",)
    paths = [fake(Path(str(folder).replace("*", name)) / "python3.99") for name in names]
    assert list(pythons.candidates()) == paths


def test_a_file_is_a_candidate_once_and_the_one_that_rehearses_never(bare_machine: Path, tmp_path: Path) -> None:
    path = fake(tmp_path / "home" / ".pyenv" / "versions" / "3.99.1" / "bin" / "python3.99")
    (bare_machine / "python3.99").symlink_to(path)
    (bare_machine / "python3.97").symlink_to(sys.executable)
    assert list(pythons.candidates()) == [bare_machine / "python3.99"]


def test_one_that_is_given_comes_first_and_must_run(
    bare_machine: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found, given = fake(bare_machine / "python3.99"), fake(tmp_path / "python", "cpython 3.99.0")
    assert pythons.find([given]) == {"3.99": [Interpreter(given, "3.99.0"), Interpreter(found, "3.99.1")]}
    assert list(pythons.find([fake(tmp_path / "same", f"cpython {HERE}.7")])) == ["3.99"]
    assert f"same is Python {HERE}.7, like the one that rehearses" in caplog.text
    with pytest.raises(PythonError, match=r"none: expected CPython 3\.11 .*, got .*No such file"):
        pythons.find([tmp_path / "none"])


def test_of_each_minor_version_the_first_that_makes_an_environment_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried: list[str] = []

    def make_bare(interpreter: Interpreter, folder: Path) -> PythonImage:
        tried.append(interpreter.version)
        if interpreter.version.endswith(".1"):
            raise PythonError("no ensurepip")
        return PythonImage(python=interpreter.path, site=folder)

    class Acted:
        def __init__(self, **_: object) -> None: ...

        def run(self, *_: object, program: str) -> SandboxRun:
            result = protocol.read_result(result_line(program, "refused", findings=["expected y, got x"]), program)
            return SandboxRun(exit_code=1, wall_s=0.0, peak_bytes=0, result=result, fault="", left=())

    monkeypatch.setattr(pythons, "make_bare", make_bare)
    monkeypatch.setattr(pythons, "Sandbox", Acted)
    made = make_bundle(tmp_path / "bundle", python=["3.11", "3.12", "3.13"])
    versions = {"3.12": ["3.12.1", "3.12.2", "3.12.3"], "3.13": ["3.13.1"], "3.14": ["3.14.2"]}
    found = {minor: [Interpreter(tmp_path, version) for version in all_] for minor, all_ in versions.items()}
    tried_on, findings = pythons.try_pythons(found, made, tmp_path, isolation=AUDIT_HOOK)
    assert (tried_on, findings) == (["3.12.2"], ["expected y, got x (Python 3.12.2)"])
    assert tried == ["3.12.1", "3.12.2", "3.13.1"]
    assert "Python 3.14: not tried, the bundle lists 3.11, 3.12, 3.13" in caplog.text


@pytest.mark.slow  # test_protocol has the absent line in small
def test_a_script_that_says_nothing_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "silent.py"
    script.write_text("print('installed, compiled, 20 modules of surface_kernel imported')")
    monkeypatch.setattr(pythons.bare, "__file__", str(script))
    made, here = make_bundle(tmp_path / "bundle"), Interpreter(Path(sys.executable), HERE)
    (finding,) = pythons.install_on(here, made, tmp_path / "tried", isolation=AUDIT_HOOK)
    assert "expected a line 'surface-submit: {…}' that says how the run ended, got none; exit code 0" in finding


def test_none_is_told_and_in_ci_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = make_bundle(tmp_path / "bundle", python=[HERE, "3.99"])
    assert pythons.try_pythons({}, made, tmp_path, isolation=AUDIT_HOOK) == ([], [])
    line = f"Pythons: expected one besides {HERE} that the bundle lists (3.99), got none; see --python"
    assert line in caplog.text
    monkeypatch.setenv("CI", "true")
    assert pythons.try_pythons({}, made, tmp_path, isolation=AUDIT_HOOK) == ([], [line])


def test_a_python_without_venv_is_told(tmp_path: Path) -> None:
    python = Interpreter(fake(tmp_path / "python3.99", "ensurepip is not available", 1), "3.99.1")
    with pytest.raises(PythonError, match=r"expected venv and pip, got no environment \(ensurepip is not available\)"):
        pythons.make_bare(python, tmp_path / "made")


@pytest.fixture(scope="session")
def others() -> list[Interpreter]:
    """One Python of each other minor version that this machine has and the project's wheels are for."""
    listed = wheels.pythons(wheels.read_pins())
    found = [interpreters[0] for minor, interpreters in pythons.find().items() if minor in listed]
    if not found and os.environ.get("CI"):
        pytest.fail(f"expected a Python of {', '.join(listed)} besides {HERE} in CI, got none")
    if not found:
        pytest.skip(f"no Python of {', '.join(listed)} here besides {HERE}")
    return found


def test_the_kernel_installs_on_every_other_python_and_what_is_bare_of_torch_is_imported(
    others: list[Interpreter], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kernel = manifest.ROOT / "kernel" / "surface_kernel"
    texts = {path.relative_to(kernel).with_suffix("").as_posix(): path.read_text() for path in kernel.rglob("*.py")}
    modules = {name: text for name, text in texts.items() if name not in ("__init__", "__main__")}
    made = make_bundle(tmp_path / "bundle", modules=modules)
    isolation = NAMESPACES if enclosure.possible() else AUDIT_HOOK
    found = {other.minor: [other] for other in others}
    tried, findings = pythons.try_pythons(found, made, tmp_path / "pythons", isolation=isolation)
    assert (tried, findings) == ([other.version for other in others], [])
    assert len(
        re.findall(r"installed, compiled, (\d\d) modules of surface_kernel imported; .*torch", caplog.text)
    ) == len(others)
