import json
import subprocess
import sys
from pathlib import Path

import pytest

from surface_package.rehearsal import enclosure
from surface_package.rehearsal.enclosure import Enclosure

LOOK = """
import json, os, socket, sys
tried = {}
for path in sys.argv[1:]:
    try:
        with open(path, "w") as file:
            file.write("written")
        tried[path] = "written"
    except OSError as error:
        tried[path] = error.strerror
print(json.dumps({"tried": tried, "nets": [name for _, name in socket.if_nameindex()], "cwd": os.getcwd(),
                  "kaggle": sorted(os.listdir("/kaggle")), "mounted": os.listdir("/kaggle/input/data")}))
"""


@pytest.mark.skipif(not enclosure.possible(), reason="no namespaces for this user here")
def test_inside_only_output_and_scratch_can_be_written_and_there_is_no_network(tmp_path: Path) -> None:
    places = {name: tmp_path / name for name in ("root", "input", "working", "scratch", "source")}
    for place in (*places.values(), tmp_path / "data", tmp_path / "input" / "data"):
        place.mkdir()
    (tmp_path / "data" / "seen").write_text("")
    inside = Enclosure(**places, mounts={"data": str(tmp_path / "data")})
    read_only = ["/file", "/kaggle/file", "/kaggle/input/file", "/kaggle/input/data/seen", "/kaggle/src/file"]
    read_only += [str(tmp_path / "file"), str(tmp_path / "working" / "around"), "/tmp/file", "/usr/file"]
    writable = ["/kaggle/working/kept", "/kaggle/tmp/kept", "/dev/shm/file", "/dev/null"]
    command = inside.command([sys.executable, "-I", "-c", LOOK, *read_only, *writable])
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    seen = json.loads(run.stdout)
    assert seen["tried"] == dict.fromkeys(read_only, "Read-only file system") | dict.fromkeys(writable, "written")
    assert set(seen["nets"]) <= {"lo"}
    assert (seen["cwd"], seen["kaggle"]) == ("/kaggle/working", ["input", "src", "tmp", "working"])
    assert seen["mounted"] == ["seen"]
    for name in ("working", "scratch"):
        assert (tmp_path / name / "kept").read_text() == "written"
    assert not Path("/dev/shm/file").exists()
    assert list((tmp_path / "root").iterdir()) == []


def test_without_unshare_it_is_not_possible(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not enclosure.possible()
    (tmp_path / "unshare").write_text("#!/bin/sh\necho 'unshare: Operation not permitted' >&2\nexit 1\n")
    (tmp_path / "unshare").chmod(0o755)
    assert not enclosure.possible()
