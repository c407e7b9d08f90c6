import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from surface_kernel.postprocess.field_steps import hysteresis, smooth
from surface_kernel.postprocess.mask import make_mask
from surface_kernel.postprocess.mask_settings import MaskSettings
from surface_kernel.postprocess.steps import Hysteresis, Smooth, Threshold
from surface_kernel.probability import above
from surface_kernel.volumes.scanned import scanned_bits

fields = arrays(np.float32, st.tuples(*[st.integers(1, 8)] * 3), elements=st.floats(-5, 5, width=32))


@settings(deadline=None, max_examples=100)
@given(fields)
def test_hysteresis_keeps_whole_pieces_that_are_sure_somewhere(field):
    parts, count = ndimage.label(above(field, 0.3), ndimage.generate_binary_structure(3, 3))
    sure = [part for part in range(1, count + 1) if above(field, 0.7)[parts == part].any()]
    np.testing.assert_array_equal(hysteresis(field, 0.3, 0.7), np.isin(parts, sure))


@settings(deadline=None, max_examples=60)
@given(fields, st.permutations(range(3)), st.tuples(*[st.sampled_from([1, -1])] * 3))
def test_they_have_the_48_symmetries(field, axes, signs):
    flips = tuple(slice(None, None, sign) for sign in signs)
    turned = np.ascontiguousarray(field.transpose(axes)[flips])
    np.testing.assert_array_equal(hysteresis(turned, 0.3, 0.7), hysteresis(field, 0.3, 0.7).transpose(axes)[flips])
    expected = smooth(field, 1.0).transpose(axes)[flips]
    np.testing.assert_allclose(smooth(turned, 1.0), expected, atol=1e-5)


def test_a_uniform_field_stays_and_a_bright_voxel_is_spread():
    np.testing.assert_allclose(smooth(np.full((5, 6, 7), 3, np.float32), 1.5), 3, rtol=1e-6)
    field = np.zeros((9, 9, 9), np.float32)
    field[4, 4, 4] = 8
    found = smooth(field, 1.0)
    assert found.dtype == np.float32
    assert found.sum() == pytest.approx(8, rel=1e-5)
    assert found[4, 4, 4] == pytest.approx(8 * 0.0635, rel=0.02)  # (2π)^-3/2


def test_in_a_chain_by_hand():
    """Two rows of a plane: one sure in the middle, one never; and a field that is smoothed below its threshold."""
    field = np.full((3, 7, 7), -4, np.float32)
    field[1, 1], field[1, 5] = 0.5, 0.5
    field[1, 1, 3] = 3
    found = make_mask(field, None, MaskSettings(steps=(Hysteresis(low=0.5, high=0.9),)))
    assert found[1, 1].all()
    assert found.sum() == 7
    smoothed = MaskSettings(steps=(Smooth(sigma=1.0), Threshold(threshold=0.5)))
    assert not make_mask(field, None, smoothed).any()


def test_unscanned_voxels_are_background_before_anything_looks_at_its_neighbours():
    """A sheet of low confidence hangs on a sure voxel that was not scanned: it is gone with it."""
    volume, field = np.full((12, 12, 12), 9, np.uint8), np.full((12, 12, 12), -4, np.float32)
    volume[:6] = 0
    field[:, 4] = 0.5
    field[2, 4, 4] = 3
    before = field.copy()
    chain = MaskSettings(steps=(Hysteresis(low=0.5, high=0.9),))
    assert not make_mask(field, scanned_bits(volume), chain).any()
    assert make_mask(field, None, chain).sum() == 12 * 12
    off = MaskSettings(steps=chain.steps, clear_unscanned=False)
    assert make_mask(field, scanned_bits(volume), off).sum() == 12 * 12
    np.testing.assert_array_equal(field, before)
