import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from surface_kernel.postprocess.slit import is_simple, octants, slit
from surface_score import betti
from surface_score.features import find_features

ACROSS_FACES, ACROSS_CORNERS = (ndimage.generate_binary_structure(3, order) for order in (1, 3))


def after(mask, threads=1):
    found = mask.copy()
    slit(found, threads=threads)
    return found


def features(mask):
    """Components, tunnels and cavities of every octant, as the score counts them; empty ones have none."""
    boxes = [np.ascontiguousarray(mask[box]).astype(bool) for box in betti.octants(mask.shape)]
    found = [find_features(box) for box in boxes if box.any()]
    return [each.components for each in found], [(each.tunnels, each.cavities.number) for each in found]


def smooth(shape, seed, share):
    """A mask of blobs with components, tunnels and cavities."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 1.1)
    return (noise > np.quantile(noise, 1 - share)).astype(np.uint8)


shapes = st.tuples(*[st.integers(1, 11)] * 3)
masks = st.one_of(
    arrays(np.uint8, shapes, elements=st.integers(0, 1)),
    st.builds(smooth, st.tuples(*[st.integers(2, 24)] * 3), st.integers(0, 99), st.floats(0.2, 0.8)),
)


@settings(deadline=None, max_examples=150)
@given(masks)
def test_components_stay_and_there_are_no_tunnels_and_no_cavities_by_the_scores_own_count(mask):
    found = after(mask)
    assert (found <= mask).all()
    components, others = features(found)
    assert components == features(mask)[0]
    assert set(others) <= {(0, 0)}


@settings(deadline=None, max_examples=60)
@given(masks)
def test_threads_change_nothing_and_a_second_time_neither(mask):
    found = after(mask)
    np.testing.assert_array_equal(after(mask, threads=3), found)
    assert features(after(found)) == features(found)


@given(st.tuples(*[st.integers(1, 9)] * 3))
def test_the_octants_are_those_of_the_score(shape):
    assert octants(shape) == betti.octants(shape)


def simple_by_definition(around):
    box = np.array([around >> bit & 1 for bit in range(27)], bool).reshape(3, 3, 3)
    distance = np.abs(np.indices((3, 3, 3)) - 1).sum(axis=0)
    solid = ndimage.label(box & (distance < 3) & (distance > 0), ACROSS_FACES)[0]
    background = ndimage.label(~box & (distance > 0), ACROSS_CORNERS)[1]
    return len(set(solid[(distance == 1) & (solid > 0)])) == 1 and background == 1


@settings(deadline=None, max_examples=400)
@given(st.integers(0, (1 << 27) - 1))
def test_simple_points_are_those_of_the_definition(around):
    around &= ~(1 << 13)
    assert is_simple(around) == simple_by_definition(around)


@pytest.mark.slow
def test_simple_points_change_no_count():
    """Added or not, a voxel's neighbourhood has the same features if and only if it is simple: 20,000 at random."""
    rng = np.random.default_rng(5)
    for share in rng.uniform(0.1, 0.9, 20_000):
        box = rng.random((3, 3, 3)) < share
        box[1, 1, 1] = False
        around = int(sum(1 << int(bit) for bit in np.flatnonzero(box)))
        assert is_simple(around) == simple_by_definition(around)
        if is_simple(around):
            added = box.copy()
            added[1, 1, 1] = True
            before, now = (find_features(np.pad(each, 1)) for each in (box, added))
            assert before.counts == now.counts


def ring():
    """A square ring of 2 voxels' thickness in the first octant, 3 deep, and its weakest place."""
    mask = np.zeros((20, 24, 24), np.uint8)
    mask[3:6, 1:11, 1:11] = 1
    mask[3:6, 3:9, 3:9] = 0
    return mask


def test_a_ring_is_cut_by_a_wall_one_voxel_thin():
    mask = ring()
    found = after(mask)
    gone = np.argwhere(mask > found)
    assert features(found) == ([1], [(0, 0)])
    assert 3 * 2 <= len(gone) <= 3 * 4  # across the ring's 3 × 2 voxels, perhaps aslant
    assert found.sum() == mask.sum() - len(gone)


def test_a_cavity_is_opened_to_the_outside():
    mask = np.zeros((20, 20, 20), np.uint8)
    mask[1:8, 1:8, 1:8] = 1
    mask[3:6, 3:6, 3:6] = 0
    found = after(mask)
    assert features(found) == ([1], [(0, 0)])
    assert 0 < mask.sum() - found.sum() <= 9


def test_a_mask_without_tunnels_stays_as_it_is():
    mask = np.zeros((16, 16, 16), np.uint8)
    mask[:, 5:8] = 1
    mask[2:4, 12:15, 3:9] = 1
    np.testing.assert_array_equal(after(mask), mask)
    assert not after(mask * 0).any()


def test_a_tunnel_between_octants_is_none():
    """The ring lies across the cut: each half of it is an arch."""
    mask = np.zeros((20, 24, 24), np.uint8)
    mask[3:6, 7:17, 1:11] = 1
    mask[3:6, 9:15, 3:9] = 0
    np.testing.assert_array_equal(after(mask), mask)


def test_in_a_memory_map(tmp_path):
    np.save(tmp_path / "mask.npy", ring())
    mapped = np.load(tmp_path / "mask.npy", mmap_mode="r+")
    slit(mapped)
    mapped.flush()
    np.testing.assert_array_equal(np.load(tmp_path / "mask.npy"), after(ring()))
