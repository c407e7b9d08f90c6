import io
import os
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
from malformed import WHOLE, grey_page, tiff_bytes
from PIL import Image, ImageSequence, TiffImagePlugin
from scenes import names_in, noise, run_python

from surface_kernel.volumes import decoder, volume
from surface_kernel.volumes.volume import Header, VolumeError, open_volume, read, read_header, write_lzw, write_mask

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


def pillow(path, arrays_, **options):
    first, *rest = (array if isinstance(array, Image.Image) else Image.fromarray(array) for array in arrays_)
    first.save(path, save_all=True, append_images=rest, **options)


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
    "pipe": (os.mkfifo, "no such file"),
    "link": (lambda path: path.symlink_to(path.name), "no such file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "no such file"),
    "no pages": (lambda path: path.write_bytes(tiff_bytes([])), "a TIFF without pages"),
    "odd colours": (
        lambda path: path.write_bytes(tiff_bytes([grey_page(3, 3, [8], [9], t262=32803)] * 2, bytes(9))),
        "uint8 (8 bits) (3, 3) photometric 32803",
    ),
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


KINDS = {  # of files: what the header knows of their strips, and how they are written
    "raw": (1, {}),
    "raw strips": (1, {"rowsperstrip": 3}),
    "raw, BigTIFF": (1, {"bigtiff": True, "byteorder": ">"}),
    "zlib": (8, {"compression": "zlib"}),
    "zlib strips": (8, {"compression": "zlib", "rowsperstrip": 3}),
    "predictor": (None, {"compression": "zlib", "predictor": True}),
    "tiles": (None, {"tile": (16, 16)}),
    "packbits": (None, {}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_usual_kinds_are_decoded_here_and_odd_ones_by_pillow(tmp_path, monkeypatch, kind):
    compression, options = KINDS[kind]
    if kind == "packbits":
        pillow(tmp_path / "a.tif", WHOLE, compression="packbits")
    else:
        tifffile.imwrite(tmp_path / "a.tif", WHOLE, photometric="minisblack", metadata=None, **options)
    by_pillow, decode = [], decoder.decode
    monkeypatch.setattr(decoder, "decode", lambda path, out: by_pillow.append(path) or decode(path, out))
    header = read_header(tmp_path / "a.tif")
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), WHOLE, strict=True)
    assert bool(by_pillow) is (compression is None)
    assert bool(header.strips) is (compression is not None)
    assert header.compression == (compression or 1)


@pytest.mark.parametrize(("tag", "value"), [("t266", 2), ("t274", 3), ("t317", 2)])
@pytest.mark.parametrize("compression", [1, 8])
def test_what_is_to_be_undone_is_left_to_pillow(tmp_path, compression, tag, value):
    """Bits in reverse order, a picture upside down, differences."""
    plane = bytes(range(1, 25))
    data = plane if compression == 1 else zlib.compress(plane)
    page = grey_page(6, 4, [8], [len(data)], compression, **{tag: value})
    (tmp_path / "a.tif").write_bytes(tiff_bytes([page] * 2, data))
    assert read_header(tmp_path / "a.tif") == Header((2, 4, 6))
    if (compression, tag) not in {(8, "t266"), (1, "t317")}:  # of codes; and Pillow overlooks it without compression
        assert not np.array_equal(open_volume(tmp_path / "a.tif")[0].tobytes(), plane)
        np.testing.assert_array_equal(open_volume(tmp_path / "a.tif"), as_the_scorer_reads(tmp_path / "a.tif"))


def test_strips_that_are_not_as_many_as_wanted_are_left_to_pillow(tmp_path):
    pages = [grey_page(6, 4, [8], [24], t278=2), grey_page(6, 4, [8, 20], [12], t278=2)]
    for number, page in enumerate(pages):
        (tmp_path / f"{number}.tif").write_bytes(tiff_bytes([page] * 2, bytes(24)))
        assert read_header(tmp_path / f"{number}.tif").strips == ()


@pytest.mark.parametrize("count", [12, 23, 25])
def test_uncompressed_strips_of_another_length_than_wanted_are_not_mapped(tmp_path, count):
    pages = [grey_page(6, 4, [8 + 24 * page], [count]) for page in range(2)]
    (tmp_path / "a.tif").write_bytes(tiff_bytes(pages, bytes(99)))
    assert read_header(tmp_path / "a.tif").offset is None


def test_pages_of_several_compressions_are_left_to_pillow(tmp_path):
    plane = bytes(range(24))
    deflated = zlib.compress(plane)
    pages = [grey_page(6, 4, [8], [24]), grey_page(6, 4, [32], [len(deflated)], 8)]
    (tmp_path / "a.tif").write_bytes(tiff_bytes(pages, plane + deflated))
    assert read_header(tmp_path / "a.tif").strips == ()
    assert read(tmp_path / "a.tif").tobytes() == plane * 2


def test_the_decoder_and_the_header_must_agree_on_the_pages(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", WHOLE, photometric="minisblack", compression="zlib")
    monkeypatch.setattr(volume, "read_header", lambda path: Header((7, 30, 25)))
    with pytest.raises(VolumeError, match=r"a\.tif: found 6 pages, wanted 7 as its header says") as caught:
        read(tmp_path / "a.tif")
    assert caught.value.shape_zyx == (7, 30, 25)


def test_strips_say_no_more_than_they_hold(tmp_path):
    """Of too long ones the rest is left, too short ones are refused; but Pillow asks no uncompressed one's length."""
    plane = bytes(range(24))
    for compression, data in ((1, plane), (8, zlib.compress(plane))):
        for spare in (0, 5):
            page = grey_page(6, 4, [8], [len(data) + spare], compression)
            (tmp_path / "a.tif").write_bytes(tiff_bytes([page] * 2, data + bytes(9)))
            assert open_volume(tmp_path / "a.tif").tobytes() == plane * 2
        page = grey_page(6, 5, [8], [len(data)], compression)
        (tmp_path / "a.tif").write_bytes(tiff_bytes([page] * 2, data + b"behind"))
        if compression == 1:
            assert open_volume(tmp_path / "a.tif").tobytes() == (plane + b"behind") * 2
        else:
            with pytest.raises(VolumeError, match="found page 0 undecodable"):
                open_volume(tmp_path / "a.tif")


# --- headers that ask for too much ------------------------------------------------------------------------------------


def refused(path):
    with pytest.raises(VolumeError, match=rf"{path.name}: found .*, wanted ") as caught:
        read_header(path)
    return str(caught.value), caught.value.shape_zyx


@pytest.mark.parametrize("write", [write_lzw, write_mask])
def test_zeros_of_the_competitions_size_pass(tmp_path, write):
    zeros = np.zeros((320, 320, 320), np.uint8)
    write(tmp_path / "a.tif", zeros)
    np.testing.assert_array_equal(open_volume(tmp_path / "a.tif"), zeros)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate"])
def test_zeros_pass_at_the_most_that_writers_reach(tmp_path, monkeypatch, compression):
    """Pages of one strip, so large that what stands beside their codes does not count: beyond 1,000 to 1."""
    monkeypatch.setattr(TiffImagePlugin, "STRIP_SIZE", 1 << 26)
    page = Image.new("L", (8192, 4096))
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page], compression=compression)
    assert (tmp_path / "a.tif").stat().st_size < 2 * 8192 * 4096 / 1000
    assert read_header(tmp_path / "a.tif").shape_zyx == (2, 4096, 8192)


