import io
import os
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from malformed import LONG, LONG8, SHORT, grey_page, tiff_bytes, whole_files
from PIL import Image
from scenes import noise

from surface_kernel.volumes import tiff
from surface_kernel.volumes.tiff import read_pages
from surface_kernel.volumes.tiff_page import Page, TiffError

ENDS = [("<", False), (">", False), ("<", True), (">", True)]


def parsed(content):
    return tiff.parse(lambda place, size_bytes: content[place : place + size_bytes], len(content))


@pytest.mark.parametrize(("order", "big"), ENDS)
def test_by_hand(order, big):
    """Two pages, one of every tag, its lists of two or three values, of which short ones stand in the entry itself."""
    every = [
        *[(256, SHORT, [7]), (257, LONG, [5]), (258, SHORT, [8, 8, 16]), (259, SHORT, [5]), (262, SHORT, [2])],
        *[(266, SHORT, [2]), (273, LONG, [30, 40]), (274, SHORT, [3]), (277, SHORT, [3]), (278, LONG, [4])],
        *[(279, SHORT, [10, 11]), (317, SHORT, [2]), (339, SHORT, [2, 2, 2]), (32997, LONG, [6])],
    ]
    tiles = [(256, LONG, [70_000]), (257, LONG, [1]), (324, LONG8 if big else LONG, [1, 2, 3]), (325, LONG, [4, 5, 6])]
    assert parsed(tiff_bytes([every, tiles], bytes(40), order, big)) == [
        Page(
            width=7,
            height=5,
            depth=6,
            bits=16,
            samples=3,
            sample_format=2,
            photometric=2,
            orientation=3,
            compression=5,
            predictor=2,
            fill_order=2,
            tiled=False,
            rows_per_strip=4,
            offsets=(30, 40),
            byte_counts=(10, 11),
        ),
        Page(
            width=70_000,
            height=1,
            depth=1,
            bits=1,
            samples=1,
            sample_format=1,
            photometric=0,
            orientation=1,
            compression=1,
            predictor=1,
            fill_order=1,
            tiled=True,
            rows_per_strip=1,
            offsets=(1, 2, 3),
            byte_counts=(4, 5, 6),
        ),
    ]


@pytest.mark.parametrize(
    ("entries", "decoded_bytes"),
    [
        ({}, 5 * 1),  # seven bits a row
        ({258: 8}, 35),
        ({258: 4}, 5 * 4),
        ({258: 16, 277: 3}, 210),
        ({258: 8, 32997: 10}, 350),
    ],
)
def test_rows_begin_with_a_byte_of_their_own(entries, decoded_bytes):
    (page,) = parsed(tiff_bytes([[(tag, LONG, [value]) for tag, value in ({256: 7, 257: 5} | entries).items()]]))
    assert page.decoded_bytes == decoded_bytes


KINDS = {
    "volume": (noise((3, 40, 50)), {}),
    "stack": (noise((3, 40, 50)), {"metadata": None}),
    "strips": (noise((3, 40, 50)), {"rowsperstrip": 7, "compression": "zlib"}),
    "tiles": (noise((3, 40, 50)), {"tile": (16, 32), "compression": "zlib", "predictor": True}),
    "deep": (noise((16, 16, 16)), {"tile": (16, 16, 16), "volumetric": True}),
    "uint16": (np.ones((2, 9, 8), np.uint16), {}),
    "int32": (np.ones((2, 9, 8), np.int32), {}),
    "float64": (np.ones((2, 9, 8)), {}),
    "bool": (np.ones((2, 9, 8), bool), {}),
    "white": (noise((2, 9, 8)), {"photometric": "miniswhite"}),
    "rgb": (noise((2, 9, 8, 3)), {"photometric": "rgb"}),
    "planes": (noise((2, 3, 9, 8)), {"photometric": "rgb", "planarconfig": "separate"}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("order", "big"), ENDS)
def test_every_field_is_as_tifffile_reads_it(tmp_path, kind, order, big):
    array, options = KINDS[kind]
    tifffile.imwrite(
        tmp_path / "a.tif", array, byteorder=order, bigtiff=big, **({"photometric": "minisblack"} | options)
    )
    agree_with_tifffile(tmp_path / "a.tif")


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "packbits", "tiff_adobe_deflate", "jpeg"])
def test_pillows_files_are_as_tifffile_reads_them(tmp_path, compression):
    first, *rest = (Image.fromarray(page) for page in noise((3, 300, 400)))
    first.save(tmp_path / "a.tif", save_all=True, append_images=rest, compression=compression)
    agree_with_tifffile(tmp_path / "a.tif")


