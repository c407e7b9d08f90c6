import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surface_train.data.augment import box_shape, nearest, resample, turn, vary_grey
from surface_train.data.draws import Draws, Stream
from surface_train.settings import Augment

OFF = Augment.none()
EVERYTHING = Augment(blur=1, low_resolution=1, cut_outs=1)
GREY = ("blur", "low_resolution", "grey", "gamma", "noise", "cut_outs")
seeds = st.integers(0, 2**32)
shapes = st.sampled_from([(6, 6, 6), (4, 6, 8), (6, 6, 4), (5, 4, 5)])


def world(shape: tuple[int, int, int] = (6, 6, 6)) -> np.ndarray:
    """Labels without any symmetry."""
    return np.random.default_rng(0).integers(0, 3, shape).astype(np.uint8)


def ct(shape: tuple[int, int, int] = (24, 24, 24), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.3, 1.2, shape).astype(np.float32)


def only(name: str, value: float) -> Augment:
    return replace(OFF, **{name: value})


def varied(chosen: Augment, seed: int, image: np.ndarray | None = None) -> np.ndarray:
    return vary_grey(ct() if image is None else image, chosen, Draws(0, seed))


# --- turns and flips


@given(seeds, shapes, st.booleans(), st.booleans())
@settings(max_examples=60)
def test_the_label_goes_where_its_image_goes(seed, shape, flips, turns) -> None:
    label = world(shape)
    image = label + np.uint8(7)
    chosen = replace(OFF, flips=flips, turns=turns)
    turned = [turn(part, shape, augment=chosen, draws=Draws(0, seed)) for part in (image, label)]
    np.testing.assert_array_equal(turned[0], turned[1] + 7)
    assert turned[1].shape == shape
    assert turned[1].flags.c_contiguous
    np.testing.assert_array_equal(np.sort(turned[1], None), np.sort(label, None))


