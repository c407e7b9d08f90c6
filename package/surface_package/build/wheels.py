"""The wheels of a bundle: pinned ones, fetched once into a cache of the user's, and our own, written here.

Our own wheel is written with zipfile: surface_kernel is pure Python, and a build in isolation would go online.
"""

import base64
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from surface_kernel import disk
from surface_kernel.networks.architecture import LIBRARIES, Architecture

PINS = Path(__file__).resolve().parents[2] / "wheels.txt"
_FILENAME = re.compile(r"([A-Za-z0-9_.]+)-([A-Za-z0-9_.+!]+)-(py3|cp3\d+)-(none|abi3|cp3\d+)-([A-Za-z0-9_.]+)\.whl")
_EPOCH = (1980, 1, 1, 0, 0, 0)


class WheelError(ValueError):
    """A wheel that cannot be had as it is pinned; the message names it and what was expected."""


@dataclass(frozen=True)
class Pin:
    """One line of wheels.txt."""

    filename: str
    """Of the wheel: it says name, version, Python and platform."""
    sha256: str
    """Of the file."""

    def __post_init__(self) -> None:
        if not _FILENAME.fullmatch(self.filename):
            raise WheelError(f"expected the file name of a wheel for Python 3, got {self.filename!r}")
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise WheelError(f"{self.filename}: expected a sha256 of 64 hexadecimal digits, got {self.sha256!r}")

    @property
    def requirement(self) -> str:
        """What pip calls it: name==version."""
        return f"{self.name}=={self.filename.split('-')[1]}"

    @property
    def name(self) -> str:
        """The distribution, spelled as an index does: lower case, with hyphens."""
        return re.sub("[-_.]+", "-", self.filename.split("-")[0]).lower()

    @property
    def python(self) -> str | None:
        """The Python that it is compiled for, as "3.12"; None for pure Python."""
        tag = self.filename.split("-")[2]
        return None if tag == "py3" else f"3.{tag.removeprefix('cp3')}"

    @property
    def platform(self) -> str:
        """The newest platform tag of its file name; "any" for pure Python."""
        return self.filename.removesuffix(".whl").split("-")[-1].split(".")[-1]


def read_pins(path: Path = PINS) -> list[Pin]:
    """Read wheels.txt, in its order. Raises WheelError for a line that is not `filename sha256`, and for none."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    pins = []
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if words and len(words) != 2:
            raise WheelError(f"{path}:{number}: expected a file name and its sha256, got {line!r}")
        if words:
            pins.append(Pin(*words))
    if not pins:
        raise WheelError(f"{path}: expected a pinned wheel in each line, got none; run from a clone of the project")
    return pins


def needed(pins: list[Pin], architectures: Iterable[Architecture]) -> list[Pin]:
    """Return the pins without those libraries that none of these networks is built from.

    Raises WheelError when a library that one of them is built from is not pinned.
    """
    used = {architecture.library for architecture in architectures}
    if missing := used - {pin.name for pin in pins}:
        raise WheelError(f"package/wheels.txt: expected a wheel of {', '.join(sorted(missing))}, got none")
    return [pin for pin in pins if pin.name in used or pin.name not in LIBRARIES]


def requirements(pins: list[Pin]) -> list[str]:
    """Return what the pins provide, name==version, in their order and each once."""
    return list(dict.fromkeys(pin.requirement for pin in pins))


def pythons(pins: list[Pin]) -> list[str]:
    """Return the Pythons that every pinned distribution has a wheel for, as ["3.11", "3.12"].

    Pure Python fits all; WheelError if the pins leave no Python, or name none.
    """
    offered: dict[str, set[str]] = {}
    for pin in pins:
        if pin.python:
            offered.setdefault(pin.requirement, set()).add(pin.python)
    common = set.intersection(*offered.values()) if offered else set()
    if not common:
        expected = "expected at least one Python that all wheels are compiled for"
        raise WheelError(f"package/wheels.txt: {expected}, got {offered}")
    return sorted(common, key=lambda python: int(python.split(".")[1]))


def cache_folder() -> Path:
    """Return where fetched wheels are kept for this user."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vesuvius-surface" / "wheels"


