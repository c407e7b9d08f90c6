import errno
import io
import os
import zlib
from pathlib import Path

import pytest
from scenes import names_in

from surface_kernel import disk


def test_a_file_is_there_whole(tmp_path):
    disk.put(tmp_path / "a", b"old")
    disk.put(tmp_path / "a", b"new")
    disk.put_parts(tmp_path / "b", [b"two ", b"parts"])
    assert (tmp_path / "a").read_bytes() == b"new"
    assert (tmp_path / "b").read_bytes() == b"two parts"
    assert names_in(tmp_path) == ["a", "b"]


@pytest.mark.parametrize("where", ["open", "write", "replace"])
def test_or_not_at_all(tmp_path, monkeypatch, where):
    disk.put(tmp_path / "a", b"old")
    tries = []

    def fail(*_, **__):
        tries.append(where)
        raise OSError(errno.ENOSPC, "No space left on device")

    class Full(io.FileIO):
        write = fail

    if where == "write":
        monkeypatch.setattr(Path, "open", lambda path, mode: Full(path, "w"))
    else:
        monkeypatch.setattr(Path, where, fail)
    with pytest.raises(OSError, match="No space left"):
        disk.put(tmp_path / "a", b"new", tries=3)
    monkeypatch.undo()
    assert len(tries) == 3
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names_in(tmp_path) == ["a"]


def test_a_disk_that_fails_once_need_not_fail_twice(tmp_path, monkeypatch):
    replace, failures = Path.replace, iter([True, True, False])

    def fail_twice(path, target):
        if next(failures):
            raise OSError(errno.EIO, "Input/output error")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", fail_twice)
    disk.put(tmp_path / "a", b"new", tries=3)
    assert (tmp_path / "a").read_bytes() == b"new"


def test_room_is_taken_at_once(tmp_path):
    disk.allocate(tmp_path / "a", 100_000)
    disk.allocate(tmp_path / "none", 0)
    assert (tmp_path / "a").read_bytes() == bytes(100_000)
    assert (tmp_path / "a").stat().st_blocks * 512 >= 100_000
    assert (tmp_path / "none").read_bytes() == b""


def test_what_has_no_room_is_not_begun_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "free_bytes", lambda folder: 99)
    with pytest.raises(OSError, match="No space left on device: expected 100 bytes free, got 99"):
        disk.allocate(tmp_path / "a", 100)

    def fill_up(descriptor, offset, length):
        os.write(descriptor, b"all there is")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", fill_up)
    with pytest.raises(OSError, match="No space left on device"):
        disk.allocate(tmp_path / "a", 99)
    assert names_in(tmp_path) == []


def test_copies_and_checksums(tmp_path):
    content = os.urandom(5_000_001)
    (tmp_path / "a").write_bytes(content)
    assert disk.copy(tmp_path / "a", tmp_path / "b") == zlib.crc32(content) == disk.checksum(tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == content
    (tmp_path / "empty").touch()
    assert disk.checksum(tmp_path / "empty") == zlib.crc32(b"")


def test_a_replacing_file_appears_when_all_went_well(tmp_path):
    path = tmp_path / "a"
    with disk.replacing(path) as partial:
        partial.write_bytes(b"new")
        assert names_in(tmp_path) == [partial.name]
    assert (path.read_bytes(), names_in(tmp_path)) == (b"new", ["a"])
    with pytest.raises(IsADirectoryError), disk.replacing(path) as partial:
        (partial.write_bytes(b"half"), tmp_path.read_bytes())
    assert (path.read_bytes(), names_in(tmp_path)) == (b"new", ["a"])


def test_a_temporary_file_is_removed_either_way(tmp_path):
    with disk.temporary(tmp_path / "a") as partial:
        partial.write_bytes(b"half")
    with disk.temporary(tmp_path / "a"):
        pass
    assert names_in(tmp_path) == []
