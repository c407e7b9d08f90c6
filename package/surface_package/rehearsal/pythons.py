"""Other Pythons on this machine, and whether a bundle installs on them: Kaggle's image moves from one to the next."""

import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from surface_package.build import manifest, protocol
from surface_package.rehearsal import bare
from surface_package.rehearsal.image import PythonImage
from surface_package.rehearsal.sandbox import BUNDLE_AT, NESTED, Sandbox

OLDEST = (3, 11)
PROBE_LIMIT_S = 60
_CONDAS = (
    "$MAMBA_ROOT_PREFIX",
    "~/.conda",
    "~/anaconda3",
    "~/micromamba",
    "~/miniconda3",
    "~/miniforge3",
    "/opt/conda",
)
# Of version managers, of images that are made for building wheels, and of machines that run CI: where their Pythons
# are. A variable that is not set leaves its line out.
FOLDERS = (
    "$PYENV_ROOT/versions/*/bin",
    "~/.pyenv/versions/*/bin",
    "$UV_PYTHON_INSTALL_DIR/*/bin",
    "~/.local/share/uv/python/*/bin",
    "$ASDF_DATA_DIR/installs/python/*/bin",
    "~/.asdf/installs/python/*/bin",
    "~/.local/share/mise/installs/python/*/bin",
    "/opt/python/*/bin",
    "$RUNNER_TOOL_CACHE/Python/*/*/bin",
    *(f"{root}/{inside}" for root in _CONDAS for inside in ("bin", "envs/*/bin")),
)
log = logging.getLogger("surface_package")


class PythonError(RuntimeError):
    """A Python that cannot be tried; the message says what was expected and what there is."""


@dataclass(frozen=True)
class Interpreter:
    """A Python that runs."""

    path: Path
    version: str
    """As "3.12.1"."""

    @property
    def minor(self) -> str:
        """What wheels are made for, as "3.12"."""
        return ".".join(self.version.split(".")[:2])


def find(given: Sequence[Path] = ()) -> dict[str, list[Interpreter]]:
    """Return the Pythons on this machine by minor version, those given first; not the one that runs this.

    Each candidate is run: what a version manager puts on PATH may stand for a Python that is not there. One that does
    not run is logged. Raises PythonError where it was given.
    """
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    usable: dict[str, list[Interpreter]] = {}
    for path in given:
        interpreter = ask(path)
        if interpreter.minor == here:
            log.info("not tried: %s is Python %s, like the one that rehearses", path, interpreter.version)
        usable.setdefault(interpreter.minor, []).append(interpreter)
    for path in candidates():
        try:
            interpreter = ask(path)
        except PythonError as error:
            log.info("not tried: %s", error)
            continue
        usable.setdefault(interpreter.minor, []).append(interpreter)
    usable.pop(here, None)
    return dict(sorted(usable.items(), key=lambda entry: int(entry[0].split(".")[1])))


def candidates() -> Iterator[Path]:
    """Yield what is named as a Python of OLDEST or newer, each file once, on PATH and then in FOLDERS."""
    seen = {Path(sys.executable).resolve()}
    folders = [Path(name) for name in os.environ.get("PATH", "").split(os.pathsep) if name]
    for pattern in FOLDERS:
        expanded = Path(os.path.expandvars(pattern)).expanduser()
        if "$" not in str(expanded):
            folders += sorted(Path("/").glob(str(expanded).lstrip("/")))
    for folder in folders:
        for path in sorted(folder.glob("python3.*")):
            version = re.fullmatch(r"python3\.(\d+)", path.name)
            if version and (3, int(version[1])) >= OLDEST and path.resolve() not in seen:
                seen.add(path.resolve())
                yield path