def test_what_the_stored_bytes_cannot_hold_is_refused_and_no_shape_is_told(tmp_path):
    """A strip of 10 bytes makes 26,000 at the most, on however many pages, in however many pieces it is named."""
    for name, width, height, places in (
        ("fits", 130, 100, [8]),
        ("pages", 130, 101, [8]),
        ("strips", 130, 101, [8] * 50),
        ("pieces", 130, 101, [8, 9, 10]),
        ("beyond", 130, 101, [8, 5000]),
    ):
        counts = [10] * len(places) if name != "pieces" else [10, 9, 8]
        pages = [grey_page(width, height, places, counts, 5)] * 2
        (tmp_path / name).write_bytes(tiff_bytes(pages, bytes(10)))
    assert read_header(tmp_path / "fits").shape_zyx == (2, 100, 130)
    for name in ("pages", "strips", "pieces", "beyond"):
        message, told = refused(tmp_path / name)
        assert "found 26,260 bytes declared in 10 stored ones, wanted 2,600 times as many at the most" in message
        assert told is None


def test_strips_on_one_another_are_no_work_without_end(tmp_path):
    """100 pages of 24 voxels share a strip: of 96 bytes at the most, wanted or not; one of its own may be longer."""
    for name, pages, count in (("fits", 100, 96), ("shared", 100, 97), ("own", 2, 3000)):
        places = [[8 + count * (page if name == "own" else 0)] for page in range(pages)]
        made = tiff_bytes([grey_page(6, 4, place, [count]) for place in places], bytes(6000))
        (tmp_path / name).write_bytes(made)
    for name in ("fits", "own"):
        assert not open_volume(tmp_path / name).any()
    message, told = refused(tmp_path / "shared")
    assert "found 9,700 bytes to decode, on one another, for 2,400 declared ones, wanted 4 times as many" in message
    assert told is None


