"""What the viewer gets: geometry, grey, kinds and places, on worlds small enough to check by hand."""

import base64
import io
import json
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from worlds_of_pages import two_sheets, with_errors, write_submission, write_volumes

from surface_report.slices import grey, kinds
from surface_report.slices.case_slices import CaseFiles, Room, case_slices
from surface_report.slices.cells import cell_of, cells_of, first_voxels, middle_voxels
from surface_report.slices.places import LISTED, marks, places
from surface_report.slices.planes import exact_planes
from surface_report.slices.slices_section import room_for
from surface_score.cases import score_pairs
from surface_score.masks import find_masks


def test_cells_of_the_drawing():
    """8 voxels in 3 cells: 0 0 0 1 1 1 2 2."""
    assert first_voxels(8, 3).tolist() == [0, 3, 6]
    assert middle_voxels(8, 3).tolist() == [1, 4, 6]
    assert cells_of((8, 100, 320), 128) == (8, 100, 128)


@given(st.integers(1, 400), st.integers(1, 400))
def test_every_voxel_has_the_cell_that_says_so(length, most):
    cells = min(length, most)
    voxels = np.arange(length)
    at = np.stack([voxels] * 3, axis=1)
    cell = cell_of(at, shape_zyx=(length,) * 3, cells_zyx=(cells,) * 3)[:, 0]
    starts, middles = first_voxels(length, cells), middle_voxels(length, cells)
    assert np.unique(cell).tolist() == list(range(cells))
    assert (cell == np.searchsorted(starts, voxels, side="right") - 1).all()
    assert (cell[middles] == np.arange(cells)).all()


def test_grey_is_the_mean_of_its_cell():
    volume = np.random.default_rng(0).integers(0, 256, (9, 8, 12), dtype=np.uint8)
    reduced = grey.reduce(volume, (3, 4, 6))
    expected = volume.reshape(3, 3, 4, 2, 6, 2).mean(axis=(1, 3, 5))
    assert np.abs(reduced - expected).max() < 2  # columns are rounded, then rows, then planes
    np.testing.assert_array_equal(grey.reduce(volume, (9, 8, 12)), volume)


@pytest.mark.parametrize("shape_zyx", [(1, 5, 7), (5, 4, 3), (7, 2, 9)])
def test_an_atlas_holds_every_plane_once(shape_zyx):
    volume = np.random.default_rng(1).integers(1, 256, shape_zyx, dtype=np.uint8)
    laid, across = grey.atlas(volume), grey.columns(shape_zyx)
    depth, height, width = shape_zyx
    for z in range(depth):
        top, left = z // across * height, z % across * width
        np.testing.assert_array_equal(laid[top : top + height, left : left + width], volume[z])
    assert np.count_nonzero(laid) == volume.size


def test_a_picture_fits_its_room_where_it_can():
    plane = np.random.default_rng(2).integers(0, 256, (96, 96), dtype=np.uint8)
    sizes = {quality: len(grey.webp(plane, quality)) for quality in grey.QUALITIES}
    assert len(grey.webp_within(plane, sizes[36])) == sizes[36]
    assert len(grey.webp_within(plane, sizes[36] - 1)) == sizes[26]
    assert len(grey.webp_within(plane, 10**6)) == sizes[75]
    assert len(grey.webp_within(plane, 1)) == sizes[5]


def test_kinds_of_every_pair():
    predicted = np.array([0, 1, 0, 1, 0, 1], bool)
    label = np.array([0, 0, 1, 1, 2, 2], np.uint8)
    expected = [kinds.BACKGROUND, kinds.ADDED, kinds.MISSED, kinds.BOTH, kinds.UNLABELLED, kinds.UNLABELLED_PREDICTED]
    assert kinds.kinds_of(predicted, label).tolist() == expected
    assert kinds.kinds_of(predicted, None).tolist() == [kinds.BACKGROUND, kinds.PREDICTED] * 3


