from dataclasses import replace

import numpy as np
import pytest

from surface_phantom import LOOKS
from surface_phantom.optics import add_specks, blur, make_noise, rings, scan, slow

LOOK = LOOKS[0]


def test_an_edge_is_blurred_and_overshoots() -> None:
    density = np.zeros((20, 20, 60), np.float32)
    density[:, :, 30:] = 1
    row = blur(density, LOOK)[10, 10]
    assert row[5] == pytest.approx(0.0, abs=1e-3)
    assert row[55] == pytest.approx(1.0, abs=1e-3)
    assert 0.05 < row[29] < 0.5 < row[30] < 0.95  # soft,
    assert row.min() < -0.05  # dark outside
    assert row.max() > 1.05  # and bright inside


def test_noise_has_its_spread_and_its_grain() -> None:
    grey = np.zeros((64, 64, 64), np.float32)
    make_noise(np.random.default_rng(0), grey, replace(LOOK, noise_grain=1.0))
    assert float(grey.std()) == pytest.approx(1.0, rel=0.03)
    near = float(np.corrcoef(grey[..., 1:].ravel(), grey[..., :-1].ravel())[0, 1])
    far = float(np.corrcoef(grey[..., 6:].ravel(), grey[..., :-6].ravel())[0, 1])
    assert near == pytest.approx(np.exp(-0.25), abs=0.06)
    assert abs(far) < 0.06


def test_rings_are_rings() -> None:
    grey = np.stack(list(rings(np.random.default_rng(1), (40, 64, 64))))
    assert float(grey.std()) == pytest.approx(1.0, abs=0.4)
    # Constant along the circle, so few values a slice, and much the same in the next one.
    assert len(np.unique(grey[0])) < 150
    assert float(np.corrcoef(grey[0].ravel(), grey[1].ravel())[0, 1]) > 0.9
    assert abs(float(np.corrcoef(grey[0].ravel(), grey[39].ravel())[0, 1])) < 0.6


def test_specks_lie_on_papyrus_only() -> None:
    density = np.zeros((40, 40, 60), np.float32)
    density[:, :, 30:] = 1
    before = density.copy()
    add_specks(np.random.default_rng(2), density, per_million=400.0)
    changed = np.argwhere(density > before + 0.5)
    assert len(changed) > 10
    assert changed[:, 2].min() > 25
    air = np.zeros((40, 40, 60), np.float32)
    add_specks(np.random.default_rng(2), air, per_million=400.0)
    assert not air.any()


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: str(look.scroll_id))
def test_a_scan_of_air_and_of_papyrus(look) -> None:  # type: ignore[no-untyped-def]
    for density, wanted in ((0.0, look.air), (1.0, look.air + look.contrast)):
        image = scan(np.random.default_rng(3), np.full((64, 64, 64), density, np.float32), replace(look, specks=0))
        assert image.dtype == np.uint8
        assert float(image.mean()) == pytest.approx(wanted, abs=0.12 * look.contrast + 3)
        assert float(image.std()) == pytest.approx(look.noise, abs=0.1 * look.contrast + 2)


def test_slow_fills_any_shape() -> None:
    for shape in ((48, 48, 48), (50, 63, 49)):
        field = np.stack(list(slow(np.random.default_rng(4), shape)))
        assert field.shape == shape
        assert 0.05 < float(field.std()) < 2.0
        assert field.dtype == np.float32
        assert np.abs(np.diff(field, axis=0)).max() < 0.2
