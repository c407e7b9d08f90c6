import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import as_the_scorer_reads, noise

from surface_kernel.volumes import lzw, volume
from surface_kernel.volumes.header import VolumeError, read_header
from surface_kernel.volumes.image_files import write_lzw
from surface_kernel.volumes.volume import read


def packed(*codes):
    """Packs (code, width) pairs from the most significant bit on."""
    bits = "".join(f"{code:0{width}b}" for code, width in codes)
    bits += "0" * (-len(bits) % 8)
    return np.array([int(bits[place : place + 8], 2) for place in range(0, len(bits), 8)], np.uint8)


def decoded(data, size):
    out = np.full(size, 77, np.uint8)
    return lzw.decode(data, out), out.tolist()


CLEAR, END = (256, 9), (257, 9)


def test_by_hand():
    # 7; 8; the first string made is 258 = "7 8"; then 259 = "8 7"
    assert decoded(packed(CLEAR, (7, 9), (8, 9), (258, 9), (259, 9), END), 6) == (True, [7, 8, 7, 8, 8, 7])
    # a code that is used while it is made: 258 is the string before, "7", and its own first byte
    assert decoded(packed(CLEAR, (7, 9), (258, 9), (259, 9), END), 6) == (True, [7] * 6)
    # a second clear code forgets all strings
    assert decoded(packed(CLEAR, (7, 9), (8, 9), CLEAR, (9, 9), (258, 9), END), 5) == (True, [7, 8, 9, 9, 9])


@pytest.mark.parametrize(
    ("codes", "size"),
    [
        ((CLEAR, (7, 9), END), 2),  # it ends early
        ((CLEAR, (7, 9)), 5),  # it is cut
        ((CLEAR, (7, 9), (259, 9), END), 5),  # a string that nobody made
        ((CLEAR, (258, 9), END), 2),
        ((CLEAR, (7, 9), (258, 9), END), 2),  # a string longer than what is left
        (((7, 9), (8, 9), END), 2),  # no clear code at first
        ((), 1),
    ],
)
def test_what_is_not_in_order_is_refused(codes, size):
    assert decoded(packed(*codes), size)[0] is False


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 99), st.sampled_from([1, 2, 4, 30, 256]), st.integers(1, 40), st.integers(1, 90))
def test_pillows_files_are_read_as_the_scorer_reads_them(folder, seed, greys, length, width):
    """Random greys in runs: from what makes long strings to what fills the table of codes several times over."""
    rng = np.random.default_rng(seed)
    runs = rng.integers(0, greys, 3 * 70 * width // length + 1, np.uint8).repeat(length)
    grey = runs[: 3 * 70 * width].reshape(3, 70, width)
    write_lzw(folder / "a.tif", grey)
    header, found = read_header(folder / "a.tif"), np.empty_like(grey)
    assert (header.compression, len(header.strips)) == (5, 3)
    assert volume._read_strips(folder / "a.tif", header, found)
    np.testing.assert_array_equal(found, as_the_scorer_reads(folder / "a.tif"))


def test_a_large_page_fills_the_table_many_times(tmp_path):
    grey = noise((2, 500, 700)) // 9
    write_lzw(tmp_path / "a.tif", grey)
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), grey)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_whatever_is_broken_is_refused_or_read_and_nothing_else_is_touched(data):
    """Random bytes and bits in a good strip; what lies behind the strip's own place stays as it is."""
    good = packed(CLEAR, *((code, 9) for code in range(100, 200)), END)
    broken = good.copy()
    for _ in range(data.draw(st.integers(1, 20))):
        broken[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    out = np.full(200, 77, np.uint8)
    assert lzw.decode(broken, out[:100]) in (True, False)
    assert (out[100:] == 77).all()


def test_broken_strips_are_left_to_pillow(tmp_path):
    grey = noise((3, 40, 50))
    write_lzw(tmp_path / "a.tif", grey)
    (offset, _, _), *_ = read_header(tmp_path / "a.tif").strips
    content = bytearray((tmp_path / "a.tif").read_bytes())
    content[offset] = 0
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(VolumeError, match="got an error on page 0 "):
        read(tmp_path / "a.tif")
