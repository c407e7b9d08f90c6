from types import SimpleNamespace

import numba
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scenes import TWO_GREYS_LOGITS, noise, two_greys
from torch import nn

from surface_kernel import predict
from surface_kernel.device import Device
from surface_kernel.intensity import Intensity
from surface_kernel.predict import Member, PredictionError, slabs
from surface_kernel.tiles import Grid

CPU = Device("cpu", "float32", batch=2, threads=1)
IDENTITY = Member(nn.Identity(), Intensity())
ALL_VIEWS = ("none", "z", "y", "x", "zy", "zx", "yx", "zyx")


class Network(nn.Module):
    """Does to a batch of tiles what the function does."""

    def __init__(self, function):
        super().__init__()
        self.forward = function


def whole(volume, grid, members=(IDENTITY,), **named):
    return np.concatenate([slab for _, slab in slabs(members, volume, grid, CPU, **named)])


@st.composite
def worlds(draw):
    """A volume of 1 voxel to three tiles an axis."""
    tile_zyx = draw(st.tuples(*[st.integers(1, 9)] * 3))
    shape_zyx = tuple(draw(st.integers(1, 3 * tile)) for tile in tile_zyx)
    return shape_zyx, tile_zyx, draw(st.sampled_from([0, 0.25, 0.5, 0.75])), draw(st.integers(0, 9))


@settings(deadline=None, max_examples=50)
@given(worlds(), st.sampled_from([("none",), ("none", "x", "zy"), ALL_VIEWS]))
@example(((40, 33, 50), (32, 32, 32), 0.5, 0), ("none",))
@example(((1, 1, 1), (32, 32, 32), 0.5, 0), ("none",))
@example(((96, 5, 96), (32, 32, 32), 0.25, 0), ("none",))
def test_an_identity_network_gives_the_volume_back(world, views):
    shape_zyx, tile_zyx, overlap, seed = world
    volume, grid = noise(shape_zyx, seed), Grid(shape_zyx, tile_zyx, overlap)
    found = whole(volume, grid, views=views)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, Intensity().table(volume)[volume], rtol=0, atol=1e-5)
    assert whole(volume, grid, views=views).tobytes() == found.tobytes()


def test_logits_by_hand():
    volume = two_greys()
    found = whole(volume, Grid(volume.shape, (3, 4, 5), 0.5))
    for grey, logit in TWO_GREYS_LOGITS.items():
        np.testing.assert_allclose(found[volume == grey], logit, atol=1e-5)


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="one core")
def test_the_bytes_do_not_depend_on_the_number_of_threads():
    volume, found = noise((17, 12, 19)), set()
    for threads in (1, 2):
        numba.set_num_threads(threads)
        found.add(whole(volume, Grid(volume.shape, (7, 5, 8), 0.5)).tobytes())
    assert len(found) == 1


@pytest.mark.parametrize(
    ("views", "expected"),
    [
        (("none",), [1, -1, -1, -1, 1, 1]),  # every value comes from its left neighbour, around the corner
        (("x",), [-1, -1, 1, 1, 1, -1]),  # seen in a mirror: from its right neighbour
        (("none", "x"), [0, -1, 0, 0, 1, 0]),
        (("none", "y", "z", "x"), [0.5, -1, -0.5, -0.5, 1, 0.5]),  # flips of the other axes change nothing here
    ],
)
def test_views_are_averaged_by_hand(views, expected):
    volume = np.array([80, 80, 80, 120, 120, 120], np.uint8).reshape(1, 1, 6)  # -1 -1 -1 1 1 1
    shifting = Member(Network(lambda tiles: tiles.roll(1, -1)), Intensity())
    found = whole(volume, Grid((1, 1, 6), (1, 1, 6), 0), [shifting], views=views)
    np.testing.assert_allclose(found.ravel(), expected, atol=1e-6)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_view_flips_the_axis_that_it_names(axis):
    volume = noise((3, 4, 5))
    shifting = Member(Network(lambda tiles: tiles.roll(1, 2 + axis)), Intensity())
    found = whole(volume, Grid(volume.shape, volume.shape, 0), [shifting], views=("zyx"[axis],))
    np.testing.assert_array_equal(found, np.roll(Intensity().table(volume)[volume], -1, axis))


