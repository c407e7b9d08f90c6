import numpy as np
import pytest

from surface_kernel import machine
from surface_phantom import LOOKS
from surface_phantom.fields import Field, draw_fibres
from surface_phantom.geometry import MAPS, STEP, Frame, Sheets, draw_frame, draw_sheets
from surface_phantom.raster import Solid, rasterise

SHAPE = (48, 56, 64)
PLAIN = np.zeros((24, 32, 32), np.float32)  # fibres without a texture
NO_WARP = np.zeros(tuple(n // STEP + 2 for n in SHAPE), np.float32)


def even_sheets(faces: list[float], along: float, error: float = 0.0, **depths: float) -> Sheets:
    """Sheets that do the same everywhere: 5 voxels of recto, 5 of verso, no gap, no flake."""
    grid = (len(faces), int(2 * along) // STEP + 4, SHAPE[0] // STEP + 2)
    values = dict.fromkeys(MAPS, 5.0) | {
        "verso_end": 10.0,
        "flake_at": 12.0,
        "flake_end": 12.0,
        "error": 0.0,
        "tone": 1,
    }
    maps = np.stack([np.full(grid, (values | depths)[name], np.float32) for name in MAPS], axis=-1)
    face = np.array(faces, np.float32)[:, None, None] * np.ones(grid, np.float32)
    return Sheets(face=face, drawn=face + np.float32(error), maps=maps, along_start=-along - STEP)


def flat_world(warp: Field = NO_WARP, fibres: Field = PLAIN, **depths: float) -> Solid:
    """Flat sheets beside a long spine at y = -20, so that r = y + 20: recto faces at y = 10, 40."""
    frame = Frame(
        centre_yx=(-20.0, 32.0),
        heading_yx=(0.0, 1.0),
        half_spine=400.0,
        lean_yx=(0.0, 0.0),
        ring=50.0,
        climb=0.0,
        warp=warp,
    )
    return rasterise(shape_zyx=SHAPE, frame=frame, sheets=even_sheets([30.0, 60.0], 480.0, **depths), fibres=fibres)


def test_flat_sheets_by_hand() -> None:
    solid = flat_world()
    column = solid.density[20, :, 30]
    sheet = [*[1.1] * 5, *[0.92] * 5]
    assert column[11:14] == pytest.approx(1.1)
    assert column[16:19] == pytest.approx(0.92)
    assert float(column[10:21].sum()) == pytest.approx(sum(sheet), abs=0.6)
    assert (column[:10] == 0).all()
    assert (column[22:40] == 0).all()
    assert solid.depth[20, :, 30] == pytest.approx([*range(-10, 16), *range(-14, 16)], abs=0.01)
    assert solid.nearest[20, :, 30].tolist() == [0] * 26 + [1] * 30


def test_depth_counts_from_the_face_as_it_was_drawn() -> None:
    true, off = flat_world(), flat_world(error=1.5)
    near = np.abs(true.depth[20, :, 30]) < 6
    assert off.depth[20, :, 30][near] == pytest.approx(true.depth[20, :, 30][near] - 1.5, abs=0.01)
    assert np.array_equal(true.density, off.density)


def test_layers_split_and_flakes_hang_beside_them() -> None:
    solid = flat_world(verso_at=9.0, verso_end=13.0, flake_at=16.0, flake_end=19.0)
    papyrus = "".join("#" if v > 0.4 else "." for v in solid.density[20, :40, 30])
    assert papyrus == "." * 10 + "######...#####..####" + "." * 10


def test_round_sheets_are_at_their_distance() -> None:
    frame = Frame(
        centre_yx=(28.0, -30.0),
        heading_yx=(0.0, 1.0),
        half_spine=0.0,
        lean_yx=(0.0, 0.0),
        ring=60.0,
        climb=0.0,
        warp=NO_WARP,
    )
    solid = rasterise(shape_zyx=SHAPE, frame=frame, sheets=even_sheets([40.0, 70.0], 200.0), fibres=PLAIN)
    y, x = np.mgrid[: SHAPE[1], : SHAPE[2]]
    radius = np.hypot(y - 28.0, x + 30.0)
    nearest = (np.abs(radius - 70) < np.abs(radius - 40)).astype(int)
    distance = radius - np.array([40.0, 70.0])[nearest]
    near = np.abs(distance) < 7
    assert solid.nearest[9][near].tolist() == nearest[near].tolist()
    assert np.abs(solid.depth[9][near] - distance[near]).max() < 0.1


def test_depth_is_measured_across_the_sheet_however_it_leans() -> None:
    z = STEP * np.arange(NO_WARP.shape[0], dtype=np.float32)
    solid = flat_world(warp=0.75 * (z - 24)[:, None, None] + NO_WARP)
    # r = y + 20 + 0.75 (z - 24): the sheets' normal is (0.6, 0.8, 0), and a step in y only 0.8 of one across.
    z, y = np.mgrid[: SHAPE[0], : SHAPE[1]]
    across = 0.8 * (y - 10 + 0.75 * (z - 24))
    near = np.abs(across) < 4
    assert np.abs(solid.depth[:, :, 30][near] - across[near]).max() < 0.02


def test_the_layers_fibres_cross() -> None:
    solid = flat_world(fibres=draw_fibres(np.random.default_rng(0)))

    def likeness(layer: Field, axis: int) -> float:
        plane = layer - layer.mean()
        ahead, behind = np.take(plane, range(4, 44), axis), np.take(plane, range(40), axis)
        return float((ahead * behind).mean() / plane.var())

    recto, verso = solid.density[:, 12, :48], solid.density[:, 18, :48]  # (z, x): up the scroll, and around it
    assert likeness(recto, axis=1) > likeness(recto, axis=0) + 0.3
    assert likeness(verso, axis=0) > likeness(verso, axis=1) + 0.3


def test_the_number_of_threads_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    frame = draw_frame(rng, SHAPE, LOOKS[0])
    sheets, fibres = draw_sheets(rng, frame=frame, shape_zyx=SHAPE, look=LOOKS[0]), draw_fibres(rng)
    solids = []
    for threads in (1, 3):
        monkeypatch.setattr(machine, "cores", lambda threads=threads: threads)
        solids.append(rasterise(shape_zyx=SHAPE, frame=frame, sheets=sheets, fibres=fibres))
    one, three = solids
    assert np.array_equal(one.density, three.density)
    assert np.array_equal(one.nearest, three.nearest)
    assert np.array_equal(one.depth, three.depth)
    assert 0.05 < float((one.density > 0.5).mean()) < 0.9


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: str(look.scroll_id))
def test_papyrus_begins_at_the_face_and_on_its_far_side(look) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(8)
    frame = draw_frame(rng, SHAPE, look)
    sheets = draw_sheets(rng, frame=frame, shape_zyx=SHAPE, look=look)
    solid = rasterise(shape_zyx=SHAPE, frame=frame, sheets=sheets, fibres=draw_fibres(rng))
    inside, outside = (solid.depth > 1) & (solid.depth < 3.5), (solid.depth < -1.5) & (solid.depth > -4)
    assert float(solid.density[inside].mean()) > 0.75
    assert float(solid.density[outside].mean()) < 0.45
