import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scenes import TWO_GREYS_LOGITS, two_greys

from surface_kernel.volumes.intensity import Intensity, IntensityError


def test_a_table_by_hand():
    table = Intensity().table(two_greys())
    assert table.dtype == np.float32
    assert table.shape == (256,)
    for grey, expected in TWO_GREYS_LOGITS.items():
        assert table[grey] == expected
    assert table[100] == 0
    assert table[110] == 0.5
    assert table[255] == 5  # (255 - 100) / 20 = 7.75, clipped


def test_the_margins_share_does_not_matter():
    wide = np.concatenate([two_greys(), np.zeros((50, 6, 8), np.uint8)])
    np.testing.assert_array_equal(Intensity().table(wide), Intensity().table(two_greys()))


def test_the_limit_clips_both_ends():
    table = Intensity(limit=0.75).table(two_greys())
    assert (table.min(), table.max()) == (-0.75, 0.75)
    assert table[110] == 0.5


@pytest.mark.parametrize("grey", [1, 77, 255])
def test_a_constant_volume_is_mapped_to_zero(grey):
    table = Intensity().table(np.full((2, 3, 4), grey, np.uint8))
    assert table[grey] == 0
    assert np.isfinite(table).all()


def test_a_volume_of_zeros_is_mapped_to_zero():
    np.testing.assert_array_equal(Intensity().table(np.zeros((2, 3, 4), np.uint8)), np.zeros(256, np.float32))


@settings(deadline=None)
@given(arrays(np.uint8, array_shapes(min_dims=3, max_dims=3, max_side=6), elements=st.integers(0, 255)))
def test_a_table_is_the_plain_formula(volume):
    scanned = volume[volume > 0].astype(np.float64)
    table = Intensity(limit=1e9).table(volume)
    if scanned.size:
        expected = (np.arange(256) - scanned.mean()) / max(scanned.std(), 1)
        np.testing.assert_allclose(table, expected, rtol=1e-5, atol=1e-5)
    assert (np.diff(Intensity().table(volume)) >= 0).all()


def test_a_mapping_comes_back():
    assert Intensity.from_mapping(Intensity(limit=3.0).to_mapping()) == Intensity(limit=3.0)
    assert Intensity.from_mapping({}) == Intensity()


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"kind": "minmax"}, 'intensity.kind: expected "standardised", got "minmax"'),
        ({"limit": 0}, "intensity.limit: expected a number > 0, got 0"),
        ({"limit": -1.0}, "got -1.0"),
        ({"limit": float("nan")}, "got nan"),
        ({"limit": "5"}, "intensity.limit: expected a number > 0, got '5'"),
        ({"limit": True}, "got True"),
        ({"mean": 3}, r"intensity: expected kind and limit, got \['mean'\]"),
    ],
)
def test_what_is_not_known_is_refused(entries, message):
    with pytest.raises(IntensityError, match=message):
        Intensity.from_mapping(entries)
