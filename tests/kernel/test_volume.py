import io
import warnings
import zlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image, ImageSequence
from scenes import names_in, noise

from surface_kernel import volume
from surface_kernel.volume import VolumeError, open_volume, read, read_header, write_lzw, write_mask

TINY = array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=5)  # 3 and 4 are taken for colours by careless writers


def as_the_scorer_reads(path):
    with Image.open(path) as image:
        return np.stack([np.asarray(page) for page in ImageSequence.Iterator(image)])


def as_tifffile_reads(path):
    with tifffile.TiffFile(path) as tiff:
        return np.stack([page.asarray() for page in tiff.pages])


@settings(deadline=None, max_examples=60)
@given(arrays(np.uint8, TINY, elements=st.integers(0, 1)))
@example(np.ones((3, 3, 3), np.uint8))
@example(np.ones((4, 4, 4), np.uint8))
@example(np.eye(5, 3, dtype=np.uint8)[None].repeat(4, 0))
@example(np.eye(4, 5, dtype=np.uint8)[None].repeat(3, 0))
def test_everybody_reads_a_mask_as_it_was_written(folder, mask):
    path = folder / "mask.tif"
    write_mask(path, mask)
    np.testing.assert_array_equal(as_the_scorer_reads(path), mask, strict=True)
    np.testing.assert_array_equal(as_tifffile_reads(path), mask, strict=True)
    if len(mask) > 1:
        assert read_header(path).shape_zyx == mask.shape
        np.testing.assert_array_equal(read(path), mask, strict=True)
    assert not list(folder.glob("*.partial"))


@settings(deadline=None, max_examples=60)
@given(arrays(np.uint8, TINY))
def test_everybody_reads_an_lzw_volume_as_it_was_written(folder, grey):
    path = folder / "mask.tif"
    write_lzw(path, grey)
    np.testing.assert_array_equal(as_the_scorer_reads(path), grey, strict=True)
    if find_spec("imagecodecs"):
        np.testing.assert_array_equal(as_tifffile_reads(path), grey, strict=True)
    if len(grey) > 1:
        np.testing.assert_array_equal(read(path), grey, strict=True)


def test_a_mask_that_is_not_contiguous_is_written_as_it_looks(tmp_path):
    mask = (noise((4, 5, 6)) > 128).view(np.uint8)[::-1, :, ::2]
    write_mask(tmp_path / "mask.tif", mask)
    np.testing.assert_array_equal(as_the_scorer_reads(tmp_path / "mask.tif"), mask)


def test_what_is_read_is_contiguous_and_belongs_to_the_reader(tmp_path):
    write_lzw(tmp_path / "a.tif", noise((3, 4, 5)))
    grey = read(tmp_path / "a.tif")
    assert grey.flags.c_contiguous
    assert grey.flags.writeable


def test_the_same_mask_makes_the_same_bytes(tmp_path):
    mask = (noise((6, 7, 8)) > 200).astype(np.uint8)
    for name in ("a.tif", "b.tif"):
        write_mask(tmp_path / name, mask)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


def test_a_mask_is_deflated_by_the_standard_library(tmp_path):
    mask = (noise((2, 7, 8)) > 200).astype(np.uint8)
    write_mask(tmp_path / "a.tif", mask)
    assert zlib.compress(mask[1].tobytes(), 4) in (tmp_path / "a.tif").read_bytes()


@pytest.mark.parametrize(
    ("mask", "found"),
    [
        (np.ones((2, 3, 4), bool), "found a bool array of shape (2, 3, 4)"),
        (np.ones((2, 3, 4), np.int64), "found a int64 array"),
        (np.ones((2, 3, 4), np.float32), "found a float32 array"),
        (np.ones((3, 4), np.uint8), "shape (3, 4)"),
        (np.ones((1, 2, 3, 4), np.uint8), "shape (1, 2, 3, 4)"),
        (np.ones((2, 0, 4), np.uint8), "shape (2, 0, 4)"),
        (np.full((2, 3, 4), 2, np.uint8), "found the value 2"),
    ],
)
def test_what_is_no_mask_is_refused_and_nothing_is_left(tmp_path, mask, found):
    with pytest.raises(VolumeError) as caught:
        write_mask(tmp_path / "mask.tif", mask)
    assert found in str(caught.value)
    assert "mask.tif" in str(caught.value)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    "grey", [np.ones((2, 3, 4), np.uint16), np.ones((3, 4), np.uint8), np.ones((0, 3, 4), np.uint8)]
)
def test_what_is_no_volume_is_refused_and_nothing_is_left(tmp_path, grey):
    with pytest.raises(VolumeError, match=r"wanted uint8 \(z, y, x\)"):
        write_lzw(tmp_path / "a.tif", grey)
    assert names_in(tmp_path) == []


