import math

import numpy as np
import numpy.typing as npt
import pytest

from surface_phantom import LOOKS
from surface_phantom.geometry import MAPS, Frame, Sheets, coordinates, draw_frame, draw_sheets, stack

FLAT = np.zeros((40, 40, 40), np.float32)


def points(*xyz: tuple[float, float, float]) -> tuple[npt.NDArray[np.float32], ...]:
    return tuple(np.array(axis, np.float32) for axis in zip(*xyz, strict=True))


def test_coordinates_around_a_point() -> None:
    frame = Frame(
        centre_yx=(10.0, 20.0),
        heading_yx=(0.0, 1.0),
        half_spine=0.0,
        lean_yx=(0.0, 0.0),
        ring=5.0,
        climb=0.0,
        warp=FLAT,
    )
    #                  ahead            aside            back (where the ends of along meet)
    z, y, x = points((0, 10, 23), (7, 6, 20), (7, 14, 20), (3, 10.001, 12), (3, 9.999, 12))
    r, along = coordinates(frame, (z, y, x))
    assert r == pytest.approx([3, 4, 4, 8, 8], abs=1e-3)
    half_turn = 5 * math.pi
    wanted = [0, half_turn / 2, -half_turn / 2, -half_turn, half_turn]
    assert np.abs(along) == pytest.approx(np.abs(wanted), abs=1e-2)
    assert along[1] * along[2] < 0
    assert along[3] * along[4] < 0


def test_coordinates_around_a_segment_that_leans() -> None:
    # The spine runs from x = 10 to x = 50, and moves by 1 in y every two slices.
    frame = Frame(
        centre_yx=(10.0, 30.0),
        heading_yx=(0.0, 1.0),
        half_spine=20.0,
        lean_yx=(0.5, 0.0),
        ring=4.0,
        climb=0.0,
        warp=FLAT,
    )
    z, y, x = points((0, 10, 56), (0, 17, 50), (0, 17, 30), (0, 17, 10), (8, 21, 30))
    r, along = coordinates(frame, (z, y, x))
    assert r == pytest.approx([6, 7, 7, 7, 7], abs=1e-4)
    quarter = 4 * math.pi / 2
    assert np.abs(along) == pytest.approx([0, quarter, quarter + 20, quarter + 40, quarter + 20], abs=1e-3)


def test_the_spiral_rises_by_its_climb() -> None:
    plain = Frame(
        centre_yx=(0.0, 0.0), heading_yx=(0.0, 1.0), half_spine=0.0, lean_yx=(0.0, 0.0), ring=10.0, climb=0.0, warp=FLAT
    )
    spiral = Frame(
        centre_yx=(0.0, 0.0), heading_yx=(0.0, 1.0), half_spine=0.0, lean_yx=(0.0, 0.0), ring=10.0, climb=0.1, warp=FLAT
    )
    z, y, x = points((0, 3, 20), (0, 30, -5), (0, -8, 9))
    r, along = coordinates(plain, (z, y, x))
    assert coordinates(spiral, (z, y, x))[0] == pytest.approx(r - 0.1 * along, abs=1e-4)


def test_sheets_that_would_overlap_touch_and_others_stay() -> None:
    free = np.array([0.0, 30.0, 32.0, 80.0], np.float32)[:, None, None] * np.ones((4, 12, 12), np.float32)
    face = stack(free, np.full((4, 12, 12), 10.0, np.float32))
    assert face[0, 5, 5] == 0
    assert face[1, 5, 5] == pytest.approx(30.0, abs=0.01)
    assert face[2, 5, 5] == pytest.approx(40.0, abs=0.05)  # pushed by sheet 1
    assert face[3, 5, 5] == pytest.approx(80.0, abs=0.01)


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: str(look.scroll_id))
@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 6))])
def test_sheets_fill_the_volume_and_never_cross(look, seed) -> None:  # type: ignore[no-untyped-def]
    shape_zyx = (64, 96, 80)
    rng = np.random.default_rng(seed)
    frame = draw_frame(rng, shape_zyx, look)
    sheets = draw_sheets(rng, frame=frame, shape_zyx=shape_zyx, look=look)
    assert np.diff(sheets.face, axis=0).min() > 5.0  # two faces 3-4 voxels thick keep apart
    corners = np.meshgrid(*(np.array([0, n - 1], np.float32) for n in shape_zyx), indexing="ij")
    r, along = coordinates(frame, corners)
    assert sheets.face[-1].min() > r.max() - look.pitch
    assert sheets.along_start <= along.min()
    assert along.max() <= sheets.along_start + 4 * (sheets.face.shape[1] - 1)


def test_a_frame_wants_a_unit_vector() -> None:
    with pytest.raises(ValueError, match=r"heading_yx: expected a unit vector, got one of length 2\.000"):
        Frame(
            centre_yx=(0.0, 0.0),
            heading_yx=(0.0, 2.0),
            half_spine=0.0,
            lean_yx=(0.0, 0.0),
            ring=1.0,
            climb=0.0,
            warp=FLAT,
        )


def test_sheets_want_faces_that_rise_and_their_maps() -> None:
    face = np.zeros((2, 3, 3), np.float32)
    with pytest.raises(ValueError, match="expected recto faces that rise from sheet to sheet"):
        Sheets(face=face, drawn=face, maps=np.zeros((2, 3, 3, len(MAPS)), np.float32), along_start=0.0)
    with pytest.raises(ValueError, match="expected drawn faces and 6 maps on the grid"):
        Sheets(face=face, drawn=face, maps=np.zeros((2, 3, 3, 2), np.float32), along_start=0.0)