def test_flips_reach_all_eight_mirror_images() -> None:
    label = world((4, 6, 8))
    found = {
        turn(label, label.shape, augment=replace(OFF, flips=True), draws=Draws(0, n)).tobytes() for n in range(100)
    }
    axes = [(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
    assert found == {np.flip(label, which).tobytes() for which in axes}


@pytest.mark.parametrize(
    ("shape", "count", "planes"),
    [
        ((6, 6, 6), 24, {(0, 1): 1, (0, 2): 1, (1, 2): 1}),
        ((6, 6, 4), 8, {(0, 1): 1, (0, 2): 2, (1, 2): 2}),
        ((4, 6, 4), 8, {(0, 1): 2, (0, 2): 1, (1, 2): 2}),
        ((4, 6, 8), 4, {(0, 1): 2, (0, 2): 2, (1, 2): 2}),
    ],
)
def test_turns_are_all_rotations_that_keep_the_shape_and_no_mirror_image(shape, count, planes) -> None:
    """The wanted ones are made by turning again and again: a quarter in planes of equal sides, a half in others."""
    label = world(shape)
    wanted = {label.tobytes()}
    while True:
        arrays = [np.frombuffer(found, np.uint8).reshape(shape) for found in wanted]
        more = {np.rot90(one, quarters, plane).tobytes() for one in arrays for plane, quarters in planes.items()}
        if more <= wanted:
            break
        wanted |= more
    assert len(wanted) == count
    found = {turn(label, shape, augment=replace(OFF, turns=True), draws=Draws(0, n)).tobytes() for n in range(200)}
    assert found == wanted


def test_a_box_is_turned_as_the_patch_that_it_becomes() -> None:
    """Scaled, two uneven sides may happen to be equal; a quarter turn would still be wrong."""
    shape, label = (4, 5, 4), world((4, 4, 4))
    for number in range(40):
        found = turn(label, shape, augment=replace(OFF, turns=True), draws=Draws(0, number))
        assert any(
            np.array_equal(found, np.rot90(np.rot90(np.rot90(label, 2 * a, (0, 1)), b, (0, 2)), 2 * c, (1, 2)))
            for a, b, c in itertools.product(range(2), range(4), range(2))
        )


# --- scale


def test_boxes_are_as_much_larger_as_smaller_and_keep_to_their_limit() -> None:
    sizes = np.array([box_shape((120, 60, 30), only("scale", 0.25), Draws(0, n)) for n in range(400)])
    assert sizes[:, 0].min() >= 96  # 120 / 1.25
    assert sizes[:, 0].min() <= 98
    assert 148 <= sizes[:, 0].max() <= 150  # 120 · 1.25
    assert abs((sizes[:, 0] < 120).mean() - 0.5) < 0.08
    assert (np.abs(sizes[:, 0] - 2 * sizes[:, 1]) <= 2).all()  # one factor for all axes
    assert (np.abs(sizes[:, 0] - 4 * sizes[:, 2]) <= 4).all()
    assert box_shape((120, 60, 30), OFF, Draws(0, 5)) == (120, 60, 30)
    assert box_shape((1, 1, 1), only("scale", 0.9), Draws(0, 1)) >= (1, 1, 1)


def test_resampling_by_hand() -> None:
    image = np.array([0, 4, 8, 12], np.float32).reshape(1, 1, 4)
    # Two voxels of four: their middles lie on the borders between old voxels 0 | 1 and 2 | 3.
    np.testing.assert_array_equal(resample(image, (1, 1, 2)).ravel(), [2, 10])
    # Eight of four: middles at −0.25, 0.25, 0.75 … old voxels; beyond the last middles the ends go on.
    np.testing.assert_allclose(resample(image, (1, 1, 8)).ravel(), [0, 1, 3, 5, 7, 9, 11, 12])
    labels = np.array([0, 1, 2, 0], np.uint8).reshape(1, 4, 1)
    np.testing.assert_array_equal(nearest(labels, (1, 8, 1)).ravel(), [0, 0, 1, 1, 2, 2, 0, 0])
    np.testing.assert_array_equal(nearest(labels, (1, 3, 1)).ravel(), [0, 2, 0])  # middles at 0.67, 2 and 3.33


@given(st.tuples(*[st.integers(1, 12)] * 3), st.tuples(*[st.integers(1, 12)] * 3), seeds)
@settings(max_examples=80)
def test_resampling_keeps_planes_values_and_shapes(old, new, seed) -> None:
    rng = np.random.default_rng(seed)
    image = rng.normal(size=old).astype(np.float32)
    found = resample(image, new)
    assert found.shape == new
    assert found.dtype == np.float32
    assert image.min() - 1e-5 <= found.min() <= found.max() <= image.max() + 1e-5
    np.testing.assert_array_equal(resample(image, old), image)
    label = rng.integers(0, 3, old).astype(np.uint8)
    assert set(np.unique(nearest(label, new))) <= set(np.unique(label))
    # A slope stays a slope: at every inner voxel the value is the place of its middle in the old volume.
    z = np.broadcast_to(np.arange(old[0], dtype=np.float32)[:, None, None], old)
    middles = ((np.arange(new[0]) + 0.5) * old[0] / new[0] - 0.5).clip(0, old[0] - 1)
    np.testing.assert_allclose(resample(z, new)[:, 0, 0], middles, atol=1e-4)


@pytest.mark.parametrize("size", [27, 29, 31, 33, 38, 40, 48])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_sheet_stays_a_sheet_where_its_image_is(size: int, axis: int) -> None:
    """From a box of so many voxels to a patch of 32: 1/1.2 to 1.5 as large."""
    for start in range(4, size - 7):
        label = np.zeros((size,) * 3, np.uint8)
        np.moveaxis(label, axis, 0)[start : start + 3] = 1
        shape = (32, 32, 32)
        found = np.moveaxis(nearest(label, shape), axis, 0)
        assert (found == found[:, :1, :1]).all()
        (rows,) = np.nonzero(found[:, 0, 0])
        factor = 32 / size
        assert abs(len(rows) - 3 * factor) < 1
        assert abs(rows.mean() + 0.5 - (start + 1.5) * factor) <= 0.5
        image = np.moveaxis(resample(label.astype(np.float32), shape), axis, 0)[:, 0, 0]
        weight = (image * (np.arange(32) + 0.5)).sum() / image.sum()
        assert abs(weight - (start + 1.5) * factor) <= 0.5
        # Where the image is surely sheet or surely not, the label says the same.
        assert (found[:, 0, 0][image > 0.5 + 1e-6] == 1).all()
        assert (found[:, 0, 0][image < 0.5 - 1e-6] == 0).all()


# --- grey values


def test_with_everything_off_nothing_changes() -> None:
    label = world()
    for number in range(20):
        draws = Draws(3, number)
        np.testing.assert_array_equal(varied(OFF, number), ct())
        np.testing.assert_array_equal(turn(label, label.shape, augment=OFF, draws=draws), label)
        assert box_shape((6, 7, 8), OFF, draws) == (6, 7, 8)


def test_the_image_that_is_given_stays_as_it_is() -> None:
    image = ct()
    for number in range(5):
        vary_grey(image, EVERYTHING, Draws(0, number))
    np.testing.assert_array_equal(image, ct())


def test_the_same_draws_give_the_same_image() -> None:
    np.testing.assert_array_equal(varied(EVERYTHING, 5), varied(EVERYTHING, 5))
    assert varied(EVERYTHING, 5).dtype == np.float32
    assert not np.array_equal(varied(EVERYTHING, 5), varied(EVERYTHING, 6))
    assert not np.array_equal(varied(EVERYTHING, 5), vary_grey(ct(), EVERYTHING, Draws(1, 5)))


def test_every_variation_draws_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Stream] = []
    real = Draws.of
    monkeypatch.setattr(Draws, "of", lambda draws, stream: asked.append(stream) or real(draws, stream))
    vary_grey(ct(), EVERYTHING, Draws(0, 0))
    turn(world(), (6, 6, 6), augment=EVERYTHING, draws=Draws(0, 0))
    box_shape((6, 6, 6), EVERYTHING, Draws(0, 0))
    assert sorted(asked) == sorted(set(Stream) - {Stream.PLACE})


@pytest.mark.parametrize("name", GREY)
def test_switching_one_variation_off_leaves_the_others_as_they_were(name: str) -> None:
    """All but one are as if that one had never been: each is applied alone, in order, to what the ones before left."""
    draws, image = Draws(0, 4), ct()
    for other in GREY:
        if other != name:
            image = vary_grey(image, only(other, getattr(EVERYTHING, other)), draws)
    np.testing.assert_array_equal(vary_grey(ct(), replace(EVERYTHING, **{name: 0}), draws), image)
    assert not np.array_equal(vary_grey(ct(), EVERYTHING, draws), image)


def test_grey_values_change_by_one_line_within_its_limits() -> None:
    image, factors, shifts = ct((8, 8, 8)), [], []
    for number in range(200):
        found = varied(only("grey", 0.25), number, image)
        factor, shift = np.polyfit(image.reshape(-1), found.reshape(-1), 1)
        np.testing.assert_allclose(found, image * factor + shift, atol=1e-5)
        factors.append(factor)
        shifts.append(shift)
    assert 0.75 <= min(factors) < 0.8 < 1.2 < max(factors) <= 1.25
    assert -0.25 <= min(shifts) < -0.2 < 0.2 < max(shifts) <= 0.25


def test_gamma_keeps_mean_and_deviation_and_the_order_of_grey_values() -> None:
    image = ct()
    order, bends = np.argsort(image, None), []
    for number in range(60):
        found = varied(only("gamma", 0.5), number, image)
        assert found.mean(dtype=np.float64) == pytest.approx(image.mean(dtype=np.float64), abs=1e-5)
        assert found.std(dtype=np.float64) == pytest.approx(image.std(dtype=np.float64), rel=1e-5)
        assert (np.diff(found.reshape(-1)[order]) >= 0).all()
        # The exponent is what bends the line from darkest to brightest.
        low, high = found.min(), found.max()
        place = (found - low)[image > 0] / (high - low)
        plain = (image - image.min())[image > 0] / (image.max() - image.min())
        bends.append(np.median(np.log(place[plain < 0.99]) / np.log(plain[plain < 0.99])))
    assert math.exp(-0.5) - 0.01 <= min(bends) < 0.75
    assert 1.4 < max(bends) <= math.exp(0.5) + 0.01
    assert abs(np.mean(np.log(bends))) < 0.12


def test_gamma_leaves_an_even_image_alone() -> None:
    even = np.full((4, 4, 4), 0.7, np.float32)
    np.testing.assert_array_equal(varied(only("gamma", 0.5), 0, even), even)


def test_noise_has_at_most_its_standard_deviation() -> None:
    image = ct((16, 16, 16))
    spreads = [(varied(only("noise", 0.2), number, image) - image).std() for number in range(60)]
    assert min(spreads) < 0.03
    assert 0.17 < max(spreads) < 0.21


@pytest.mark.parametrize("name", ["blur", "low_resolution", "cut_outs"])
def test_shares_are_the_ones_asked_for(name: str) -> None:
    image = ct((12, 12, 12))
    for share in (0.3, 1):
        changed = [not np.array_equal(varied(only(name, share), number, image), image) for number in range(200)]
        assert np.mean(changed) == pytest.approx(share, abs=0.1)


def test_blur_spreads_a_point_by_half_to_one_and_a_half_voxels() -> None:
    point = np.zeros((15, 15, 15), np.float32)
    point[7, 7, 7] = 1
    sigmas = []
    for number in range(60):
        found = varied(only("blur", 1), number, point)
        assert found.sum() == pytest.approx(1, abs=1e-3)
        for other in (1, 2):
            np.testing.assert_allclose(found, np.swapaxes(found, 0, other), atol=1e-6)
        sigmas.append(np.sqrt((found.sum((1, 2)) * (np.arange(15) - 7) ** 2).sum()))
    assert 0.45 <= min(sigmas) < 0.6
    assert 1.35 < max(sigmas) <= 1.5


def test_low_resolution_loses_detail_and_moves_nothing() -> None:
    slope = np.broadcast_to(np.arange(20, dtype=np.float32)[:, None, None], (20, 22, 24))
    image = ct((20, 22, 24))
    lost = []
    for number in range(40):
        found = varied(only("low_resolution", 1), number, slope)
        assert np.abs(found - slope)[1:-1].max() < 1e-4  # coarse voxels are seen where they are
        assert np.abs(found - slope).max() <= 0.5 + 1e-4  # beyond the outer one's middle nothing is known
        coarse = varied(only("low_resolution", 1), number, image)
        lost.append(1 - np.abs(np.diff(coarse, axis=2)).mean() / np.abs(np.diff(image, axis=2)).mean())
    assert min(lost) >= 0
    assert max(lost) > 0.4


def test_cut_outs_are_a_few_boxes_of_the_mean() -> None:
    image, counts = ct((12, 18, 30)), []
    for number in range(80):
        found = varied(only("cut_outs", 1), number, image)
        gone = found != image
        np.testing.assert_allclose(found[gone], image.mean(), rtol=1e-5)
        counts.append(gone.sum())
    assert max(counts) <= 3 * 4 * 6 * 10  # three boxes of a third of each axis
    assert max(counts) > 4 * 6 * 10  # more than one
    assert min(counts) >= 1


def test_one_voxel_can_be_varied() -> None:
    for number in range(10):
        assert varied(EVERYTHING, number, np.ones((1, 1, 1), np.float32)).shape == (1, 1, 1)
