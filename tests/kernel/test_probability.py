import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from surface_kernel.probability import above, logit, probabilities


def test_probability_at_known_points():
    logits = np.array([-1000, -np.log(3), 0, np.log(3), np.log(4), 1000], np.float32)
    found = probabilities(logits)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [0, 0.25, 0.5, 0.75, 0.8, 1], rtol=1e-6)
    assert probabilities(np.empty((0, 3, 3), np.float32)).shape == (0, 3, 3)


@settings(deadline=None)
@given(arrays(np.float32, 20, elements=st.floats(-200, 200, width=32)))
def test_probability_is_read_once(logits):
    found = probabilities(logits)
    assert ((found >= 0) & (found <= 1)).all()
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-logits.astype(np.float64))), atol=1e-6)
    np.testing.assert_allclose(found + probabilities(-logits), 1, atol=1e-6)


@pytest.mark.parametrize(("threshold", "expected"), [(0.5, 0), (0.75, np.log(3)), (0.2, -np.log(4))])
def test_logit_by_hand(threshold, expected):
    assert logit(threshold) == pytest.approx(expected)


@settings(deadline=None)
@given(arrays(np.float32, 20, elements=st.floats(-9, 9, width=32)), st.floats(0.01, 0.99))
def test_above_is_the_probability_above_the_threshold(logits, threshold):
    found = above(logits, threshold)
    assert found.dtype == np.uint8
    exact = 1 / (1 + np.exp(-logits.astype(np.float64)))
    clear = abs(exact - threshold) > 1e-6  # nearer than that float32 cannot tell
    np.testing.assert_array_equal(found[clear], exact[clear] > threshold)


def test_the_threshold_itself_is_not_above():
    logits = np.array([[[-1e-6, 0, 1e-6]]], np.float32)
    np.testing.assert_array_equal(above(logits, 0.5), [[[0, 0, 1]]])
