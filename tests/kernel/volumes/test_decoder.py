import shutil
import sys

import numpy as np
import pytest
import tifffile
from malformed import WHOLE, grey_page, tiff_bytes, whole_files
from PIL import Image
from scenes import noise, run_python

from surface_kernel.volumes import decoder
from surface_kernel.volumes.decoder import DecodeError, DecodingLimits, decode


@pytest.fixture
def odd(tmp_path):
    """A file that only the decoder reads, in a name that a shell or a parser of arguments would take amiss."""
    tifffile.imwrite(
        path := tmp_path / "-a b;.tif", WHOLE, photometric="minisblack", compression="zlib", predictor=True
    )
    return path


def decoded(path, shape_zyx=WHOLE.shape):
    out = np.full(shape_zyx, 77, np.uint8)
    decode(path, out)
    return out


def test_pages_are_as_pillow_reads_them(odd):
    np.testing.assert_array_equal(decoded(odd), WHOLE)


@pytest.mark.parametrize("kind", ["raw", "big", "zlib", "motorola", "tiles", "lzw"])
def test_usual_files_too(tmp_path, kind):
    (tmp_path / "a.tif").write_bytes(whole_files()[kind])
    np.testing.assert_array_equal(decoded(tmp_path / "a.tif"), WHOLE)


@pytest.mark.parametrize(
    ("shape_zyx", "expected"),
    [
        ((7, 30, 25), "expected 7 pages as the header says, got 6"),
        ((5, 30, 25), r"expected 5 pages of L 25 30 \(mode, width, height\) as the header says, got page 5 of L 25 30"),
        ((6, 25, 30), r"expected 6 pages of L 30 25 \(mode, width, height\) as the header says, got page 0 of L 25 30"),
        ((6, 30, 26), "got page 0 of L 25 30"),
    ],
)
def test_other_pages_than_declared_are_refused(odd, shape_zyx, expected):
    with pytest.raises(DecodeError, match=expected):
        decoded(odd, shape_zyx)


def test_pages_of_another_kind_are_refused(tmp_path):
    first, *rest = (Image.fromarray(page) for page in noise((3, 4, 5)).astype(np.int32))
    first.save(tmp_path / "a.tif", save_all=True, append_images=rest)
    with pytest.raises(DecodeError, match="got page 0 of I 5 4"):
        decoded(tmp_path / "a.tif", (3, 4, 5))


def test_a_broken_page_is_named(tmp_path):
    pages = [grey_page(9, 9, [8], [81], 1), grey_page(9, 9, [8], [82], 32773), grey_page(9, 9, [8], [82], 8)]
    (tmp_path / "a.tif").write_bytes(tiff_bytes(pages, b"\x50" + bytes(81)))
    with pytest.raises(DecodeError, match=r"expected 3 pages that decode, got an error on page 2 \(OSError: .*\)"):
        decoded(tmp_path / "a.tif", (3, 9, 9))


def test_other_formats_are_not_tried(tmp_path):
    Image.new("L", (5, 4)).save(tmp_path / "a.tif", format="png")
    with pytest.raises(DecodeError, match=r"got an error on page 0 \(UnidentifiedImageError"):
        decoded(tmp_path / "a.tif", (1, 4, 5))


# --- a Pillow that fails, in place of libtiff on a file that nobody has found yet -------------------------------------

PAGE = """
import os, time
class Page:
    n_frames, mode, width, height = 3, "L", 4, 5
    def __enter__(self): return self
    def __exit__(self, *error): pass
    def seek(self, page): self.page = page
    def tobytes(self):
        if self.page == 1: fail()
        return bytes(20)
def open(path, formats): return Page()
"""


@pytest.fixture
def failing_pillow(tmp_path, monkeypatch):
    """Gives, in processes started from now on, a Pillow whose page 1 fails as told."""

    def make(how):
        (tmp_path / "PIL").mkdir()
        (tmp_path / "PIL" / "__init__.py").touch()
        (tmp_path / "PIL" / "Image.py").write_text(f"{PAGE}\ndef fail():\n    {how}\n")
        (tmp_path / "a.tif").touch()
        monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
        return tmp_path / "a.tif"

    return make


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("while True: pass", "expected 3 pages within 1 s of CPU time, got no further than page 1"),
        ("time.sleep(99)", "expected 3 pages within 2 s, got no further than page 1"),
        ("os.abort()", "expected 3 pages, got the decoder ended by SIGABRT on page 1"),
        ("os.kill(os.getpid(), 11)", "got the decoder ended by SIGSEGV on page 1"),
        ("os._exit(3)", "got the decoder ended by exit code 3 on page 1"),
        ("os._exit(0)", "expected 3 pages as the header says, got 1"),
        ("held = bytearray(1 << 34)", r"expected 3 pages that decode, got an error on page 1 \(MemoryError:\)"),
        ("raise ValueError('two\\nlines' + 'x' * 9999)", r"got an error on page 1 \(ValueError: two linesx*"),
        ("os.write(1, b'what\\n'); time.sleep(99)", r"got 'what\\n' from the decoder"),
        ("os.write(1, b'page L 4'); os._exit(0)", "got page 1 of L 4$"),
        ("os.write(1, b'page L 4 5\\n123'); os._exit(0)", "expected 3 pages as the header says, got 1"),
        ("os.write(1, b'z' * 10**7)", "got 'zz+' from the decoder"),
    ],
)
def test_whatever_ends_the_decoder_is_said(failing_pillow, monkeypatch, how, message):
    monkeypatch.setattr(decoder, "CPU_FLOOR_S", 1.0)
    monkeypatch.setattr(decoder, "_WALL_PER_CPU", 2 if "sleep" in how else 60)
    with pytest.raises(DecodeError, match=message) as caught:
        decoded(failing_pillow(how), (3, 5, 4))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 2000


def test_without_pillow_it_says_so(failing_pillow):
    path = failing_pillow("pass")
    shutil.rmtree(path.parent / "PIL")
    (path.parent / "PIL.py").write_text("raise ImportError('no Pillow here')")
    with pytest.raises(DecodeError, match=r"got an error on page 0 \(ImportError: no Pillow here\)"):
        decoded(path, (3, 5, 4))


def test_limits_grow_with_what_is_declared_and_stored():
    small = DecodingLimits.of(page_bytes=100, pages=3, file_bytes=500)
    deep = DecodingLimits.of(page_bytes=10**7, pages=100, file_bytes=500)
    wide = DecodingLimits.of(page_bytes=10**9, pages=1, file_bytes=10**9)
    assert small.cpu_s == pytest.approx(10, abs=0.01)
    assert (deep.cpu_s, wide.cpu_s) == (110, 110)
    assert small.wall_s < deep.wall_s
    assert small.memory_bytes < deep.memory_bytes < wide.memory_bytes - 8 * 10**9


@pytest.mark.parametrize(("hard", "soft"), [(-1, 100), (500, 100), (50, 50)])
def test_limits_that_hold_already_stay(hard, soft):
    code = """
import resource, sys
from surface_kernel.volumes import decoder
hard = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_CPU, (hard, hard))
decoder.main("nowhere", 1 << 33, 100)
print(resource.getrlimit(resource.RLIMIT_CPU), resource.getrlimit(resource.RLIMIT_CORE)[0])
"""
    error, limits = run_python(code, hard).stdout.splitlines()
    assert error == "error 0 FileNotFoundError: [Errno 2] No such file or directory: 'nowhere'"
    assert limits == f"({soft}, {hard}) 0"