def agree_with_tifffile(path):
    with tifffile.TiffFile(path) as file:
        expected = [page.aspage() for page in file.pages]
        found = read_pages(path)
        assert len(found) == len(expected)
        for page, wanted in zip(found, expected, strict=True):
            assert (page.width, page.height, page.depth) == (wanted.imagewidth, wanted.imagelength, wanted.imagedepth)
            assert (page.bits, page.samples) == (wanted.bitspersample, wanted.samplesperpixel)
            assert (page.sample_format, page.photometric) == (wanted.sampleformat, wanted.photometric)
            assert (page.compression, page.predictor) == (wanted.compression, wanted.predictor)
            assert (page.fill_order, page.tiled) == (wanted.fillorder, wanted.is_tiled)
            assert page.offsets == tuple(wanted.dataoffsets)
            assert page.byte_counts == tuple(wanted.databytecounts)
            if not page.tiled:
                assert page.rows_per_strip == min(wanted.rowsperstrip, wanted.imagelength)


GREY = grey_page(4, 4, [8], [16])


def without(tag):
    return [entry for entry in GREY if entry[0] != tag]


def entry_of(tag, kind, count, content=b"\x01\0\0\0"):
    """Makes a file of one page, one of whose entries is given as it stands."""
    made = bytearray(tiff_bytes([GREY], bytes(16)))
    place = made.index(struct.pack("<HH", tag, LONG))
    made[place : place + 12] = struct.pack("<HHI", tag, kind, count) + content
    return bytes(made)


