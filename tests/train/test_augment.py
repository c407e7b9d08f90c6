from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surface_train.augment import vary
from surface_train.settings import Augment

OFF = Augment(flips=False, turns=False, grey=0, noise=0)
PLACES = replace(OFF, flips=True, turns=True)


def world(shape: tuple[int, int, int] = (6, 6, 6), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """An image that is its label."""
    label = np.random.default_rng(seed).integers(0, 3, shape).astype(np.uint8)
    return label.astype(np.float32), label


def varied(augment: Augment, seed: int, shape: tuple[int, int, int] = (6, 6, 6)) -> tuple[np.ndarray, np.ndarray]:
    return vary(*world(shape), augment, np.random.default_rng(seed))


@given(st.integers(0, 2**32))
@settings(max_examples=50)
def test_the_label_goes_where_its_image_goes(seed) -> None:
    image, label = varied(PLACES, seed)
    np.testing.assert_array_equal(image, label)
    assert (image.dtype, label.dtype) == (np.float32, np.uint8)
    assert image.flags.c_contiguous
    assert label.flags.c_contiguous


@given(st.integers(0, 2**32), st.sampled_from([(6, 6, 6), (4, 6, 8), (6, 6, 4)]))
@settings(max_examples=50)
def test_no_label_is_made_or_lost(seed, shape) -> None:
    _, label = varied(Augment(), seed, shape)
    assert label.shape == shape
    np.testing.assert_array_equal(np.bincount(label.reshape(-1)), np.bincount(world(shape)[1].reshape(-1)))


def test_with_everything_off_nothing_changes() -> None:
    for seed in range(20):
        image, label = varied(OFF, seed)
        np.testing.assert_array_equal(image, world()[0])
        np.testing.assert_array_equal(label, world()[1])


def test_the_same_draws_give_the_same_patch() -> None:
    np.testing.assert_array_equal(varied(Augment(), 5)[0], varied(Augment(), 5)[0])
    assert not np.array_equal(varied(Augment(), 5)[0], varied(Augment(), 6)[0])


def test_flips_reach_all_eight_mirror_images() -> None:
    found = {varied(replace(OFF, flips=True), seed)[1].tobytes() for seed in range(100)}
    label = world()[1]
    wanted = {np.flip(label, axes).tobytes() for axes in [(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]}
    assert found == wanted


def test_turns_are_quarter_turns_in_every_plane_and_no_mirror_images() -> None:
    found = {varied(replace(OFF, turns=True), seed)[1].tobytes() for seed in range(200)}
    label = world()[1]
    planes = [(0, 1), (0, 2), (1, 2)]
    assert found == {np.rot90(label, turns, plane).tobytes() for plane in planes for turns in range(4)}


@pytest.mark.parametrize("shape", [(4, 6, 8), (6, 6, 4)])
def test_a_patch_that_is_no_cube_is_never_turned(shape) -> None:
    for seed in range(50):
        np.testing.assert_array_equal(varied(replace(OFF, turns=True), seed, shape)[1], world(shape)[1])


def test_grey_values_change_by_one_line_within_its_limits() -> None:
    factors, shifts = [], []
    image, label = world()
    for seed in range(200):
        found, same = varied(replace(OFF, grey=0.25), seed)
        np.testing.assert_array_equal(same, label)
        factor, shift = np.polyfit(image.reshape(-1), found.reshape(-1), 1)
        np.testing.assert_allclose(found, image * factor + shift, atol=1e-5)
        factors.append(factor)
        shifts.append(shift)
    assert 0.75 <= min(factors) < 0.8 < 1.2 < max(factors) <= 1.25
    assert -0.25 <= min(shifts) < -0.2 < 0.2 < max(shifts) <= 0.25


def test_noise_has_at_most_its_standard_deviation() -> None:
    image, _ = world((16, 16, 16))
    spreads = [(varied(replace(OFF, noise=0.2), seed, (16, 16, 16))[0] - image).std() for seed in range(60)]
    assert min(spreads) < 0.03
    assert 0.17 < max(spreads) < 0.21


def test_switching_one_variation_off_leaves_the_others_as_they_were() -> None:
    for seed in range(20):
        np.testing.assert_array_equal(varied(Augment(), seed)[1], varied(PLACES, seed)[1])
        np.testing.assert_array_equal(varied(replace(Augment(), noise=0), seed)[1], varied(PLACES, seed)[1])
        plain = varied(replace(OFF, grey=0.25), seed)[0]
        np.testing.assert_array_equal(np.sort(plain, None), np.sort(varied(replace(Augment(), noise=0), seed)[0], None))