class Broken(Exception):
    pass


def failing(calls_that_work, real=None):
    """Makes a function that works so many times, then raises."""
    left = [calls_that_work]

    def call(*arguments, **named):
        if not left[0]:
            raise Broken
        left[0] -= 1
        return real(*arguments, **named)

    return call


@pytest.mark.parametrize(
    ("place", "name", "calls_that_work"),
    [(Path, "replace", 0), (zlib, "compress", 0), (zlib, "compress", 2), (tifffile, "imwrite", 0), (Image, "open", 0)],
)
@pytest.mark.parametrize("older", [b"an older mask", None])
def test_a_failure_leaves_what_was_there_and_no_partial_file(
    tmp_path, monkeypatch, place, name, calls_that_work, older
):
    path = tmp_path / "mask.tif"
    if older:
        path.write_bytes(older)
    monkeypatch.setattr(place, name, failing(calls_that_work, getattr(place, name)))
    with pytest.raises((Broken, VolumeError)):
        write_mask(path, np.ones((4, 3, 3), np.uint8))
    assert names_in(tmp_path) == (["mask.tif"] if older else [])
    assert not older or path.read_bytes() == older


def test_a_failure_of_the_lzw_writer_leaves_no_partial_file(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "replace", failing(0))
    with pytest.raises(Broken):
        write_lzw(tmp_path / "a.tif", noise((2, 3, 4)))
    assert names_in(tmp_path) == []


def test_a_mask_that_reads_back_otherwise_gets_no_name(tmp_path, monkeypatch):
    mask = np.ones((2, 3, 4), np.uint8)
    monkeypatch.setattr(volume, "_write_pages", lambda path, pages: tifffile.imwrite(path, 1 - pages))
    with pytest.raises(VolumeError, match="found other voxels on reading back"):
        write_mask(tmp_path / "mask.tif", mask)
    assert names_in(tmp_path) == []


# --- files that are no volumes ---------------------------------------------------------------------------------------


def pillow(path, arrays_):
    first, *rest = (array if isinstance(array, Image.Image) else Image.fromarray(array) for array in arrays_)
    first.save(path, save_all=True, append_images=rest)


def four_bits(path):
    tifffile.imwrite(path, noise((3, 4, 6)), photometric="minisblack", metadata=None)
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        for page in tiff.pages:
            page.aspage().tags["BitsPerSample"].overwrite(4)


def palette(grey):
    image = Image.fromarray(grey).convert("P")
    image.putpalette(bytes(range(256)) * 3)
    return image


