import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from surface_kernel.volumes import volume
from surface_kernel.volumes.image_files import write_lzw
from surface_train.data import cases, check
from surface_train.data.cases import Case

SHAPE = (2, 3, 4)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: Any) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def filled(value: int, shape_zyx: tuple[int, ...] = SHAPE) -> Any:
    return np.full(shape_zyx, value, np.uint8)


@pytest.fixture
def data(tmp_path: Path, write_case: Callable, write_table: Callable) -> Path:
    """Five cases: a sound one, and one for each kind of fault."""
    mixed = filled(0)
    mixed[0, 0] = 1, 1, 2, 2
    stained = mixed.copy()
    stained[1, 1, 1] = 255
    for name, label in (("1", mixed), ("2", mixed), ("3", mixed), ("4", filled(1, (2, 3, 5))), ("5", stained)):
        write_case(tmp_path / "data", name, "7", filled(9), label)
    (tmp_path / "data/train_images/2.tif").write_bytes(b"II*\0")
    label = tmp_path / "data/train_labels/3.tif"
    content = bytearray(label.read_bytes())
    content[8:12] = b"\xff" * 4  # the first strip's codes
    label.write_bytes(content)
    write_table(tmp_path / "data", [(name, "7") for name in "12345"])
    return tmp_path / "data"


def listed(data: Path) -> list[Case]:
    return cases.read(data)[0]


def test_every_kind_of_fault_is_named_with_its_case_and_file(data: Path) -> None:
    found = check.check(listed(data))
    assert [(case.name, case.scroll, case.fault) for case in found] == [
        ("1", "7", ""),
        ("2", "7", "image"),
        ("3", "7", "label"),
        ("4", "7", "shape"),
        ("5", "7", "values"),
    ]
    assert [(case.shape_zyx, case.dtype) for case in found[:2]] == [(SHAPE, "uint8"), (None, "")]
    assert [case.counts for case in found] == [(20, 2, 2, 0), (0,) * 4, (0,) * 4, (0, 30, 0, 0), (19, 2, 2, 1)]
    assert (found[0].surface_share, found[4].others) == (2 / 22, (255,))
    refused = check.refusal(found)
    for part in (
        "train_images/2.tif: expected",
        "train_labels/3.tif: expected",
        f"4.tif: expected a label of {SHAPE} as its image, got (2, 3, 5)",
        "5.tif: expected labels 0, 1 and 2 only, got 255 in 1 voxels",
        'exclude = ["2", "3", "4", "5"] in the settings',
    ):
        assert part in refused
    assert check.refusal(found[:1]) == ""


def test_a_labelled_shell_and_no_surface_are_remarks(
    tmp_path: Path, write_case: Callable, write_table: Callable
) -> None:
    """By hand: of 10 × 9 × 8 voxels, 4 × 3 × 2 lie within the shell of 3."""
    sound = filled(2, (10, 9, 8))
    sound[3:-3, 3:-3, 3:-3] = 1
    labelled, empty = sound.copy(), filled(2, (10, 9, 8))
    labelled[0, 0, 0] = labelled[5, 5, 2] = 0
    for name, label in (("1", sound), ("2", labelled), ("3", empty)):
        write_case(tmp_path, name, "7", filled(9, (10, 9, 8)), label)
    write_table(tmp_path, [(name, "7") for name in "123"])
    found = check.check(listed(tmp_path))
    assert [case.labelled_shell for case in found] == [0, 2 / (720 - 24), 0]
    assert found[0].remarks == ()
    assert found[1].remarks == ("0.29% of the shell of 3 voxels is labelled, expected 2 only",)
    assert found[2].remarks == ("no label 1",)
    assert check.check(listed(tmp_path)) == found
    assert check.refusal(found) == ""
    assert "labelled within 3 voxels of a side: 2" in check.described(found, listed(tmp_path))


def test_what_did_not_change_is_not_read_again(data: Path, monkeypatch: Any) -> None:
    sound = [listed(data)[0]]
    first, read, opened = check.check(sound), list[Path](), volume.open_volume
    monkeypatch.setattr(volume, "open_volume", lambda path: (read.append(path), opened(path))[1])
    assert (check.check(sound), read) == (first, [])
    os.utime(sound[0].label, ns=(1, 1))
    assert (check.check(sound), read) == (first, [sound[0].label])
    write_lzw(sound[0].label, filled(3))
    assert [case.fault for case in check.check(sound)] == ["values"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": "surface-check/2", "cases": {"x": 1}}'])
def test_a_broken_cache_is_as_none(data: Path, cache: Path, content: bytes) -> None:
    sound = [listed(data)[0]]
    first = check.check(sound)
    (kept,) = cache.rglob("cases_*.json")
    kept.write_bytes(content)
    assert check.check(sound) == first


def test_where_nothing_can_be_kept_all_is_read(data: Path, cache: Path) -> None:
    cache.touch()
    assert [case.fault for case in check.check(listed(data))][:1] == [""]
