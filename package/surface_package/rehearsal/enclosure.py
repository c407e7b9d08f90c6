"""Run a command as in Kaggle's container: own mounts, no network, everything read-only but output and scratch.

`Enclosure.command` starts this file through `unshare`, as a script: it sees the standard library only. It builds a
new root, in which all that the machine has is read-only, with /kaggle beside it:

    /kaggle/input      the folder prepared for it, with the competition mounted inside, read-only
    /kaggle/src        the script, read-only
    /kaggle/working    writable
    /kaggle/tmp        writable
    /dev/shm           empty and its own
"""

import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

KAGGLE = Path("/kaggle")
_BIND, _RECURSIVE = 0x1000, 0x4000
_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE, _READ_ONLY = 442, -100, 0x8000, 1  # Linux 5.12 and newer


@dataclass(frozen=True, kw_only=True)
class Enclosure:
    """What the command will see."""

    root: Path
    """An empty folder to build the new root on."""
    input: Path
    """Seen as /kaggle/input."""
    working: Path
    """Seen as /kaggle/working."""
    scratch: Path
    """Seen as /kaggle/tmp."""
    source: Path
    """Seen as /kaggle/src."""
    mounts: dict[str, str]
    """By an empty folder's place inside of `input`, the folder to be seen there."""

    def command(self, inner: list[str]) -> list[str]:
        """Return the command line that runs `inner` inside."""
        described = {name: value if isinstance(value, dict) else str(value) for name, value in asdict(self).items()}
        return [
            shutil.which("unshare") or "unshare",
            "-rmn",
            sys.executable,
            "-I",
            str(Path(__file__).resolve()),
            json.dumps(described),
            *inner,
        ]


def possible() -> bool:
    """Whether this machine allows a user mount and network namespaces of their own: builds one enclosure to see."""
    if not shutil.which("unshare"):
        return False
    with tempfile.TemporaryDirectory() as folder:
        places = {name: Path(folder) / name for name in ("root", "input", "working", "scratch", "source")}
        for place in places.values():
            place.mkdir()
        probe = Enclosure(**places, mounts={}).command([sys.executable, "-I", "-c", ""])
        return subprocess.run(probe, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def enter(enclosure: Enclosure) -> None:
    """Build the new root and step into it; needs namespaces of its own. Raises OSError where a mount is refused."""
    root = enclosure.root
    _mount("tmpfs", root, "tmpfs")
    for entry in os.scandir("/"):
        place = root / entry.name
        if entry.is_symlink():
            place.symlink_to(Path(entry.path).readlink())
        elif entry.is_dir() and place.name != KAGGLE.name:
            place.mkdir()
            _mount(entry.path, place, flags=_BIND | _RECURSIVE)
    kaggle = root / KAGGLE.relative_to("/")
    places = {"input": enclosure.input, "working": enclosure.working, "tmp": enclosure.scratch, "src": enclosure.source}
    for name, folder in places.items():
        (kaggle / name).mkdir(parents=True)
        _mount(folder, kaggle / name, flags=_BIND)
    for inside, mounted in enclosure.mounts.items():
        _mount(mounted, kaggle / "input" / inside, flags=_BIND | _RECURSIVE)
    _mount("tmpfs", root / "dev" / "shm", "tmpfs")
    _set_read_only(root, True)
    for name in ("kaggle/working", "kaggle/tmp", "dev/shm"):
        _set_read_only(root / name, False)
    os.chroot(root)
    os.chdir(KAGGLE / "working")


class _MountAttributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


def _mount(source: str | Path, target: Path, kind: str | None = None, flags: int = 0) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    encoded = [os.fsencode(source), os.fsencode(target), kind.encode() if kind else None]
    if libc.mount(*encoded, ctypes.c_ulong(flags), None):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(target))


def _set_read_only(target: Path, read_only: bool) -> None:
    """Make a mount and all below it read-only, or one mount writable again."""
    libc = ctypes.CDLL(None, use_errno=True)
    attr_set, attr_clr = (_READ_ONLY, 0) if read_only else (0, _READ_ONLY)
    change = _MountAttributes(attr_set=attr_set, attr_clr=attr_clr)
    reach = _AT_RECURSIVE if read_only else 0
    size = ctypes.sizeof(change)
    if libc.syscall(_MOUNT_SETATTR, _AT_FDCWD, os.fsencode(target), reach, ctypes.byref(change), size):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(target))


def main(described: str, *inner: str) -> None:
    """Enter the enclosure that a JSON string describes, then become the command."""
    entries = json.loads(described)
    mounts = entries.pop("mounts")
    enter(Enclosure(**{name: Path(value) for name, value in entries.items()}, mounts=mounts))
    os.execv(inner[0], inner)


if __name__ == "__main__":
    main(*sys.argv[1:])
