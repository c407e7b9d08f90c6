"""The reader of directories, fed with what is nearly a TIFF."""

import math
import random
import re
import struct
import tracemalloc

import pytest
from fuzzing import fuzz
from malformed import grey_page, tiff_bytes, whole_files

from surface_kernel.volumes import tiff
from surface_kernel.volumes.header import MAX_RATIO, VolumeError, read_header
from surface_kernel.volumes.tiff_page import TiffError

EXTREMES = [0, 1, 2**7, 2**8 - 1, 2**15, 2**16 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1]
TAGS = [254, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 317, 324, 325, 339, 32997]


def good_files():
    """Returns small TIFFs of both orders and widths, with one strip a page and with several, and those of others."""
    made = [
        tiff_bytes([grey_page(4, 4, [8, 12], [8, 8]), grey_page(4, 4, [8], [16])], bytes(20), order, big)
        for order in "<>"
        for big in (False, True)
    ]
    return made + [content for content in whole_files().values() if len(content) < 12_000]


GOOD = good_files()


def mutant(rng):
    """Changes a good file in one to five places: bytes, whole numbers, tags; parts of it cut, doubled, or another's."""
    content = bytearray(rng.choice(GOOD))
    for _ in range(rng.randint(1, 5)):
        place, kind = rng.randrange(len(content) + 1), rng.randrange(8)
        if rng.random() < 0.5:  # the head, and what lies at the end, which mostly are directories
            place = rng.choice([rng.randrange(16), len(content) - rng.randrange(400)]) % (len(content) + 1)
        if kind == 0:
            content[place : place + 1] = rng.randbytes(1)
        elif kind == 1:
            width, code = rng.choice([(2, "H"), (4, "I"), (8, "Q")])
            number = rng.choice(EXTREMES) if rng.random() < 0.5 else rng.randrange(len(content) + 1)
            content[place : place + width] = struct.pack(rng.choice("<>") + code, number % 256**width)
        elif kind == 2:
            content[place : place + 2] = struct.pack(rng.choice("<>") + "H", rng.choice(TAGS))
        elif kind == 3:
            del content[place:]
        elif kind == 4:
            del content[place : place + rng.randrange(1, 30)]
        elif kind == 5:
            other = rng.choice(GOOD)
            cut = rng.randrange(len(other))
            content[place:] = other[cut:]
        elif kind == 6:
            content[place:place] = content[place : place + rng.randrange(1, 300)]
        else:
            content[place : place + 12] = rng.choice(GOOD)[place : place + 12]
        if not content:
            return b""
    return bytes(content)


def tried(content):
    """Reads what may be a TIFF; returns how many bytes were asked for, how many pages were found, and the error."""
    asked = []

    def read(place, size_bytes):
        assert 0 <= place < len(content)
        asked.append(size_bytes)
        return content[place : place + size_bytes]

    try:
        pages = tiff.parse(read, len(content))
    except TiffError as error:
        return sum(asked), 0, str(error)
    for page in pages:
        assert page.width > 0
        assert page.decoded_bytes > 0
    assert 2 * sum(len(page.offsets) for page in pages) <= len(content) + 2 * len(pages)
    return sum(asked), len(pages), None


def test_nothing_but_pages_or_the_named_error_comes_out(long, tally):
    read = []

    def check(dice):
        content = mutant(dice)
        asked_bytes, pages, error = tried(content)
        assert error is None or re.fullmatch("expected .*, got .*", error)  # one line
        assert asked_bytes <= 4096 * (2 + len(content) // 6)  # a block for every directory and list that fits in
        read.append(pages > 0)

    executions = fuzz(long, check, 400)
    assert executions // 20 < sum(read) < executions * 0.9  # neither refused at the door nor all harmless
    tally("parsers fuzzed: TIFF", executions)


@pytest.mark.parametrize("seed", range(3))
def test_memory_is_in_proportion_to_the_file(seed):
    rng = random.Random(seed)
    contents = [mutant(rng) for _ in range(300)]
    for content in contents:
        tracemalloc.start()
        tried(content)
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak_bytes < 60 * len(content) + 100_000


def test_headers_are_judged_whatever_they_declare(tmp_path, long, tally):
    """What the directories hold, true or not, is a header or the volume's error."""
    rng, path, judged = random.Random(9), tmp_path / "a.tif", 0
    for _ in range(50_000 if long else 1000):
        path.write_bytes(mutant(rng))
        try:
            header = read_header(path)
        except VolumeError as error:
            message, shape_zyx = str(error), error.shape_zyx
        else:
            message, shape_zyx = f"{path}: expected a header, got one", header.shape_zyx
            assert header.offset is None or header.offset + math.prod(shape_zyx) <= path.stat().st_size
            if header.strips:
                assert sum(size for _, _, size in header.strips) == math.prod(shape_zyx)
        assert re.fullmatch(rf"{path}: expected .*, got .*", message)
        assert shape_zyx is None or math.prod(shape_zyx) <= MAX_RATIO * path.stat().st_size * 8  # of single bits
        judged += shape_zyx is not None
    assert judged > 50
    tally("parsers fuzzed: TIFF", 50_000 if long else 1000)


def test_good_files_pass():
    assert all(tried(content)[1] for content in GOOD)
