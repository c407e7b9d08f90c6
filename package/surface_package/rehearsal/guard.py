"""An audit hook that refuses the network and writing outside of some folders: the fence where namespaces are refused.

`install_into` puts this file into a Python environment, where every Python process that starts there runs it. It sees
what Python code does (https://docs.python.org/3/library/audit_events.html); native code and other programs pass it by.
It needs the standard library only.
"""

import json
import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_CHANGES = {  # audit event -> which of its arguments are paths, each with the argument that is its dir_fd
    "os.rename": ((0, 2), (1, 3)),
    "os.link": ((1, 3),),
    "os.symlink": ((1, 2),),
    "os.remove": ((0, 1),),
    "os.rmdir": ((0, 1),),
    "os.mkdir": ((0, 2),),
    "os.truncate": ((0, None),),
    "os.chmod": ((0, 2),),
    "os.chown": ((0, 3),),
    "os.utime": ((0, 3),),
}
_SENDING = ("socket.connect", "socket.sendto", "socket.sendmsg")  # to bind alone brings nothing in or out
_RESOLVING = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Refused(PermissionError):
    """A process tried what it may not do."""


def install_into(site: Path, writable: Iterable[Path], log: Path) -> None:
    """Guard every process of the environment whose site-packages this is; what is refused is a line in `log`."""
    shutil.copyfile(__file__, site / "surface_guard.py")
    allowed = [str(folder.resolve()) for folder in writable]
    # A .pth, since Python runs every one of them. Of the modules called sitecustomize it runs the first alone, which on
    # Debian and Ubuntu is the system's own.
    line = f"import surface_guard; surface_guard.install({json.dumps(allowed)}, {json.dumps(str(log.resolve()))})\n"
    (site / "surface_guard.pth").write_text(line, encoding="utf-8")


def install(writable: list[str], log: str) -> None:
    """Guard this process from now on; a hook cannot be taken away again."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        what = forbidden(event, arguments, [*writable, log, "/dev"])
        if what:
            with Path(log).open("a", encoding="utf-8") as lines:
                lines.write(what + "\n")
            raise Refused(f"refused by the rehearsal: {what}")

    sys.addaudithook(hook)


def forbidden(event: str, arguments: tuple[Any, ...], writable: list[str]) -> str | None:
    """Return what an audit event is about to do that it may not; None where it may."""
    if event == "open":
        path, _, flags = arguments
        writes = isinstance(flags, int) and flags & _WRITING
        return f"open {path!r} for writing" if writes and not _inside(path, None, writable) else None
    if event in _CHANGES:
        for index, directory_index in _CHANGES[event]:
            path = arguments[index]
            directory = None if directory_index is None else arguments[directory_index]
            harmless = event == "os.mkdir" and Path(path).is_dir()  # `makedirs` asks for what may be there already
            if not harmless and not _inside(path, directory, writable):
                return f"{event} {path!r}"
    # Names are those of Unix sockets; where there is no address, `connect` was asked for it, or the socket is a pair's.
    if event in _SENDING and not isinstance(arguments[1], str | bytes | None):
        return f"{event} {arguments[1]!r}"
    if event in _RESOLVING:
        return f"{event} {arguments[0]!r}"
    return None


def _inside(path: Any, directory: int | None, writable: list[str]) -> bool:
    """Whether a path is one of the folders or files, or below one; `directory` is an open one that it starts from."""
    if isinstance(path, int):  # a file that is open already
        return True
    start = Path(f"/proc/self/fd/{directory}") if directory is not None and directory >= 0 else Path()
    real = os.path.realpath(start / os.fsdecode(path))
    return any(real == place or real.startswith(place + os.sep) for place in writable)
