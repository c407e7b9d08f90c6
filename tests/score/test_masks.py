import os
import zipfile
from pathlib import PurePosixPath

import numpy as np
import pytest
import tifffile
from PIL import Image

from surface_kernel import machine
from surface_kernel.volumes.names import is_volume
from surface_score.compiled import allowed_cores
from surface_score.masks import (
    MaskError,
    MaskFile,
    find_masks,
    label_warnings,
    pair_by_id,
    passed_over,
    prediction_warnings,
    read,
)


def write(path, volume):
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *rest = (Image.fromarray(page) for page in volume)
    first.save(path, format="TIFF", save_all=True, append_images=rest)
    return path


def volume(*values, shape=(2, 2, 2)):
    return np.resize(np.array(values, np.uint8), shape)


def test_finds_what_the_scorer_globs(tmp_path):
    for name in ("b.tif", "sub/a.mask.v2.tif", "c.tiff", "d.TIF", "e.txt", ".hidden.tif", ".cache/f.tif"):
        write(tmp_path / name, volume(1))
    found = find_masks(tmp_path)
    assert list(found) == ["a", "b"]
    assert str(found["a"]) == f"{tmp_path}/sub/a.mask.v2.tif"


def test_finds_a_file_and_the_members_of_a_zip(tmp_path):
    write(tmp_path / "7.tif", volume(1))
    assert list(find_masks(tmp_path / "7.tif")) == ["7"]
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        for name in ("7.tif", "deep/6.x.tif", "__MACOSX/._7.tif", "readme.txt"):
            archive.write(tmp_path / "7.tif", name)
    found = find_masks(tmp_path / "s.zip")
    assert list(found) == ["6", "7"]
    assert str(found["6"]) == f"{tmp_path}/s.zip:deep/6.x.tif"
    assert np.array_equal(read(found["6"]), volume(1))


def test_refuses_what_holds_no_masks(tmp_path):
    with pytest.raises(MaskError, match="nothing: no such file or folder; expected"):
        find_masks(tmp_path / "nothing")
    with pytest.raises(MaskError, match=r"expected one \*\.tif per id, got none"):
        find_masks(tmp_path)
    (tmp_path / "s.zip").write_bytes(b"PK, but no zip")
    with pytest.raises(MaskError, match=r"s\.zip: expected a submission\.zip, got an unreadable zip \(BadZipFile"):
        find_masks(tmp_path / "s.zip")


def test_refuses_two_files_of_one_id(tmp_path):
    for name in ("7.tif", "7.copy.tif", "6.tif"):
        write(tmp_path / name, volume(1))
    with pytest.raises(MaskError, match=r"expected one file of id 7, got 2 \(.*7\.copy\.tif, .*7\.tif\)"):
        find_masks(tmp_path)


def test_pairs_by_id():
    predictions = {id_: MaskFile(f"p/{id_}.tif") for id_ in "ba"}
    truths = {id_: MaskFile(f"t/{id_}.tif") for id_ in "ab"}
    assert pair_by_id(predictions, truths) == [(predictions["a"], truths["a"]), (predictions["b"], truths["b"])]


@pytest.mark.parametrize(
    ("predicted", "true", "message"),
    [
        ("a", "ab", r"^expected one \.tif per id .*, got no prediction for 1 id \(b\)$"),
        ("abc", "a", r"^expected one \.tif per id .*, got no truth for 2 ids \(b, c\)$"),
        ("ac", "ab", r"got no prediction for 1 id \(b\) and no truth for 1 id \(c\)$"),
        ("a", "abcdefghijklmnopqrstuvwxyz", r"25 ids \(b, .*, u and 5 more\)"),
    ],
)
def test_names_missing_and_surplus_ids(predicted, true, message):
    with pytest.raises(MaskError, match=message):
        pair_by_id({id_: MaskFile(id_) for id_ in predicted}, {id_: MaskFile(id_) for id_ in true})


@pytest.mark.parametrize("shape", [(1, 3, 4), (3, 5, 4), (4, 5, 3), (6, 1, 1)])
def test_reads_pages_in_order(tmp_path, shape):
    written = volume(*range(24), shape=shape)
    assert np.array_equal(read(MaskFile(str(write(tmp_path / "a.tif", written)))), written)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate"])
def test_reads_compressed_pages(tmp_path, compression):
    written = volume(0, 1, 2, shape=(3, 8, 9))
    first, *rest = (Image.fromarray(page) for page in written)
    first.save(tmp_path / "a.tif", save_all=True, append_images=rest, compression=compression)
    assert np.array_equal(read(MaskFile(str(tmp_path / "a.tif"))), written)


def test_reads_a_bool_file_inverted_as_the_scorer_does(tmp_path):
    # tifffile writes bool as 1-bit "white is zero", which Pillow returns the other way round.
    mask = np.zeros((3, 8, 8), bool)
    mask[1, 2, 3] = True
    tifffile.imwrite(tmp_path / "a.tif", mask)
    found = read(MaskFile(str(tmp_path / "a.tif")))
    assert np.array_equal(found != 0, ~mask)


