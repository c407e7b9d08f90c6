from threading import Event

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scenes import TWO_GREYS_LOGITS, noise, two_greys
from torch import nn

from surface_kernel.inference import layers, predict
from surface_kernel.inference.forward import Member
from surface_kernel.inference.predict import PredictionError, Predictor, slabs
from surface_kernel.inference.stitch import UNSEEN
from surface_kernel.inference.tiles import Grid
from surface_kernel.inference.views import View
from surface_kernel.networks.device import Device
from surface_kernel.volumes.intensity import Intensity
from surface_kernel.volumes.volume import open_volume

CPU = Device(name="cpu", dtype="float32", batch=2, threads=1)
IDENTITY = Member(nn.Identity(), Intensity())
PLAIN = (0, View())
ALL_VIEWS = ("none", "z", "y", "x", "zy", "zx", "yx", "zyx", "yx90", "zx270", "z+zy90")


class Network(nn.Module):
    """Does to a batch of tiles what the function does."""

    def __init__(self, function):
        super().__init__()
        self.forward = function


def whole(volume, grid, members=(IDENTITY,), **named):
    return np.concatenate([slab for _, slab in slabs(members, volume, grid=grid, device=CPU, **named)])


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
    for start_z, slab in slabs([IDENTITY], noise(shape_zyx, seed), grid=grid, device=CPU, on_tiles=done.append):
        assert start_z == z
        assert slab.shape[1:] == shape_zyx[1:]
        z += len(slab)
    assert z == shape_zyx[0]
    assert sum(done) == grid.tiles


@pytest.mark.parametrize("depth", [16, 40, 80, 160])
@pytest.mark.parametrize("network", [nn.Identity(), Network(lambda tiles: tiles + 0)])
def test_only_the_layers_that_overlap_are_kept_and_one_more(monkeypatch, depth, network):
    """Counts the tiles' logits that anybody holds: at half overlap two layers lie over a voxel."""
    grid, most = Grid((depth, 8, 8), (8, 8, 8), 0.5), []

    class Store(layers.LayerStore):
        def put(self, *given):
            super().put(*given)
            most.append(self.table.held_tiles)

    monkeypatch.setattr(predict, "LayerStore", Store)
    device = Device(name="cpu", dtype="float32", batch=1, threads=1)
    list(slabs([Member(network, Intensity())], noise(grid.shape_zyx), grid=grid, device=device))
    assert len(most) == depth // 4 - 1
    assert max(most) == 3 == grid.kept_bytes // (4 * 8**3)


@pytest.mark.parametrize("network", [nn.Identity(), Network(lambda tiles: tiles + 0)])
def test_buffers_serve_the_next_batch_and_the_next_volume_too(monkeypatch, network):
    grid, made = Grid((40, 9, 9), (8, 8, 8), 0.5), []

    def empty(*shape, **named):
        made.append(shape)
        return allocate(*shape, **named)

    allocate = torch.empty
    monkeypatch.setattr(torch, "empty", empty)
    with Predictor([Member(network, Intensity())], CPU) as predictor:
        for seed in range(4):
            volume = noise(grid.shape_zyx, seed)
            found = np.concatenate([slab for _, slab in predictor.slabs(volume, grid=grid, passes=[PLAIN])])
            np.testing.assert_allclose(found, Intensity().table(volume)[volume], atol=1e-5)
    assert len(made) <= 3 + 2 * 3 * 4 // 2  # being cut, computed and checked; an identity's are its logits too


