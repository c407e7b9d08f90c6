import numpy as np
import pytest

from surface_phantom.labels import (
    FACE_FROM,
    FACE_TO,
    RIM,
    SHELL,
    annotate,
    band_shares,
    choose_band,
    count_by_depth,
    draw_label,
)
from surface_phantom.raster import Solid


def flat(faces: list[float], shape_zyx: tuple[int, int, int]) -> Solid:
    """Flat sheets whose recto faces look toward low x."""
    x = np.arange(shape_zyx[2], dtype=np.float32)
    off = x[None] - np.array(faces, np.float32)[:, None]
    nearest = np.abs(off).argmin(axis=0)
    depth = off[nearest, np.arange(len(x))]
    return Solid(
        density=np.zeros(shape_zyx, np.float32),
        nearest=np.broadcast_to(nearest.astype(np.int16), shape_zyx).copy(),
        depth=np.broadcast_to(depth.astype(np.float16), shape_zyx).copy(),
    )


def test_a_row_of_labels_by_hand() -> None:
    solid = flat([15.0, 35.0, 55.0, 75.0], (9, 9, 90))
    label = annotate(solid, first=1, last=2, start=0)
    row = "".join(str(v) for v in label[4, 4])
    # Faces at 35 and 55; -1.4 <= depth < 2 holds at 34..36 and 54..56; 9 voxels of background beyond both.
    wanted = "2" * 26 + "0" * 8 + "111" + "0" * 17 + "111" + "0" * 7 + "2" * 26
    assert row == wanted
    assert len(row) == 90


def test_the_shell_and_a_margin_are_never_annotated() -> None:
    solid = flat([20.0, 40.0], (20, 22, 64))
    label = annotate(solid, first=0, last=1, start=0, margin_zyx=(0, 5, 0))
    inside = np.zeros(label.shape, bool)
    inside[SHELL:-SHELL, 5:-5, SHELL:-SHELL] = True
    assert (label[~inside] == 2).all()
    assert {0, 1} <= set(np.unique(label[inside]).tolist())


def test_the_first_slices_may_be_wholly_2() -> None:
    label = annotate(flat([20.0, 40.0], (20, 22, 64)), first=0, last=1, start=8)
    assert (label[:8] == 2).all()
    assert (label[8] == 1).any()


@pytest.mark.parametrize("shift", [0.0, 0.2, 0.4, 0.6, 0.8])
def test_a_face_is_three_or_four_voxels_thick_on_the_recto_side(shift: float) -> None:
    label = annotate(flat([20 + shift, 45 + shift], (9, 9, 70)), first=0, last=1, start=0)
    found = np.flatnonzero(label[4, 4] == 1)
    for face in (20 + shift, 45 + shift):
        here = found[np.abs(found - face) < 6]
        assert len(here) in (3, 4)
        assert here.min() - face > FACE_FROM - 1e-3
        assert here.max() - face < FACE_TO


def test_the_census_foretells_the_labels() -> None:
    solid = flat([10.0, 31.0, 52.0, 71.0], (30, 20, 90))
    counts = count_by_depth(solid, start=6)
    for first, last in ((0, 1), (1, 2), (1, 3), (2, 2)):
        label = annotate(solid, first=first, last=last, start=6)
        seen, faces = band_shares(counts, first, last)
        assert seen == pytest.approx(float((label != 2).mean()), abs=1e-9)
        assert faces == pytest.approx(float((label == 1).mean()), abs=1e-9)


def test_the_band_is_about_as_large_as_wanted() -> None:
    counts = count_by_depth(flat([float(x) for x in range(15, 300, 30)], (20, 20, 300)), start=0)
    for seen in (0.2, 0.3, 0.4):
        first, last = choose_band(np.random.default_rng(0), counts, seen)
        assert band_shares(counts, first, last)[0] == pytest.approx(seen, abs=0.1)


def test_annotators_avoid_crowded_sheets() -> None:
    crowded = [float(x) for x in range(20, 140, 12)]
    loose = [float(x) for x in range(160, 300, 30)]
    counts = count_by_depth(flat(crowded + loose, (20, 20, 300)), start=0)
    for seed in range(10):
        band = choose_band(np.random.default_rng(seed), counts, seen=0.2)
        seen, faces = band_shares(counts, *band)
        assert faces / seen < 0.17  # 3 in 12, or 0.25, where they are crowded


def test_labels_are_drawn_alike_from_the_same_seed() -> None:
    solid = flat([float(x) for x in range(15, 300, 30)], (24, 20, 300))
    one, same, other = (draw_label(np.random.default_rng(seed), solid) for seed in (5, 5, 6))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    assert RIM > FACE_TO