def test_refuses_a_broken_file(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"II*\0 and nothing more")
    whole = write(tmp_path / "b.tif", volume(1, shape=(9, 40, 40))).read_bytes()
    (tmp_path / "b.tif").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(volume(1, shape=(4, 4))).save(tmp_path / "c.tif", format="PNG")
    for name in ("a.tif", "b.tif", "c.tif"):
        with pytest.raises(
            MaskError, match=rf"{name}: expected a TIFF of greyscale pages, got an unreadable one \(\w+: .*\)"
        ):
            read(MaskFile(str(tmp_path / name)))


def test_refuses_a_broken_member(tmp_path):
    write(tmp_path / "7.tif", volume(1, shape=(4, 9, 9)))
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        archive.write(tmp_path / "7.tif", "7.tif")
    damaged = bytearray((tmp_path / "s.zip").read_bytes())
    damaged[200] ^= 0xFF
    (tmp_path / "s.zip").write_bytes(damaged)
    with pytest.raises(
        MaskError,
        match=r"s\.zip:7\.tif: expected a TIFF of greyscale pages, got an unreadable one \(BadZipFile: Bad CRC-32",
    ):
        read(find_masks(tmp_path / "s.zip")["7"])


def test_refuses_colours_and_uneven_pages(tmp_path):
    Image.fromarray(volume(1, shape=(4, 5, 3))).save(tmp_path / "colours.tif")
    pages = [Image.fromarray(volume(1, shape=shape)) for shape in ((4, 5), (4, 6))]
    pages[0].save(tmp_path / "uneven.tif", save_all=True, append_images=pages[1:])
    for name, message in [
        ("colours", r"expected greyscale pages of one shape \(y, x\), got pages of shape \(4, 5, 3\)"),
        ("uneven", r"expected greyscale pages of one shape \(y, x\), got pages of shape \(4, 5\) and \(4, 6\)"),
    ]:
        with pytest.raises(MaskError, match=message):
            read(MaskFile(str(tmp_path / f"{name}.tif")))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((0, 1), []),
        ((0, 0), []),
        ((0, 1, 2), ["a predicted 2 counts as foreground"]),
        ((0, 255), ["holds values other than 0 and 1 (255): they count as foreground"]),
        ((0, 2, 3), ["a predicted 2 counts", "values other than 0 and 1 (3)"]),
        (range(0, 20), ["a predicted 2 counts", "(3, 4, 5, 6, 7, ...)"]),
    ],
)
def test_warns_of_strange_values(values, said):
    found = prediction_warnings(volume(*values, shape=(4, 6, 6)))
    assert len(found) == len(said)
    assert all(part in whole for part, whole in zip(said, found, strict=True))


def test_warns_of_strange_floats():
    floats = np.array([[[0, 0.5, -1, np.nan]]], np.float32)
    assert prediction_warnings(floats) == [
        "holds values other than 0 and 1 (-1.0, 0.5): they count as foreground",
        "holds NaN: it counts as background",
    ]


@pytest.mark.parametrize(
    ("values", "said"), [((0, 1, 2), []), ((0, 255), ["holds values other than 0, 1 and 2 (255)"])]
)
def test_warns_of_strange_values_in_a_label(values, said):
    found = label_warnings(volume(*values, shape=(2, 3, 3)))
    assert [part in whole for part, whole in zip(said, found, strict=True)] == [True] * len(said)


def test_a_zip_is_read_by_the_rules_of_zips(tmp_path):
    write(tmp_path / "7.tif", volume(1))
    with zipfile.ZipFile(tmp_path / "upper.ZIP", "w") as archive:
        for name in ("masks\\7.tif", "masks\\.8.tif", "9.TIF", ".9.tiff"):
            archive.writestr(zipfile.ZipInfo(name), (tmp_path / "7.tif").read_bytes())
    found = find_masks(tmp_path / "upper.ZIP")
    assert list(found) == ["7"]
    assert np.array_equal(read(found["7"]), volume(1))
    assert passed_over(tmp_path / "upper.ZIP") == ["9.TIF"]


def test_a_zip_of_a_later_version_is_one_error(tmp_path):
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        archive.writestr("7.tif", b"")
    content = bytearray((tmp_path / "s.zip").read_bytes())
    content[content.index(b"PK\1\2") + 6] = 99  # "version needed to extract" in the central directory
    (tmp_path / "s.zip").write_bytes(content)
    with pytest.raises(MaskError, match=r"expected a submission\.zip, got an unreadable zip \(NotImplementedError"):
        find_masks(tmp_path / "s.zip")


def test_what_the_scorer_does_not_read_is_said(tmp_path):
    names = ("b.tif", "c.tiff", "sub/d.TIF", "e.txt", "f.npy", "._g.TIF", ".cache/h.tiff")
    for name in names:
        write(tmp_path / name, volume(1))
    assert passed_over(tmp_path) == ["c.tiff", "f.npy", "sub/d.TIF"]
    assert passed_over(tmp_path / "b.tif") == []
    for name in names:  # the rule of all other commands, which this room keeps for itself
        path = PurePosixPath(name)
        hidden = ".cache" in path.parts
        assert is_volume(path) == (name == "b.tif" or name in passed_over(tmp_path) or hidden)


def test_as_many_cores_as_the_process_may_use(monkeypatch):
    assert allowed_cores() == machine.cores() <= os.cpu_count()
    monkeypatch.setattr(os, "process_cpu_count", lambda: 5, raising=False)
    assert allowed_cores() == machine.cores() == 5
    monkeypatch.delattr(os, "process_cpu_count")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 2, 3})
    assert allowed_cores() == machine.cores() == 3