def test_a_mark_changes_its_kind_within_its_box():
    predicted, label = np.zeros((2, 5, 5, 5), bool)
    predicted[2, 2] = True
    mark = kinds.Mark(at=(2, 2, 1), within=1, of=kinds.ADDED, becomes=kinds.MERGED)
    at, values = kinds.marked(predicted, label.astype(np.uint8), [mark])
    assert at.tolist() == [[2, 2, 0], [2, 2, 1], [2, 2, 2]]
    assert values.tolist() == [kinds.MERGED] * 3


def breakdown(**lists):
    names = ("merges", "splits", "false_holes", "lost_holes", "regions", "missed_sheets", "invented_components")
    return {name: [] for name in names} | lists


def test_places_take_turns_worst_first():
    hole = {"kind": "tunnel", "voxels": 5, "at": [1, 2, 3]}
    region = {"points": 0.01, "at": [4, 5, 6]}
    named = places(breakdown(false_holes=[hole] * 30, regions=[region]))
    assert [place.kind for place in named[:3]] == ["false hole", "surface", "false hole"]
    assert named[1].at == (4, 5, 6)
    assert len(places(breakdown(false_holes=[hole] * 30, regions=[region] * 30, lost_holes=[hole] * 30))) <= LISTED
    assert {mark.becomes for mark in marks(breakdown(false_holes=[hole], lost_holes=[hole]))} == {
        kinds.HOLE,
        kinds.PLUG,
    }


def test_the_plane_of_a_place_is_the_one_with_most_errors():
    errors = np.zeros((9, 9, 9), bool)
    errors[4] = True
    errors[:, 2, 2] = True
    assert exact_planes(errors, [(4, 4, 4), (1, 2, 2)], most=2) == [(0, 4), (1, 2)]
    rest = [(1, 4), (2, 4), (2, 2), (0, 1)]
    assert exact_planes(errors, [(4, 4, 4), (1, 2, 2)], most=9) == [(0, 4), (1, 2), *rest]
    assert exact_planes(errors, [(1, 2, 2)], most=1) == [(0, 4)]
    assert exact_planes(errors & False, [], most=9) == []


def unpacked(text, shape):
    changes = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8).reshape(shape)
    return np.bitwise_xor.accumulate(changes, axis=0)


def test_a_packed_case_is_the_case(tmp_path):
    image, label = two_sheets()
    masks = find_masks(write_submission(tmp_path / "a.zip", {"1": with_errors(label)}))
    truth = find_masks(write_volumes(tmp_path / "truth", {"1": label}))
    images = write_volumes(tmp_path / "images", {"1": image})
    list(score_pairs([(masks["1"], truth["1"])], 1, tmp_path, pictures=False))
    found = json.loads((tmp_path / "1.json").read_text())
    files = CaseFiles(id="1", predictions=(masks["1"],), truth=truth["1"], image=images / "1.tif", breakdowns=(found,))
    packed = case_slices(files, Room(cells=99, planes=5, bytes=10**6))
    volume = unpacked(packed["kinds"][0], label.shape)
    predicted = with_errors(label) == 1
    labelled = label != 2
    np.testing.assert_array_equal(volume == kinds.BOTH, (label == 1) & predicted & labelled)
    np.testing.assert_array_equal(np.isin(volume, [kinds.ADDED, kinds.MERGED, kinds.PLUG]), (label == 0) & predicted)
    np.testing.assert_array_equal(np.isin(volume, [kinds.MISSED, kinds.SPLIT, kinds.HOLE]), (label == 1) & ~predicted)
    assert (volume[10:13, 9:18, 14:17] == kinds.MERGED).all()
    assert packed["exact"] == []  # nothing is reduced
    ct = np.asarray(Image.open(io.BytesIO(base64.b64decode(packed["ct"].split(",")[1]))).convert("L"))
    assert np.abs(ct.astype(int) - grey.atlas(image)).mean() < 8


@pytest.mark.parametrize(("cases", "most_mb"), [(1, 15), (6, 15), (20, 15), (21, 60), (120, 60)])
def test_a_page_has_its_size(cases, most_mb):
    room = room_for(cases)
    assert cases * room.bytes < most_mb * 1e6
    assert room.cells >= 128