BAD = {
    "missing": (lambda path: None, "no such file"),
    "folder": (lambda path: path.mkdir(), "no such file"),
    "empty": (lambda path: path.write_bytes(b""), "no readable TIFF"),
    "text": (lambda path: path.write_text("id,scroll_id\n1407735,26002\n" * 20), "no readable TIFF"),
    "png": (lambda path: Image.new("L", (4, 4)).save(path, format="png"), "no readable TIFF"),
    "2-D": (lambda path: pillow(path, [noise((7, 8))]), "a single page of (7, 8)"),
    "rgb": (lambda path: pillow(path, noise((3, 7, 8, 3))), "(7, 8, 3) RGB"),
    "uint16": (
        lambda path: tifffile.imwrite(path, np.ones((5, 7, 8), np.uint16), photometric="minisblack"),
        "uint16 (16 bits)",
    ),
    "nan": (
        lambda path: tifffile.imwrite(path, np.full((5, 7, 8), np.nan, np.float32), photometric="minisblack"),
        "float32 (32 bits)",
    ),
    "unequal": (lambda path: pillow(path, [noise((7, 8)), noise((8, 7))]), "pages of (7, 8) and (8, 7)"),
    "palette": (lambda path: pillow(path, [palette(page) for page in noise((3, 7, 8))]), "PALETTE"),
    "1-bit": (lambda path: pillow(path, noise((3, 7, 8)) > 99), "bool (1 bits)"),
    "4-bit": (four_bits, "(4 bits)"),
    "inverted": (lambda path: tifffile.imwrite(path, noise((5, 7, 8)), photometric="miniswhite"), "MINISWHITE"),
    "colours": (lambda path: tifffile.imwrite(path, noise((5, 7, 3)), photometric="rgb"), "RGB"),
    "deep page": (
        lambda path: tifffile.imwrite(path, noise((16, 16, 16)), volumetric=True, tile=(16, 16, 16)),
        "(16, 16, 16)",
    ),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("reader", [read_header, read])
def test_what_cannot_be_used_is_one_line_saying_what_was_found_and_wanted(tmp_path, kind, reader):
    make, found = BAD[kind]
    path = tmp_path / "1407735.tif"
    make(path)
    with pytest.raises(VolumeError) as caught:
        reader(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: found ")
    assert found in message
    assert "wanted" in message
    assert "\n" not in message


def lzw_bytes(grey):
    pages, file = [Image.fromarray(page) for page in grey], io.BytesIO()
    pages[0].save(file, format="TIFF", compression="tiff_lzw", save_all=True, append_images=pages[1:])
    return file.getvalue()


def tifffile_bytes(grey, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, grey, photometric="minisblack", **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        lzw_bytes(noise((3, 5, 6))),
        tifffile_bytes(noise((3, 5, 6))),
        tifffile_bytes(noise((3, 5, 6)), metadata=None, bigtiff=True),
        tifffile_bytes(noise((3, 5, 6)), compression="zlib", metadata=None),
    ],
    ids=["lzw", "raw", "big", "zlib"],
)
def test_a_truncated_file_is_refused_wherever_it_was_cut(folder, content):
    """Or read whole, where only the padding after the last page is gone; never as a shallower volume."""
    path, grey, refused = folder / "cut.tif", noise((3, 5, 6)), 0
    for end in (*range(0, len(content), 3), len(content)):
        path.write_bytes(content[:end])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as in a run: Pillow only warns of some cuts
            try:
                found = read(path)
            except VolumeError:
                refused += 1
            else:
                np.testing.assert_array_equal(found, grey, strict=True)
    assert refused > len(content) // 4
    np.testing.assert_array_equal(found, grey)  # the last one was not cut at all
    path.unlink()


def test_pillow_and_the_header_must_agree_on_the_pages(tmp_path, monkeypatch):
    grey = noise((3, 4, 5))
    tifffile.imwrite(tmp_path / "a.tif", grey, photometric="minisblack", compression="zlib")
    for pages, found in ((grey[:2], "found 2 pages"), (noise((4, 4, 5)), "found page 3"), (noise((3, 5, 4)), "page 0")):
        monkeypatch.setattr(volume, "_pages", lambda path, pages=pages: iter(pages))
        with pytest.raises(VolumeError, match=found):
            read(tmp_path / "a.tif")


def test_an_uncompressed_tiff_and_an_npy_file_are_mapped(tmp_path):
    grey = noise((5, 7, 9))
    np.save(tmp_path / "a.npy", grey)
    tifffile.imwrite(tmp_path / "a.tif", grey, photometric="minisblack")
    with Image.open(tmp_path / "a.tif") as image:
        assert image.n_frames == 5
    for name in ("a.npy", "a.tif"):
        assert read_header(tmp_path / name).shape_zyx == (5, 7, 9)
        found = open_volume(tmp_path / name)
        assert isinstance(found, np.memmap)
        np.testing.assert_array_equal(found, grey)
        volume.forget_planes(found, 3)
        volume.forget_planes(found, 5)
        np.testing.assert_array_equal(found, grey)


@pytest.mark.parametrize("kind", ["lzw", "planes apart"])
def test_what_does_not_lie_in_one_piece_is_decoded(tmp_path, kind):
    grey = noise((3, 8, 8))
    if kind == "lzw":
        write_lzw(tmp_path / "a.tif", grey)
    else:
        with tifffile.TiffWriter(tmp_path / "a.tif") as file:
            for plane in grey:
                file.write(plane, photometric="minisblack", metadata=None)
    found = open_volume(tmp_path / "a.tif")
    assert not isinstance(found, np.memmap)
    np.testing.assert_array_equal(found, grey)


@pytest.mark.parametrize(
    "array", [np.zeros((3, 4), np.uint8), np.zeros((3, 4, 5)), np.zeros((3, 4, 5), np.uint8, "F"), np.array([None])]
)
def test_an_npy_file_of_another_kind_is_refused(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(VolumeError, match=r"a\.npy: found .*, wanted uint8 \(z, y, x\) in C order"):
        open_volume(tmp_path / "a.npy")


def test_an_npy_file_that_is_cut_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", noise((3, 4, 5)))
    for size in (0, 20, 130):
        (tmp_path / "b.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:size])
        with pytest.raises(VolumeError, match=r"b\.npy: found no readable .npy file"):
            open_volume(tmp_path / "b.npy")


def test_planes_become_an_npy_file_or_none(tmp_path):
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    assert volume.write_npy(tmp_path / "a.npy", iter(array), (2, 3, 4)) == array.mean()
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), array, strict=True)
    with pytest.raises(VolumeError, match="found 2 planes, wanted 3"):
        volume.write_npy(tmp_path / "b.npy", iter(array), (3, 3, 4))
    assert names_in(tmp_path) == ["a.npy"]
