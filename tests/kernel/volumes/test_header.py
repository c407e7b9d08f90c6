import os

import numpy as np
import pytest
import tifffile
from malformed import WHOLE, grey_page, tiff_bytes
from PIL import Image, TiffImagePlugin
from scenes import noise, run_python

from surface_kernel.volumes import header
from surface_kernel.volumes.header import VolumeError, read_header
from surface_kernel.volumes.image_files import write_lzw
from surface_kernel.volumes.mask_files import write_mask
from surface_kernel.volumes.volume import open_volume, read


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
    "unequal": (lambda path: pillow(path, [noise((7, 8)), noise((8, 7))]), "pages of one shape, got (7, 8) and (8, 7)"),
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
def test_what_cannot_be_used_is_one_line_saying_what_was_expected_and_got(tmp_path, kind, reader):
    make, got = BAD[kind]
    path = tmp_path / "1407735.tif"
    make(path)
    with pytest.raises(VolumeError) as caught:
        reader(path)
    message = str(caught.value)
    assert message.startswith((f"{path}: expected ", f"{path}: no such file; expected "))
    assert got in message
    assert "\n" not in message


def refused(path):
    with pytest.raises(VolumeError, match=rf"{path.name}: expected .*, got ") as caught:
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


def test_what_the_stored_bytes_cannot_hold_is_refused_and_without_a_shape(tmp_path):
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
        message, shape_zyx = refused(tmp_path / name)
        assert "expected at most 2,600 declared bytes per stored byte, got 26,260 declared in 10 stored" in message
        assert shape_zyx is None


def test_strips_on_one_another_are_no_work_without_end(tmp_path):
    """100 pages of 24 voxels share a strip: of 96 bytes at the most, wanted or not; one of its own may be longer."""
    for name, pages, count in (("fits", 100, 96), ("shared", 100, 97), ("own", 2, 3000)):
        places = [[8 + count * (page if name == "own" else 0)] for page in range(pages)]
        made = tiff_bytes([grey_page(6, 4, place, [count]) for place in places], bytes(6000))
        (tmp_path / name).write_bytes(made)
    for name in ("fits", "own"):
        assert not open_volume(tmp_path / name).any()
    message, shape_zyx = refused(tmp_path / "shared")
    assert (
        "expected at most 4 bytes to decode per declared byte, got strips on one another with 9,700 for 2,400"
        in message
    )
    assert shape_zyx is None


def test_a_page_that_is_too_wide_is_refused_and_without_a_shape(tmp_path):
    for width, height in ((65_537, 1), (1, 65_537)):
        pages = [grey_page(width, height, [8], [65_537])] * 2
        (tmp_path / "a.tif").write_bytes(tiff_bytes(pages, bytes(65_537)))
        message, shape_zyx = refused(tmp_path / "a.tif")
        assert f"expected pages of at most 65,536 pixels a side, got a page of {height:,} × {width:,} pixels" in message
        assert shape_zyx is None
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
    monkeypatch.setattr(header, "MAX_VOXELS", WHOLE.size)
    assert read_header(tmp_path / "lzw.tif").shape_zyx == WHOLE.shape
    assert {refused(tmp_path / name)[1] for name in ("uint16.tif", "cut.tif")} == {WHOLE.shape}
    monkeypatch.setattr(header, "MAX_VOXELS", WHOLE.size - 1)
    message, shape_zyx = refused(tmp_path / "lzw.tif")
    assert "expected at most 4,499 voxels to decode, got 4,500; store it as .npy or as an uncompressed TIFF" in message
    assert {shape_zyx, *(refused(tmp_path / name)[1] for name in ("uint16.tif", "cut.tif"))} == {None}
    for name in ("mapped.npy", "mapped.tif"):
        np.testing.assert_array_equal(open_volume(tmp_path / name), WHOLE)


def test_more_voxels_than_fit_into_memory_are_refused_and_keep_their_shape(tmp_path, monkeypatch):
    write_kinds(tmp_path)
    monkeypatch.setattr(header, "machine_bytes", lambda: 2 * WHOLE.size)
    assert read_header(tmp_path / "lzw.tif").shape_zyx == WHOLE.shape
    monkeypatch.setattr(header, "machine_bytes", lambda: 2 * WHOLE.size - 2)
    message, shape_zyx = refused(tmp_path / "lzw.tif")
    assert "expected at most 4,499 voxels to decode, half of the memory, got 4,500; store it as .npy" in message
    assert shape_zyx == WHOLE.shape
    for name in ("mapped.npy", "mapped.tif"):
        np.testing.assert_array_equal(open_volume(tmp_path / name), WHOLE)


def test_a_cut_file_is_refused_by_its_header_and_keeps_its_shape(tmp_path):
    for name, options in {"raw": {}, "zlib": {"compression": "zlib"}, "tiles": {"tile": (16, 16)}}.items():
        path = tmp_path / f"{name}.tif"
        with tifffile.TiffWriter(path) as file:
            for plane in WHOLE:
                file.write(plane, photometric="minisblack", metadata=None, **options)
        size_bytes = path.stat().st_size
        os.truncate(path, size_bytes - 20)
        message, shape_zyx = refused(path)
        assert "got a cut file (the data of page 5 end at byte " in message
        assert f"of {size_bytes - 20:,}); copy it again" in message
        assert shape_zyx == WHOLE.shape


def test_headers_are_read_without_torch_and_numba(tmp_path):
    write_lzw(tmp_path / "a.tif", WHOLE)
    code = """
import sys
from pathlib import Path
from surface_kernel.volumes import header
from surface_kernel.volumes.header import read_header
print(read_header(Path(sys.argv[1])).shape_zyx, sorted({"torch", "numba"} & {*sys.modules}))
"""
    done = run_python(code, tmp_path / "a.tif")
    assert done.stdout == "(6, 30, 25) []\n", done.stderr


@pytest.mark.parametrize(
    "array",
    [
        *(np.zeros((3, 4), np.uint8), np.zeros((3, 4, 5)), np.zeros((3, 4, 5), np.uint8, "F"), np.array([None])),
        *(np.zeros((3, 0, 5), np.uint8), np.zeros((3, 4, 5), np.int8)),
    ],
)
def test_an_npy_file_of_another_kind_is_refused(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(VolumeError, match=r"a\.npy: expected a .npy file of uint8 \(z, y, x\) in C order, got "):
        open_volume(tmp_path / "a.npy")


def test_an_npy_file_that_is_cut_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", noise((3, 4, 5)))
    for size in (0, 20, 127, 128, 130, 187):
        (tmp_path / "b.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:size])
        with pytest.raises(VolumeError, match=r"b\.npy: expected .* got (no readable one|a cut file)"):
            open_volume(tmp_path / "b.npy")
