import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from surface_package.rehearsal.watch import MemoryWatch, memory_bytes, tree

# A child holds 64 MB, its own child 32 MB more; both say so and wait for their input to end.
CHILD = """
import subprocess, sys
held = bytearray(b"x") * (int(sys.argv[1]) << 20)
child = sys.argv[2:] and subprocess.Popen([sys.executable, "-c", sys.argv[2], "32"], stdout=subprocess.PIPE)
if child:
    child.stdout.readline()
print("holding", flush=True)
sys.stdin.read()
if child:
    child.wait()
"""


def test_the_peak_counts_children_of_children() -> None:
    command = [sys.executable, "-c", CHILD, "64", CHILD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        with MemoryWatch(process.pid, period_s=0.02) as watch:
            assert process.stdout is not None
            assert process.stdout.readline() == b"holding\n"
            assert len(tree(process.pid)) == 2
            assert 64 << 20 < memory_bytes(process.pid) < 96 << 20
            until_s = time.monotonic() + 20
            while watch.peak_bytes < 96 << 20 and time.monotonic() < until_s:
                time.sleep(0.02)
        process.communicate()
    assert 96 << 20 < watch.peak_bytes < 160 << 20


def test_a_process_that_has_ended_holds_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert memory_bytes(process.pid) == 0
    with MemoryWatch(process.pid) as watch:
        pass
    assert watch.peak_bytes == 0


def test_resident_memory_stands_in_where_shares_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    read_text = Path.read_text

    def no_shares(path: Path, **named: str) -> str:
        if path.name == "smaps_rollup":
            raise PermissionError(path)
        return read_text(path, **named)

    monkeypatch.setattr(Path, "read_text", no_shares)
    assert memory_bytes(os.getpid()) > 1 << 20