BAD = {
    "nothing": (b"", "expected a head within 0 bytes, got it up to byte 8"),
    "seven bytes": (b"II*\0\0\0\0", "expected a head within 7 bytes, got it up to byte 8"),
    "text": (b"id,scroll_id", "expected a TIFF, got a file that begins with b'id,scrol'"),
    "other number": (b"II\x2c\0\x08\0\0\0", "expected a TIFF, got a file that begins with"),
    "other order": (b"IM*\0\x08\0\0\0", "expected a TIFF, got a file that begins with"),
    "numbers the other way round": (b"MM*\0\x08\0\0\0", "expected a TIFF, got a file that begins with"),
    "big, of four bytes": (b"II+\0\x04\0\0\0" + bytes(99), "expected a TIFF, got a file that begins with"),
    "big, and cut": (b"II+\0\x08\0\0\0\0", "expected a head within 9 bytes, got it up to byte 16"),
    "first one beyond": (b"II*\0\x09\0\0\0", "expected directory 0 within 8 bytes, got it up to byte 11"),
    "cut": (tiff_bytes([GREY] * 2, bytes(16))[:-1], "expected directory 1 within "),
    "last one beyond": (
        tiff_bytes([GREY], bytes(16), after=9999),
        "expected directory 1 .* byte 10,001",
    ),
    "itself": (
        tiff_bytes([GREY], bytes(16), after=24),
        "expected directory 1 in a place .* at byte 24, where",
    ),
    "a circle": (
        tiff_bytes([GREY] * 3, bytes(16), after=24),
        "expected directory 3 in a place of its own",
    ),
    "no width": (tiff_bytes([without(256)]), "expected ImageWidth in directory 0, got none"),
    "no height": (tiff_bytes([without(257)]), "expected ImageLength in directory 0, got none"),
    "no entries": (tiff_bytes([[]]), "expected ImageWidth in directory 0, got none"),
    "width 0": (
        tiff_bytes([[*without(256), (256, LONG, [0])]]),
        "expected ImageWidth of at least 1 in",
    ),
    "height 0": (
        tiff_bytes([[*without(257), (257, LONG, [0])]]),
        "expected ImageLength of at least 1 in",
    ),
    "depth 0": (tiff_bytes([[*GREY, (32997, LONG, [0])]]), "expected ImageDepth of at least 1 in"),
    "rows 0": (
        tiff_bytes([[*without(278), (278, LONG, [0])]]),
        "expected RowsPerStrip of at least 1 in",
    ),
    "bits 0": (
        tiff_bytes([[*without(258), (258, LONG, [8, 0])]]),
        "expected BitsPerSample of at least 1 in",
    ),
    "twice": (tiff_bytes([[*GREY, (256, LONG, [4])]]), "expected ImageWidth once in directory 0, got it twice"),
    "text for a width": (
        entry_of(256, 2, 4),
        "expected ImageWidth in directory 0 of whole .*got type 2",
    ),
    "fraction for a width": (entry_of(256, 12, 1), "expected ImageWidth in directory 0 of whole numbers"),
    "signed": (entry_of(257, 8, 1), "expected ImageLength in directory 0 of whole numbers"),
    "no such type": (entry_of(259, 99, 1), "expected Compression in directory 0 of whole numbers"),
    "no value": (entry_of(256, LONG, 0), "expected one value of ImageWidth in directory 0, got 0"),
    "two values": (entry_of(256, LONG, 2), "expected one value of ImageWidth in directory 0, got 2"),
    "an empty list": (entry_of(273, LONG, 0), "expected values of StripOffsets in directory 0, got 0"),
    "a list beyond": (entry_of(273, LONG, 9999), "expected StripOffsets in directory 0 within "),
    "a list for ever": (
        entry_of(273, LONG, 2**32 - 1),
        "expected at most 2,097,152 values",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_not_in_order_is_one_line_saying_what_was_expected_and_got(tmp_path, kind):
    content, expected = BAD[kind]
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(TiffError) as caught:
        read_pages(tmp_path / "a.tif")
    message = str(caught.value)
    assert re.match(expected, message)
    assert ", got " in message
    assert "\n" not in message


def test_tags_that_are_not_read_may_hold_anything():
    content = tiff_bytes([[*GREY, (270, 2, [b"a"]), (60_000, SHORT, [1] * 9)]], bytes(16))
    at = content.index(struct.pack("<HH", 60_000, SHORT))
    broken = content[: at + 2] + struct.pack("<HII", 99, 2**32 - 1, 2**32 - 1) + content[at + 12 :]
    assert parsed(broken) == parsed(tiff_bytes([GREY], bytes(16)))


def directories_of_one_list(directories, values):
    """Makes a file whose directories all name the same list of places, which lies in front of them."""
    made = b"II*\0" + struct.pack("<I", 8 + 4 * values) + struct.pack(f"<{values}I", *[8] * values)
    for left in reversed(range(directories)):
        made += (
            struct.pack("<H", 3) + struct.pack("<HHII", 256, LONG, 1, 4) + struct.pack("<HHII", 257, LONG, 1, values)
        )
        made += struct.pack("<HHII", 273, LONG, values, 8) + struct.pack("<I", len(made) + 16 if left else 0)
    return made


def test_a_byte_is_paid_for_once():
    """6 kB that would be read as 200 kB."""
    assert [len(page.offsets) for page in parsed(directories_of_one_list(1, 500))] == [500]
    with pytest.raises(TiffError, match=r"expected directories apart .* on bytes of something else"):
        parsed(directories_of_one_list(100, 500))


def test_pages_and_values_have_an_end(monkeypatch):
    content = tiff_bytes([grey_page(4, 4, [8, 8], [16, 16])] * 5, bytes(16))
    monkeypatch.setattr(tiff, "MAX_PAGES", 5)
    monkeypatch.setattr(tiff, "MAX_VALUES", 5 * (7 + 4))
    assert len(parsed(content)) == 5
    monkeypatch.setattr(tiff, "MAX_PAGES", 4)
    with pytest.raises(TiffError, match="expected at most 4 pages, got more"):
        parsed(content)
    monkeypatch.setattr(tiff, "MAX_PAGES", 5)
    monkeypatch.setattr(tiff, "MAX_VALUES", 5 * (7 + 4) - 1)
    with pytest.raises(TiffError, match="expected at most 54 values"):
        parsed(content)


def test_a_file_that_is_cut_meanwhile_is_refused():
    content = tiff_bytes([GREY] * 3, bytes(16))
    with pytest.raises(TiffError, match=r"expected [\d,]+ bytes of directory 1, got \d+"):
        tiff.parse(lambda place, size_bytes: content[place : min(place + size_bytes, 140)], len(content))


@pytest.mark.parametrize("name", whole_files())
def test_cut_anywhere_before_the_last_directory_it_is_refused(name):
    content = whole_files()[name]
    pages = parsed(content)
    for end in range(0, len(content), 7):
        try:
            found = parsed(content[:end])
        except TiffError:
            continue
        assert found == pages  # what was cut are pixels


def test_a_pipe_and_a_folder_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "a.tif")
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(TiffError, match="expected a regular file, got a folder, pipe or device"):
        read_pages(tmp_path / "a.tif")
    with pytest.raises(TiffError, match="expected a regular file, got a folder, pipe or device"):
        read_pages(tmp_path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_what_is_not_there_is_the_disks_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_pages(tmp_path / "a.tif")


NUMBERS = st.integers(1, 2**16 - 1)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.tuples(NUMBERS, NUMBERS, st.lists(NUMBERS, min_size=1, max_size=9)), max_size=6),
    st.sampled_from(ENDS),
    st.sampled_from([SHORT, LONG]),
    st.integers(0, 50),
)
def test_what_is_written_is_read(pages, end, kind, size):
    """Whatever order and width numbers have, and wherever directories and lists come to lie."""
    made = [
        [(256, kind, [w]), (257, kind, [h]), (273, kind, values), (279, kind, values[::-1])] for w, h, values in pages
    ]
    found = parsed(tiff_bytes(made, bytes(size), *end))
    assert [(page.width, page.height, page.offsets, page.byte_counts) for page in found] == [
        (w, h, tuple(values), tuple(values[::-1])) for w, h, values in pages
    ]


def test_only_what_is_needed_is_read():
    """Of a volume of 20 pages of 100 kB, directories and lists: 4 kB at a time."""
    file, asked = io.BytesIO(), []
    tifffile.imwrite(file, noise((20, 300, 320)), photometric="minisblack", metadata=None)
    content = file.getvalue()

    def read(place, size_bytes):
        asked.append(size_bytes)
        return content[place : place + size_bytes]

    assert len(tiff.parse(read, len(content))) == 20
    assert sum(asked) < len(content) // 8