def test_members_are_averaged_each_with_its_own_intensity():
    volume = two_greys()
    tripling = Member(Network(lambda tiles: 3 * tiles), Intensity(limit=0.5))  # 3 × ±0.5
    found = whole(volume, Grid(volume.shape, (3, 4, 5), 0.5), [IDENTITY, tripling])
    for grey, logit in {0: (-5 - 1.5) / 2, 80: (-1 - 1.5) / 2, 120: (1 + 1.5) / 2}.items():
        np.testing.assert_allclose(found[volume == grey], logit, atol=1e-5)


def test_the_network_sees_batches_of_one_size_and_zeros_as_padding():
    volume, seen = two_greys((5, 4, 8)), []
    member = Member(Network(lambda tiles: seen.append(tiles.clone()) or tiles), Intensity())
    done = []
    whole(volume, Grid(volume.shape, (8, 4, 4), 0.5), [member], on_tiles=done.append)
    assert [tuple(tiles.shape) for tiles in seen] == [(2, 1, 8, 4, 4)] * 2  # three tiles, and one to fill up
    assert done == [2, 1]
    assert seen[0].dtype == torch.float32
    assert (seen[0][:, :, 5:] == -5).all()  # a padded voxel is what a grey value of 0 is
    assert (seen[1][1] == -5).all()


@settings(deadline=None, max_examples=30)
@given(worlds())
def test_slabs_follow_one_another_and_make_up_the_whole(world):
    shape_zyx, tile_zyx, overlap, seed = world
    grid, done, z = Grid(shape_zyx, tile_zyx, overlap), [], 0
    for start_z, slab in slabs([IDENTITY], noise(shape_zyx, seed), grid, CPU, on_tiles=done.append):
        assert start_z == z
        assert slab.shape[1:] == shape_zyx[1:]
        z += len(slab)
    assert z == shape_zyx[0]
    assert sum(done) == grid.tiles


@pytest.mark.parametrize("depth", [16, 40])
def test_only_the_layers_that_overlap_are_kept(monkeypatch, depth):
    kept = set()
    monkeypatch.setattr(predict, "gather", lambda tiles, *rest: kept.add(tiles.shape) or rest[-1].fill(0))
    whole(noise((depth, 8, 8)), Grid((depth, 8, 8), (8, 8, 8), 0.5))
    assert kept == {(2, 1, 1, 8, 8, 8)}  # at half overlap two layers lie over a voxel, however deep the volume is


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_no_numbers_are_refused(bad):
    def spoil(tiles):
        spoilt = tiles.clone()
        spoilt[0, 0, 0, 0, 0] = bad
        return spoilt

    volume = noise((9, 5, 5))
    with pytest.raises(PredictionError, match="found logits that are not finite from z = 0"):
        whole(volume, Grid(volume.shape, (4, 4, 4), 0.5), [Member(Network(spoil), Intensity())])


def test_a_volume_of_another_shape_than_the_grid_is_refused():
    with pytest.raises(ValueError, match=r"found a volume of \(4, 4, 5\), wanted the grid's \(4, 4, 4\)"):
        whole(noise((4, 4, 5)), Grid((4, 4, 4), (4, 4, 4), 0.5))


def test_an_empty_volume_is_refused():
    with pytest.raises(ValueError, match="wanted at least one voxel an axis"):
        whole(np.zeros((0, 4, 4), np.uint8), Grid((0, 4, 4), (4, 4, 4), 0.5))


def test_the_network_runs_in_the_device_precision_and_logits_are_float32():
    seen = []
    network = nn.Sequential(nn.Conv3d(1, 1, 1), Network(lambda tiles: seen.append(tiles.dtype) or tiles))
    device = Device("cpu", "bfloat16", batch=1, threads=1)
    ((_, slab),) = slabs([Member(network, Intensity())], noise((4, 4, 4)), Grid((4, 4, 4), (4, 4, 4), 0), device)
    assert seen == [torch.bfloat16]
    assert slab.dtype == np.float32


def test_no_gradients_are_kept():
    seen = []
    network = nn.Sequential(nn.Conv3d(1, 1, 1), Network(lambda tiles: seen.append(tiles.requires_grad) or tiles))
    whole(noise((4, 4, 4)), Grid((4, 4, 4), (4, 4, 4), 0), [SimpleNamespace(network=network, intensity=Intensity())])
    assert seen == [False]