@settings(deadline=None, max_examples=60)
@given(worlds(), st.integers(1, 9), st.floats(0, 1))
@example(((60, 4, 4), (4, 4, 4), 0.5, 0), 8, 0.5)  # a tile a layer, and batches that would span many
def test_tiles_of_zeros_are_not_run_and_the_others_give_the_volume_back(world, batch, share):
    shape_zyx, tile_zyx, overlap, seed = world
    volume, grid, done, ran = noise(shape_zyx, seed) | 1, Grid(shape_zyx, tile_zyx, overlap), [], []
    rng = np.random.default_rng(seed)
    for axis in range(3):  # some planes, rows and columns of zeros
        volume[(*[slice(None)] * axis, rng.random(shape_zyx[axis]) < share)] = 0
    boxes = [box_of(grid, index) for index in grid.indices() if volume[box_of(grid, index)].any()]
    member = Member(Network(lambda tiles: ran.append(len(tiles)) or tiles), Intensity())
    device = Device(name="cpu", dtype="float32", batch=batch, threads=1)
    found = np.concatenate(
        [slab for _, slab in slabs([member], volume, grid=grid, device=device, on_tiles=done.append)]
    )
    assert sum(done) == grid.tiles
    assert sum(ran) >= len(boxes) >= len(ran)
    seen = np.zeros(shape_zyx, np.bool_)
    for box in boxes:
        seen[box] = True
    np.testing.assert_allclose(found[seen], Intensity().table(volume)[volume][seen], rtol=0, atol=1e-5)
    assert (found[~seen] == UNSEEN).all()


def box_of(grid, index):
    return tuple(slice(start, start + tile) for start, tile in zip(grid.corner(index), grid.tile_zyx, strict=True))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_tile_that_is_not_finite_is_repeated_in_float32(bad):
    volume, grid, calls = noise((9, 5, 5)), Grid((9, 5, 5), (4, 4, 4), 0.5), []

    def spoil(tiles):
        calls.append(len(tiles))
        spoilt = tiles.clone()
        if len(calls) in (2, 5):
            spoilt[1, 0, 3, 0, 2] = bad
        return spoilt

    member = Member(Network(spoil), Intensity(), nn.Identity())
    with Predictor([member], CPU) as predictor:
        found = np.concatenate([slab for _, slab in predictor.slabs(volume, grid=grid, passes=[PLAIN])])
        incidents = list(predictor.incidents)
    assert found.tobytes() == whole(volume, grid).tobytes()
    corners = [grid.corner(index) for index in grid.indices()]
    assert incidents == [
        f"logits were not finite in the tile at {corners[number]}: repeated in float32" for number in (3, 9)
    ]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_no_numbers_in_float32_either_are_refused(bad):
    def spoil(tiles):
        spoilt = tiles.clone()
        spoilt[0, 0, 0, 0, 0] = bad
        return spoilt

    volume = noise((9, 5, 5))
    with pytest.raises(PredictionError, match=r"the tile at \(0, 0, 0\) are not finite, in float32 neither"):
        whole(volume, Grid(volume.shape, (4, 4, 4), 0.5), [Member(Network(spoil), Intensity())])


OUT_OF_MEMORY = {
    "CUDA": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    "CPU": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
    "Python": MemoryError(),
}


@pytest.mark.parametrize("kind", OUT_OF_MEMORY)
@pytest.mark.parametrize("number", range(5))
def test_memory_that_does_not_suffice_halves_the_batch(kind, number):
    """Batches of 4, the one of that number is too large, and so is every other from then on; 2 are not."""
    volume, grid, calls = noise((9, 9, 5)), Grid((9, 9, 5), (4, 4, 4), 0.5), []

    def fail(tiles):
        calls.append(len(tiles))
        if len(tiles) > 2 and len(calls) > number:
            raise OUT_OF_MEMORY[kind]
        return tiles

    device = Device(name="cpu", dtype="float32", batch=4, threads=1)
    with Predictor([Member(Network(fail), Intensity())], device) as predictor:
        found = np.concatenate([slab for _, slab in predictor.slabs(volume, grid=grid, passes=[PLAIN])])
        assert predictor.incidents == ["memory did not suffice: 2 tiles at a time from here on"]
    assert calls[: number + 2] == [4] * (number + 1) + [2]
    assert set(calls[number + 1 :]) == {2}
    assert found.tobytes() == whole(volume, grid).tobytes()


def test_a_tile_too_large_for_the_device_is_run_on_the_cpu_in_float32():
    def fail(tiles):
        raise torch.OutOfMemoryError("CUDA out of memory")

    volume, grid = noise((4, 4, 9)), Grid((4, 4, 9), (4, 4, 4), 0.0)
    with Predictor([Member(Network(fail), Intensity(), nn.Identity())], CPU) as predictor:
        found = np.concatenate([slab for _, slab in predictor.slabs(volume, grid=grid, passes=[PLAIN])])
        assert predictor.incidents[:2] == [
            "memory did not suffice: 1 tiles at a time from here on",
            "memory did not suffice for the tile at (0, 0, 0): run on the CPU in float32",
        ]
    assert found.tobytes() == whole(volume, grid).tobytes()