def gather(pins: list[Pin], folder: Path, *, offline: bool = False) -> list[Path]:
    """Return the pinned wheels' paths in `folder`, fetching with pip those that are not there.

    Raises WheelError when one is missing and `offline`, cannot be fetched, or has another sha256 than its pin.
    """
    for pin in pins:
        path = folder / pin.filename
        if path.is_file() and _sha256(path.read_bytes()) == pin.sha256:
            continue
        if offline:
            got = "another sha256" if path.is_file() else "no such file"
            raise WheelError(f"{path}: expected the pinned wheel in the cache, got {got}; build once without --offline")
        _fetch(pin, folder)
    return [folder / pin.filename for pin in pins]


def _fetch(pin: Pin, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    # In the cache's own folder: what pip leaves half done never bears a wheel's name there.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as temporary:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        # A source distribution would run its setup.py here, to learn its name.
        command += ["--only-binary", ":all:", "--dest", temporary]
        if pin.python:
            command += ["--implementation", "cp", "--python-version", pin.python, "--platform", pin.platform]
        pip = subprocess.run([*command, pin.requirement], capture_output=True, encoding="utf-8", errors="replace")
        # pip may choose another build of the same version, and exits with 0 then too.
        fetched = Path(temporary) / pin.filename
        if not fetched.is_file():
            if "No module named pip" in pip.stderr:
                advice = "add it with `python -m ensurepip`, or in an environment of uv with `uv pip install pip`"
                raise WheelError(f"{sys.executable}: expected pip to fetch {pin.filename} with, got none; {advice}")
            why = " ".join(line for line in pip.stderr.splitlines() if line.startswith("ERROR")) or pip.stderr[-300:]
            why = " ".join(why.split())
            others = sorted(path.name for path in Path(temporary).iterdir())
            got = str(others) if others else f"nothing ({why or f'pip: exit code {pip.returncode}'})"
            advice = "check the network and package/wheels.txt"
            raise WheelError(f"{pin.filename}: expected this file from pip, got {got}; {advice}")
        content = fetched.read_bytes()
        if (digest := _sha256(content)) != pin.sha256:
            expected = f"expected sha256 {pin.sha256} as in package/wheels.txt"
            raise WheelError(f"{pin.filename}: {expected}, got {digest}; do not use it")
        disk.put(folder / pin.filename, content)


def modules_of(package: Path) -> list[Path]:
    """Return the .py files of a package and its sub-packages, in a fixed order."""
    return sorted(package.rglob("*.py"))


def write_wheel(package: Path, version: str, folder: Path) -> Path:
    """Write a pure-Python wheel of one package and return its path; the same sources give the same bytes.

    It holds the package's .py files, those of sub-packages too, and the three files that make it a wheel
    (https://packaging.python.org/specifications/binary-distribution-format/). Raises WheelError when there are none.
    """
    sources = modules_of(package)
    if not sources:
        raise WheelError(f"{package}: expected a package, got no Python file; run from a clone of the project")
    members = {f"{package.name}/{path.relative_to(package).as_posix()}": path.read_bytes() for path in sources}
    members |= _dist_info(package.name, version, members)
    wheel = folder / f"{package.name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_STORED) as archive:
        for member, content in sorted(members.items()):
            # A fixed time and mode: the same sources give the same bytes on any machine.
            entry = zipfile.ZipInfo(member, _EPOCH)
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, content)
    return wheel


def _dist_info(package: str, version: str, members: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the three files that make a wheel of a package's members."""
    info = f"{package}-{version}.dist-info"
    name = f"Name: {package.replace('_', '-')}\nVersion: {version}"
    made = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\n{name}\nLicense: MIT\nRequires-Python: >=3.11\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: surface_package\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    # RECORD lists itself last and without a hash, as the specification wants.
    listed = sorted({**members, **made}.items())
    record = [f"{member},{_record_hash(content)},{len(content)}" for member, content in listed]
    return made | {f"{info}/RECORD": "\n".join([*record, f"{info}/RECORD,,", ""]).encode()}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _record_hash(content: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
