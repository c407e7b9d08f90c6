from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays
from scenes import as_the_scorer_reads, as_tifffile_reads, names_in, noise

from surface_kernel.volumes.header import VolumeError
from surface_kernel.volumes.image_files import write_lzw, write_npy
from surface_kernel.volumes.volume import read

TINY = array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=5)  # 3 and 4 are taken for colours by careless writers


@settings(deadline=None, max_examples=60)
@given(arrays(np.uint8, TINY))
def test_everybody_reads_an_lzw_volume_as_it_was_written(folder, grey):
    path = folder / "a.tif"
    write_lzw(path, grey)
    np.testing.assert_array_equal(as_the_scorer_reads(path), grey, strict=True)
    if find_spec("imagecodecs"):
        np.testing.assert_array_equal(as_tifffile_reads(path), grey, strict=True)
    if len(grey) > 1:
        np.testing.assert_array_equal(read(path), grey, strict=True)


@pytest.mark.parametrize(
    "grey", [np.ones((2, 3, 4), np.uint16), np.ones((3, 4), np.uint8), np.ones((0, 3, 4), np.uint8)]
)
def test_what_is_no_volume_is_refused_and_nothing_is_left(tmp_path, grey):
    with pytest.raises(VolumeError, match=r"a\.tif: expected uint8 \(z, y, x\) voxels, got a "):
        write_lzw(tmp_path / "a.tif", grey)
    assert names_in(tmp_path) == []


def test_a_failure_of_the_lzw_writer_leaves_no_partial_file(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "replace", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_lzw(tmp_path / "a.tif", noise((2, 3, 4)))
    assert names_in(tmp_path) == []


def test_planes_become_an_npy_file_or_none(tmp_path):
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    assert write_npy(tmp_path / "a.npy", iter(array), (2, 3, 4)) == array.mean()
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), array, strict=True)
    with pytest.raises(VolumeError, match=r"b\.npy: expected 3 planes, got 2"):
        write_npy(tmp_path / "b.npy", iter(array), (3, 3, 4))
    assert names_in(tmp_path) == ["a.npy"]