@pytest.mark.parametrize("where", ["network", "finish"])
def test_an_error_surfaces_at_once_and_the_next_volume_goes_well(where):
    volume, grid, seen = noise((64, 5, 5)), Grid((64, 5, 5), (4, 4, 4), 0.5), []

    def network(tiles):
        seen.append(len(tiles))
        if where == "network" and len(seen) == 3:
            raise RuntimeError("the third batch")
        return tiles

    def finish(blend):
        if where == "finish":
            raise RuntimeError("the disk")

    with Predictor([Member(Network(network), Intensity())], CPU) as predictor:
        with pytest.raises(RuntimeError, match=r"the (third batch|disk)"):
            list(predictor.run(volume, grid=grid, passes=[PLAIN], finish=finish))
        assert len(seen) < 20  # of 62
        found = np.concatenate([slab for _, slab in predictor.slabs(volume, grid=grid, passes=[PLAIN])])
    np.testing.assert_allclose(found, Intensity().table(volume)[volume], atol=1e-5)


def test_the_network_goes_on_while_slabs_are_blended():
    """The second batch waits until the first one's planes are being blended, and that waits for the second batch."""
    volume, grid, blending, computing = noise((16, 4, 4)), Grid((16, 4, 4), (4, 4, 4), 0.0), Event(), Event()
    calls = []

    def network(tiles):
        calls.append(len(tiles))
        if len(calls) == 2:
            computing.set()
            assert blending.wait(20)
        return tiles

    def finish(blend):
        blending.set()
        assert computing.wait(20)

    with Predictor(
        [Member(Network(network), Intensity())], Device(name="cpu", dtype="float32", batch=1, threads=1)
    ) as predictor:
        assert len(list(predictor.run(volume, grid=grid, passes=[PLAIN], finish=finish))) == 4


def test_a_memory_map_is_predicted_as_an_array_is(tmp_path):
    volume, grid = noise((40, 9, 130)), Grid((40, 9, 130), (8, 8, 32), 0.5)
    np.save(tmp_path / "a.npy", volume)
    mapped = open_volume(tmp_path / "a.npy")
    assert isinstance(mapped, np.memmap)
    assert whole(mapped, grid).tobytes() == whole(volume, grid).tobytes()


def test_a_volume_of_another_shape_than_the_grid_is_refused():
    with pytest.raises(ValueError, match=r"expected a volume of the grid's shape \(4, 4, 4\), got \(4, 4, 5\)"):
        whole(noise((4, 4, 5)), Grid((4, 4, 4), (4, 4, 4), 0.5))


def test_an_empty_volume_is_refused():
    with pytest.raises(ValueError, match="expected a volume with at least one voxel an axis"):
        whole(np.zeros((0, 4, 4), np.uint8), Grid((0, 4, 4), (4, 4, 4), 0.5))


def test_the_network_runs_in_the_device_precision_and_logits_are_float32():
    seen = []
    network = nn.Sequential(nn.Conv3d(1, 1, 1), Network(lambda tiles: seen.append(tiles.dtype) or tiles))
    device = Device(name="cpu", dtype="bfloat16", batch=1, threads=1)
    ((_, slab),) = slabs(
        [Member(network, Intensity())], noise((4, 4, 4)), grid=Grid((4, 4, 4), (4, 4, 4), 0), device=device
    )
    assert seen == [torch.bfloat16]
    assert slab.dtype == np.float32


def test_no_gradients_are_kept():
    seen = []
    network = nn.Sequential(nn.Conv3d(1, 1, 1), Network(lambda tiles: seen.append(tiles.requires_grad) or tiles))
    whole(noise((4, 4, 4)), Grid((4, 4, 4), (4, 4, 4), 0), [Member(network, Intensity())])
    assert seen == [False]
