"""The running Python with only what Kaggle preinstalls: a bare environment of links to what kaggle_image.txt names."""

import re
import sys
import venv
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

LISTED = Path(__file__).resolve().parents[2] / "kaggle_image.txt"


class ImageError(RuntimeError):
    """A Python that cannot stand for Kaggle's."""


@dataclass(frozen=True, kw_only=True)
class PythonImage:
    """A Python environment that stands for Kaggle's."""

    python: Path
    """The interpreter to run."""
    site: Path
    """Where it looks for packages."""


def read_names(path: Path = LISTED) -> tuple[list[str], set[str]]:
    """Read kaggle_image.txt: the distributions that are preinstalled, and those that must stay hidden."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    names = [line.partition("#")[0].strip() for line in lines]
    shown = [_normal(name) for name in names if name and not name.startswith("!")]
    if not shown:
        raise ImageError(
            f"{path}: expected the names of what Kaggle preinstalls, got none; run from a clone of the project"
        )
    return shown, {_normal(name[1:]) for name in names if name.startswith("!")}


def make(folder: Path, listed: Path = LISTED) -> PythonImage:
    """Make the environment in a new folder. Raises ImageError when pip, which Kaggle has, is not installed here."""
    linked = _linked(listed)
    venv.create(folder, symlinks=True, with_pip=False)
    site = next(folder.glob("lib/python3*/site-packages"))
    for place in linked:
        (site / place.name).symlink_to(place)
    return PythonImage(python=folder / "bin" / "python", site=site)


@cache  # torch alone lists ten thousand files, and a rehearsal makes an environment for every run
def _linked(listed: Path) -> tuple[Path, ...]:
    """Return what the environment's site-packages holds of this Python's, each name once."""
    visible = closure(*read_names(listed))
    if "pip" not in visible:
        advice = "add it with `python -m ensurepip`, or in an environment of uv with `uv pip install pip`"
        raise ImageError(f"{sys.executable}: expected pip, as on Kaggle, got none; {advice}")
    # Several distributions may share a namespace folder.
    named = {place.name: place for distribution in visible.values() for place in places(distribution)}
    return tuple(named.values())


def absent(listed: Path = LISTED) -> list[str]:
    """Return what Kaggle preinstalls and this Python lacks, so that a rehearsal will not show it either."""
    shown, hidden = read_names(listed)
    visible = closure(shown, hidden)
    return [name for name in shown if name not in visible]


def closure(shown: list[str], hidden: set[str]) -> dict[str, metadata.Distribution]:
    """Return the installed distributions among `shown` and all that they depend on, without the hidden ones."""
    visible: dict[str, metadata.Distribution] = {}
    waiting = [name for name in shown if name not in hidden]
    while waiting:
        name = waiting.pop()
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        visible[name] = distribution
        for requirement in distribution.requires or ():
            needed = re.match(r"[A-Za-z0-9._-]+", requirement)
            # What is asked for by an extra is not there because of this distribution.
            if needed and not re.search(r"\bextra\s*==", requirement):
                other = _normal(needed[0])
                if other not in visible and other not in hidden:
                    waiting.append(other)
    return visible


def places(distribution: metadata.Distribution) -> list[Path]:
    """Return a distribution's folders and modules.

    Scripts and .pth files are left out: the latter would add folders to the path that Kaggle lacks.
    """
    tops = {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}
    located = (Path(str(distribution.locate_file(top))).absolute() for top in sorted(tops) if not top.endswith(".pth"))
    return list(located)


def _normal(name: str) -> str:
    return re.sub("[-_.]+", "-", name).lower()
