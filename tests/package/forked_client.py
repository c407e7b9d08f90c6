"""The real `kaggle` client in a process of its own for every command, forked from one that has its libraries.

The client takes half a second to start, nearly all of it imports of libraries, and the tests run some two hundred
commands. The server imports those libraries, never `kaggle` itself, since importing that logs in. What a test starts,
`ask`, hands its arguments, environment, folder and streams over, and ends as the forked client ends.
"""

import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CONNECT = """
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect(sys.argv[1])
words = json.dumps([sys.argv[2:], dict(os.environ), os.getcwd()]).encode()
socket.send_fds(server, [len(words).to_bytes(8)], [0, 1, 2])
server.sendall(words)
sys.exit(int(server.recv(8)))
"""


def command(address: Path) -> list[str]:
    """Gives what starts a client; its arguments follow."""
    return [sys.executable, "-I", "-S", "-c", _CONNECT, str(address)]


@contextmanager
def serving(folder: Path) -> Iterator[Path]:
    """Runs a server; gives its address."""
    address = folder / "clients"
    with subprocess.Popen([sys.executable, __file__, str(address)], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        yield address
        server.kill()


def _serve(address: str) -> None:
    import bleach  # noqa: F401 - what the client imports
    import google.protobuf.field_mask_pb2  # noqa: F401
    import kagglesdk.kaggle_client  # noqa: F401
    import requests  # noqa: F401
    import tqdm  # noqa: F401
    import urllib3  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # handlers are not waited for
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    print("ready", flush=True)
    while True:
        asked, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            _handle(asked)
        asked.close()


def _handle(asked: socket.socket) -> None:
    """Runs one client, and sends its exit code; kills it where who asked is gone."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    length, streams, _, _ = socket.recv_fds(asked, 8, 3)
    words = b""
    while len(words) < int.from_bytes(length):
        words += asked.recv(1 << 16)
    client = os.fork()
    if client == 0:
        asked.close()
        _run(*json.loads(words), streams)
    for stream in streams:
        os.close(stream)
    for stream in range(3):  # the server's own, which would keep a pipe open
        os.close(stream)
    ended = os.pidfd_open(client)
    ready, _, _ = select.select([ended, asked], [], [])
    if ended not in ready:
        os.kill(client, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(client, 0)[1])
    if ended in ready:
        asked.sendall(str(code if code >= 0 else 1).encode())
    os._exit(0)


def _run(arguments: list[str], environment: dict[str, str], folder: str, streams: list[int]) -> None:
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    tempfile.tempdir = None
    sys.stdout.reconfigure(write_through=True)  # type: ignore[union-attr]
    sys.argv = ["kaggle", *arguments]
    code: object = 0
    try:
        runpy.run_module("kaggle", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    if isinstance(code, str):
        os.write(2, f"{code}\n".encode())
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    _serve(sys.argv[1])