def ask(path: Path) -> Interpreter:
    """Run a Python to learn its version and where it is. Raises PythonError for one too old, of another build, or none.

    What a version manager puts on PATH is a script that asks which Python is meant here, and may mean another one
    elsewhere: the Python itself is taken.
    """
    code = (
        "import sys; print(sys.implementation.name + sys.abiflags, '%d.%d.%d' % sys.version_info[:3], sys.executable)"
    )
    expected = f"{path}: expected CPython {OLDEST[0]}.{OLDEST[1]} or newer that runs"
    try:
        run = subprocess.run([path, "-I", "-c", code], capture_output=True, text=True, timeout=PROBE_LIMIT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PythonError(f"{expected}, got {error}") from error
    kind = re.fullmatch(r"cpython ((\d+)\.(\d+)\.\d+) ?(.*)", run.stdout.strip())  # other builds have other wheels
    if run.returncode or not kind or (int(kind[2]), int(kind[3])) < OLDEST:
        printed = next(iter((run.stderr + run.stdout).strip().splitlines()), "nothing printed")
        raise PythonError(f"{expected}, got {printed!r} and exit code {run.returncode}")
    return Interpreter(Path(kind[4] or path), kind[1])


def make_bare(interpreter: Interpreter, folder: Path) -> PythonImage:
    """Make an environment of this Python that holds pip alone. Raises PythonError where it cannot, as Debian's."""
    command = [str(interpreter.path), "-I", "-m", "venv", str(folder)]
    run = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    sites = list(folder.glob("lib/python3*/site-packages"))
    if run.returncode or not sites:
        why = " ".join((run.stderr or run.stdout).split()) or f"exit code {run.returncode}"
        raise PythonError(f"{interpreter.path}: expected venv and pip, got no environment ({why})")
    return PythonImage(python=folder / "bin" / "python", site=sites[0])


def install_on(interpreter: Interpreter, bundle: Path, folder: Path, *, isolation: str) -> list[str]:
    """Let this Python install a bundle, compile it and import what it can; return a line for each thing wrong.

    Raises PythonError where an environment cannot be made. folder: a new one.
    """
    python = make_bare(interpreter, folder / "python")
    sandbox = Sandbox(folder=folder / "sandbox", mounts={BUNDLE_AT[NESTED]: bundle}, isolation=isolation)
    words = [str(manifest.submit_script()), ",".join(sorted(sys.stdlib_module_names))]
    run = sandbox.run(Path(bare.__file__), python, words, program=protocol.BARE)
    findings = [*(run.result.findings if run.result else [run.fault]), *run.left]
    if not findings and (run.exit_code or run.result is None or run.result.verdict != protocol.VERIFIED):
        findings = [f"expected the bundle installed, got exit code {run.exit_code} ({run.why})"]
    done = run.result.message if run.result else ""
    log.info("  Python %s (%s): %s", interpreter.version, interpreter.path, "; ".join(findings) or done)
    return [f"{finding} (Python {interpreter.version})" for finding in findings]


def try_pythons(
    usable: Mapping[str, list[Interpreter]], bundle: Path, folder: Path, *, isolation: str
) -> tuple[list[str], list[str]]:
    """Try one Python of every minor version that the bundle lists; return the versions tried, and findings.

    None tried is logged, and in CI, where such machines are chosen, a finding. folder: a new one.
    """
    tried, findings = [], []
    listed = manifest.read(bundle)["python"]
    for minor, interpreters in usable.items():
        if minor not in listed:
            log.info("  Python %s: not tried, the bundle lists %s", minor, ", ".join(listed))
            continue
        for number, interpreter in enumerate(interpreters):
            try:
                findings += install_on(interpreter, bundle, folder / f"{minor}-{number}", isolation=isolation)
            except PythonError as error:
                log.info("  not tried: %s", error)
                continue
            tried.append(interpreter.version)
            break
    if not tried:
        here = f"{sys.version_info.major}.{sys.version_info.minor}"
        others = ", ".join(name for name in listed if name != here) or "no other"
        line = f"Pythons: expected one besides {here} that the bundle lists ({others}), got none; see --python"
        log.info("  %s", line)
        findings += [line] if os.environ.get("CI") else []
    return tried, findings
