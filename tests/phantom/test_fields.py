import numpy as np
import pytest

from surface_phantom.fields import periodic, smooth, std_after_blur


def test_smooth_keeps_mean_and_spread_whatever_the_blur() -> None:
    for sigma in (0.0, 0.5, 1.0, 3.0):
        field = smooth(np.random.default_rng(0), (64, 64, 64), (sigma,) * 3)
        assert field.shape == (64, 64, 64)
        assert field.dtype == np.float32
        assert abs(float(field.mean())) < 0.15
        assert float(field.std()) == pytest.approx(1.0, abs=0.12)


def test_smooth_changes_over_its_sigma() -> None:
    field = smooth(np.random.default_rng(1), (400, 400), (0.0, 5.0))
    along = float((field[:, :-5] * field[:, 5:]).mean())
    across = float((field[:-1] * field[1:]).mean())
    # White noise blurred by sigma correlates as exp(-lag² / (4 sigma²)): exp(-1/4) at one sigma.
    assert along == pytest.approx(np.exp(-0.25), abs=0.05)
    assert abs(across) < 0.05


def test_smooth_has_no_edge_effect() -> None:
    rng = np.random.default_rng(2)
    fields = np.stack([smooth(rng, (24,), (4.0,)) for _ in range(2000)])
    assert fields.std(axis=0) == pytest.approx(np.ones(24), abs=0.08)


def test_smooth_wants_one_sigma_an_axis() -> None:
    with pytest.raises(ValueError, match="expected one sigma per axis, got 2 for 3 axes"):
        smooth(np.random.default_rng(0), (4, 4, 4), (1.0, 1.0))


def test_periodic_continues_across_its_faces() -> None:
    field = periodic(np.random.default_rng(3), (40, 60), (2.0, 6.0))
    inside = float(np.abs(np.diff(field, axis=1)).mean())
    seam = float(np.abs(field[:, 0] - field[:, -1]).mean())
    assert seam < 2 * inside
    assert float(field.std()) == pytest.approx(1.0, abs=0.2)


def test_std_after_blur_of_no_blur_is_one() -> None:
    assert std_after_blur((0.0, 0.0)) == 1.0
    # A wide Gaussian leaves 1 / sqrt(2 sigma sqrt(pi)) an axis.
    assert std_after_blur((5.0,)) == pytest.approx((2 * 5.0 * np.sqrt(np.pi)) ** -0.5, rel=0.01)