def test_a_page_that_is_too_wide_is_refused_and_no_shape_is_told(tmp_path):
    for width, height in ((65_537, 1), (1, 65_537)):
        pages = [grey_page(width, height, [8], [65_537])] * 2
        (tmp_path / "a.tif").write_bytes(tiff_bytes(pages, bytes(65_537)))
        message, told = refused(tmp_path / "a.tif")
        assert f"found a page of {height:,} × {width:,} pixels, wanted sides of 65,536" in message
        assert told is None
    pages = [grey_page(65_536, 1, [8], [65_536])] * 2
    (tmp_path / "a.tif").write_bytes(tiff_bytes(pages, bytes(65_536)))
    assert read_header(tmp_path / "a.tif").shape_zyx == (2, 1, 65_536)


def write_kinds(folder):
    write_lzw(folder / "lzw.tif", WHOLE)
    np.save(folder / "mapped.npy", WHOLE)
    tifffile.imwrite(folder / "mapped.tif", WHOLE, photometric="minisblack")
    tifffile.imwrite(folder / "uint16.tif", WHOLE.astype(np.uint16), photometric="minisblack")
    tifffile.imwrite(folder / "cut.tif", WHOLE, photometric="minisblack", compression="zlib")
    os.truncate(folder / "cut.tif", (folder / "cut.tif").stat().st_size - 9)


def test_more_voxels_than_anybody_may_allocate_by_a_files_word(tmp_path, monkeypatch):
    write_kinds(tmp_path)
    monkeypatch.setattr(volume, "MOST_VOXELS", WHOLE.size)
    assert read_header(tmp_path / "lzw.tif").shape_zyx == WHOLE.shape
    assert {refused(tmp_path / name)[1] for name in ("uint16.tif", "cut.tif")} == {WHOLE.shape}
    monkeypatch.setattr(volume, "MOST_VOXELS", WHOLE.size - 1)
    message, told = refused(tmp_path / "lzw.tif")
    assert "found 4,500 voxels to decode, wanted 4,499 at the most" in message
    assert {told, *(refused(tmp_path / name)[1] for name in ("uint16.tif", "cut.tif"))} == {None}
    for name in ("mapped.npy", "mapped.tif"):
        np.testing.assert_array_equal(open_volume(tmp_path / name), WHOLE)


def test_more_voxels_than_fit_into_memory_are_refused_and_their_shape_is_told(tmp_path, monkeypatch):
    write_kinds(tmp_path)
    monkeypatch.setattr(volume, "machine_bytes", lambda: 2 * WHOLE.size)
    assert read_header(tmp_path / "lzw.tif").shape_zyx == WHOLE.shape
    monkeypatch.setattr(volume, "machine_bytes", lambda: 2 * WHOLE.size - 2)
    message, told = refused(tmp_path / "lzw.tif")
    assert "found 4,500 voxels to decode, wanted 4,499 at the most: half of the memory" in message
    assert told == WHOLE.shape
    for name in ("mapped.npy", "mapped.tif"):
        np.testing.assert_array_equal(open_volume(tmp_path / name), WHOLE)


def test_a_cut_file_is_refused_by_its_header_and_its_shape_is_told(tmp_path):
    for name, options in {"raw": {}, "zlib": {"compression": "zlib"}, "tiles": {"tile": (16, 16)}}.items():
        path = tmp_path / f"{name}.tif"
        with tifffile.TiffWriter(path) as file:
            for plane in WHOLE:
                file.write(plane, photometric="minisblack", metadata=None, **options)
        size_bytes = path.stat().st_size
        os.truncate(path, size_bytes - 20)
        message, told = refused(path)
        assert "found page 5 undecodable (its data end at byte " in message
        assert f"of {size_bytes - 20:,})" in message
        assert told == WHOLE.shape


def test_headers_are_read_without_torch_and_numba(tmp_path):
    write_lzw(tmp_path / "a.tif", WHOLE)
    code = """
import sys
from pathlib import Path
from surface_kernel.volumes.volume import read_header
print(read_header(Path(sys.argv[1])).shape_zyx, sorted({"torch", "numba"} & {*sys.modules}))
"""
    done = run_python(code, tmp_path / "a.tif")
    assert done.stdout == "(6, 30, 25) []\n", done.stderr


# --- memory maps ------------------------------------------------------------------------------------------------------


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
    "array",
    [
        *(np.zeros((3, 4), np.uint8), np.zeros((3, 4, 5)), np.zeros((3, 4, 5), np.uint8, "F"), np.array([None])),
        *(np.zeros((3, 0, 5), np.uint8), np.zeros((3, 4, 5), np.int8)),
    ],
)
def test_an_npy_file_of_another_kind_is_refused(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(VolumeError, match=r"a\.npy: found .*, wanted uint8 \(z, y, x\) in C order"):
        open_volume(tmp_path / "a.npy")


def test_an_npy_file_that_is_cut_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", noise((3, 4, 5)))
    for size in (0, 20, 127, 128, 130, 187):
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
