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
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from surface_kernel.networks.architecture import LIBRARIES, Architecture

PINS = Path(__file__).resolve().parents[2] / "wheels.txt"
_FILENAME = re.compile(r"([A-Za-z0-9_.]+)-([A-Za-z0-9_.+!]+)-(py3|cp3\d+)-(none|abi3|cp3\d+)-([A-Za-z0-9_.]+)\.whl")
_EPOCH = (1980, 1, 1, 0, 0, 0)


class WheelError(ValueError):
    """A wheel that cannot be had as it is pinned; the message names it, what was found and what was wanted."""


@dataclass(frozen=True)
class Pin:
    """One line of wheels.txt: a wheel's file name, which says all about it, and its sha256."""

    filename: str
    sha256: str

    def __post_init__(self) -> None:
        if not _FILENAME.fullmatch(self.filename):
            raise WheelError(f"found {self.filename!r}, wanted the file name of a wheel for Python 3")
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise WheelError(f"{self.filename}: found the sha256 {self.sha256!r}, wanted 64 hexadecimal digits")

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
            raise WheelError(f"{path}:{number}: found {line!r}, wanted a file name and its sha256")
        if words:
            pins.append(Pin(*words))
    if not pins:
        raise WheelError(f"{path}: found no pinned wheel, wanted one a line; run from a clone of the project")
    return pins


def needed(pins: list[Pin], architectures: Iterable[Architecture]) -> list[Pin]:
    """Return the pins without those libraries that none of these networks is built from.

    Raises WheelError when a library that one of them is built from is not pinned.
    """
    wanted = {architecture.library for architecture in architectures}
    if missing := wanted - {pin.name for pin in pins}:
        raise WheelError(f"found no wheel of {', '.join(sorted(missing))}, wanted it in package/wheels.txt")
    return [pin for pin in pins if pin.name in wanted or pin.name not in LIBRARIES]


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
        raise WheelError(f"found wheels for {offered}, wanted at least one Python that all of them are compiled for")
    return sorted(common, key=lambda python: int(python.split(".")[1]))


def cache_folder() -> Path:
    """Return where fetched wheels are kept for this user."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vesuvius-surface" / "wheels"


def gather(pins: list[Pin], folder: Path, offline: bool = False) -> list[Path]:
    """Return the pinned wheels' paths in `folder`, fetching with pip those that are not there.

    Raises WheelError when one is missing and `offline`, cannot be fetched, or has another sha256 than its pin.
    """
    for pin in pins:
        path = folder / pin.filename
        if path.is_file() and _sha256(path.read_bytes()) == pin.sha256:
            continue
        if offline:
            found = "another sha256 than its pin" if path.is_file() else "no such file"
            raise WheelError(f"{path}: found {found}, wanted it in the cache; build once without --offline")
        _fetch(pin, folder)
    return [folder / pin.filename for pin in pins]


def _fetch(pin: Pin, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as temporary:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary", ":all:", "--dest", temporary]
        if pin.python:
            command += ["--implementation", "cp", "--python-version", pin.python, "--platform", pin.platform]
        pip = subprocess.run([*command, pin.requirement], capture_output=True, encoding="utf-8", errors="replace")
        fetched = Path(temporary) / pin.filename
        if not fetched.is_file():
            said = " ".join(line for line in pip.stderr.splitlines() if line.startswith("ERROR"))
            others = sorted(path.name for path in Path(temporary).iterdir())
            found = f"{others} instead" if others else f"nothing to download ({said or f'pip exited {pip.returncode}'})"
            raise WheelError(
                f"{pin.filename}: found {found}, wanted this file; check the network and package/wheels.txt"
            )
        digest = _sha256(fetched.read_bytes())
        if digest != pin.sha256:
            raise WheelError(f"{pin.filename}: found sha256 {digest}, wanted {pin.sha256} as package/wheels.txt says")
        fetched.replace(folder / pin.filename)


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
        raise WheelError(f"{package}: found no Python file, wanted a package; run from a clone of the project")
    info = f"{package.name}-{version}.dist-info"
    name = package.name.replace("_", "-")
    members = {f"{package.name}/{path.relative_to(package).as_posix()}": path.read_bytes() for path in sources}
    members[f"{info}/METADATA"] = (
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nLicense: MIT\nRequires-Python: >=3.11\n".encode()
    )
    members[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: surface_package\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    record = [f"{member},{_record_hash(content)},{len(content)}" for member, content in sorted(members.items())]
    members[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode()
    wheel = folder / f"{package.name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_STORED) as archive:
        for member, content in sorted(members.items()):
            entry = zipfile.ZipInfo(member, _EPOCH)
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, content)
    return wheel


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _record_hash(content: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
