import io
import warnings
import zlib

import numpy as np
import pytest
import tifffile
from malformed import WHOLE, grey_page, tiff_bytes
from PIL import Image
from scenes import as_the_scorer_reads, noise

from surface_kernel.volumes import decoder, volume
from surface_kernel.volumes.header import Header, VolumeError, read_header
from surface_kernel.volumes.image_files import write_lzw
from surface_kernel.volumes.volume import open_volume, read


def test_what_is_read_is_contiguous_and_belongs_to_the_reader(tmp_path):
    write_lzw(tmp_path / "a.tif", noise((3, 4, 5)))
    grey = read(tmp_path / "a.tif")
    assert grey.flags.c_contiguous
    assert grey.flags.writeable


def pillow_bytes(grey, compression):
    pages, file = [Image.fromarray(page) for page in grey], io.BytesIO()
    pages[0].save(file, format="TIFF", compression=compression, save_all=True, append_images=pages[1:])
    return file.getvalue()


def tifffile_bytes(grey, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, grey, photometric="minisblack", **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        pillow_bytes(noise((3, 5, 6)), "tiff_lzw"),
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
        (tmp_path / "a.tif").write_bytes(pillow_bytes(WHOLE, "packbits"))
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
    assert read_header(tmp_path / "a.tif") == Header(shape_zyx=(2, 4, 6))
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
    monkeypatch.setattr(volume, "read_header", lambda path: Header(shape_zyx=(7, 30, 25)))
    with pytest.raises(VolumeError, match=r"a\.tif: expected 7 pages .*, got 6; copy the file again") as caught:
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
            with pytest.raises(VolumeError, match="got an error on page 0 "):
                open_volume(tmp_path / "a.tif")


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
