import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image
from scenes import as_the_scorer_reads, as_tifffile_reads, names_in, noise

from surface_kernel.volumes import mask_files
from surface_kernel.volumes.header import VolumeError, read_header
from surface_kernel.volumes.mask_files import write_mask
from surface_kernel.volumes.volume import read

TINY = array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=5)  # 3 and 4 are taken for colours by careless writers


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


def test_a_mask_that_is_not_contiguous_is_written_as_it_looks(tmp_path):
    mask = (noise((4, 5, 6)) > 128).view(np.uint8)[::-1, :, ::2]
    write_mask(tmp_path / "mask.tif", mask)
    np.testing.assert_array_equal(as_the_scorer_reads(tmp_path / "mask.tif"), mask)


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
    ("mask", "got"),
    [
        (np.ones((2, 3, 4), bool), "got a bool array of shape (2, 3, 4)"),
        (np.ones((2, 3, 4), np.int64), "got a int64 array"),
        (np.ones((2, 3, 4), np.float32), "got a float32 array"),
        (np.ones((3, 4), np.uint8), "shape (3, 4)"),
        (np.ones((1, 2, 3, 4), np.uint8), "shape (1, 2, 3, 4)"),
        (np.ones((2, 0, 4), np.uint8), "shape (2, 0, 4)"),
        (np.full((2, 3, 4), 2, np.uint8), "got the value 2"),
    ],
)
def test_what_is_no_mask_is_refused_and_nothing_is_left(tmp_path, mask, got):
    with pytest.raises(VolumeError) as caught:
        write_mask(tmp_path / "mask.tif", mask)
    assert got in str(caught.value)
    assert "mask.tif" in str(caught.value)
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


def test_a_mask_that_reads_back_otherwise_gets_no_name(tmp_path, monkeypatch):
    mask = np.ones((2, 3, 4), np.uint8)
    monkeypatch.setattr(mask_files, "_write_pages", lambda path, pages: tifffile.imwrite(path, 1 - pages))
    with pytest.raises(VolumeError, match="got other voxels on reading it back"):
        write_mask(tmp_path / "mask.tif", mask)
    assert names_in(tmp_path) == []
