"""Memory that does not suffice, and logits that are not finite, wherever they come: mended, named, and no zeros."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from gpu_engines import COST, CPU, GPU, SETTINGS, assert_same_surface, masks_and_sums, small_engine, small_network
from scenes import noise

from surface_kernel.inference.settings import Settings
from surface_kernel.networks.placing import within_memory

pytestmark = pytest.mark.simulated_cuda

SHAPE = (40, 40, 40)
CONVOLUTIONS = 12  # of a volume: eight tiles of 32³ in pairs, three convolutions each
KINDS = ("oom", "engine", "runtime", "driver", "cudnn alloc", "cudnn internal", "cublas init", "cublas alloc")
VIEWS = Settings(views=("none", "x"), mask=SETTINGS.mask)


@pytest.fixture(scope="module")
def volume():
    return noise(SHAPE)


@pytest.fixture(scope="module")
def expected(volume):
    with small_engine(CPU) as engine:
        return masks_and_sums(engine, volume)


@pytest.fixture(scope="module")
def engines():
    """Engines by their batch; they serve all tests, as a worker's does all volumes."""
    made = {batch: small_engine(replace(GPU, batch=batch)) for batch in (1, 2)}
    yield made
    for engine in made.values():
        engine.close()


@pytest.fixture(scope="module")
def plain(engines, volume):
    return {batch: masks_and_sums(engine, volume) for batch, engine in engines.items()}


def test_a_run_has_as_many_convolutions_as_the_tests_here_count(gpu, engines, volume):
    before = gpu.calls("convolution")
    masks_and_sums(engines[2], volume)
    assert gpu.calls("convolution") - before == CONVOLUTIONS


def assert_mended(gpu, engine, volume, expected):
    """Whatever happened: it is named, no voxel is lost, and the mask is the CPU's within half precision."""
    mask, sums, incidents = masks_and_sums(engine, volume)
    (fault,) = gpu.seen("fault")
    assert [text for text in incidents if text.startswith("memory did not suffice")], fault
    assert_same_surface(mask, sums, expected[1])
    return sums, incidents


def test_a_failure_at_any_convolution_is_mended(gpu, engines, volume, expected, plain):
    for nth in range(1, CONVOLUTIONS + 1):
        gpu.forget()
        gpu.fail("engine", first=nth)
        _, incidents = assert_mended(gpu, engines[2], volume, expected)
        assert incidents == ("memory did not suffice: 1 tiles at a time from here on",)
    gpu.wish()
    again = masks_and_sums(engines[2], volume)
    assert (again[1].tobytes(), again[2]) == (plain[2][1].tobytes(), ())  # and the next volume is as if nothing was


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_memory_is_missed_it_is_mended(gpu, engines, volume, expected, kind):
    gpu.fail(kind, first=5)
    assert_mended(gpu, engines[2], volume, expected)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_every_message_at_every_convolution_is_mended(gpu, engines, volume, expected, kind, batch):
    for nth in range(1, CONVOLUTIONS * 2 // batch + 1):
        gpu.forget()
        gpu.fail(kind, first=nth)
        assert_mended(gpu, engines[batch], volume, expected)


def test_one_tile_that_does_not_fit_runs_on_the_cpu_and_the_others_keep_their_bytes(gpu, engines, volume, plain):
    """A tile at a time: the second of eight, that at (0, 0, 8), fails in its first convolution."""
    gpu.fail("runtime", first=4)
    _, sums, incidents = masks_and_sums(engines[1], volume)
    assert incidents == ("memory did not suffice for the tile at (0, 0, 8): run on the CPU in float32",)
    assert sums[:, :, :8].tobytes() == plain[1][1][:, :, :8].tobytes()
    assert not np.array_equal(sums, plain[1][1])


@pytest.mark.parametrize("operator", ["copy", "index", "cast", "relu", "native_batch_norm"])
def test_memory_may_be_missed_in_any_operator_of_a_pass(gpu, engines, volume, expected, operator):
    """Copies to the GPU, the table's look-up, conversions, and what lies between convolutions."""
    gpu.fail("oom", operator=operator, first=3)
    assert_mended(gpu, engines[2], volume, expected)


# --- a limit that is real: bytes are counted


def needs(engine, volume):
    """The most bytes that a volume takes beside the weights."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    masks_and_sums(engine, volume)
    return before, torch.cuda.max_memory_allocated() - before


def test_two_tiles_do_not_fit_but_one_does(gpu, engines, volume, expected):
    before, bytes_ = needs(engines[2], volume)
    gpu.wish(limit_bytes=before + int(bytes_ * 0.8))
    mask, sums, incidents = masks_and_sums(engines[2], volume)
    assert incidents == ("memory did not suffice: 1 tiles at a time from here on",)
    assert_same_surface(mask, sums, expected[1])


def test_not_one_tile_fits(gpu, engines, volume, expected):
    gpu.wish(limit_bytes=torch.cuda.memory_allocated() + 50_000)
    mask, sums, incidents = masks_and_sums(engines[2], volume)
    assert len([text for text in incidents if "run on the CPU in float32" in text]) == 8
    assert_same_surface(mask, sums, expected[1])
    assert not (mask == 0).all()


def test_while_many_passes_run_on_the_cpu_there_are_signs_of_work(gpu, volume):
    """Whoever waits for a tile would take a worker that is silent for minutes for one that hangs."""
    seen = []
    with small_engine(GPU, members=3, settings=VIEWS) as engine:
        gpu.fail("oom", more=10**9)
        engine.predict(volume, mask=np.empty(SHAPE, np.uint8), on_tiles=seen.append)
    # Every member is a stage of its own here, all views of all of them the last one.
    assert (seen.count(0), sum(seen)) == (8 * sum(map(len, engine.stages)), 8 * len(engine.stages))


def test_the_trained_tile_fits_the_planned_one_does_not_and_later_volumes_know(gpu):
    volumes = [noise((64, 64, 64), seed) for seed in range(2)]
    device = replace(GPU, batch=1, tile_voxels=64**3, kept_bytes=10**9)
    networks = [small_network(pointwise=True)]
    with small_engine(device, networks=networks) as engine, small_engine(CPU, networks=networks) as cpu:
        assert engine.grid((64, 64, 64)).tile_zyx == (64, 64, 64)
        before, bytes_ = needs(engine, volumes[0])
        gpu.wish(limit_bytes=before + int(bytes_ * 0.4))
        told = []
        for volume in volumes:
            mask, sums, incidents = masks_and_sums(engine, volume)
            assert_same_surface(mask, sums, masks_and_sums(cpu, volume)[1])
            told.append(incidents)
        tile = engine.grid((64, 64, 64)).tile_zyx
        assert told == [
            ("memory did not suffice: begun again with tiles of (32, 64, 64)",)
            + (f"memory did not suffice: begun again with tiles of {tile}",) * (tile != (32, 64, 64)),
            (),
        ]


def test_a_later_stage_cannot_begin_again_its_tiles_go_to_the_cpu_and_smaller_ones_come_after(gpu):
    volume = noise((64, 64, 64))
    device = replace(GPU, batch=1, tile_voxels=64**3, kept_bytes=10**9)
    networks = [small_network(pointwise=True)]
    with (
        small_engine(device, networks=networks, settings=VIEWS) as engine,
        small_engine(CPU, networks=networks, settings=VIEWS) as cpu,
    ):
        mask, sums = np.zeros(volume.shape, np.uint8), np.zeros(volume.shape, np.float32)
        engine.predict(volume, mask=mask, sums=sums, stages=[0])
        gpu.fail("oom")
        told = engine.predict(volume, mask=mask, sums=sums, stages=[1])
        assert told.incidents == ("memory did not suffice for the tile at (0, 0, 0): run on the CPU in float32",)
        assert_same_surface(mask, sums, masks_and_sums(cpu, volume)[1], passes=2)
        assert engine.device.tile_voxels == 64**3 // 2


def test_a_tile_of_the_planned_size_is_tried_before_the_plan_is_taken(gpu):
    volume = noise((64, 64, 64))
    device = replace(GPU, batch=1, tile_voxels=64**3, kept_bytes=10**9)
    with small_engine(device, networks=[small_network(pointwise=True)]) as engine:
        _, bytes_ = needs(engine, volume)
    with small_engine(device, networks=[small_network(pointwise=True)]) as engine:
        gpu.wish(limit_bytes=torch.cuda.memory_allocated() + int(bytes_ * 0.7), total_bytes=10**12)
        trials = engine.tune(volume)
        assert "memory did not suffice for a tile of (64, 64, 64)" in "\n".join(map(str, trials))
        assert engine.grid(volume.shape).tile_zyx != (64, 64, 64)
        assert masks_and_sums(engine, volume)[2] == ()


def test_the_limit_of_tiles_is_that_of_the_precision_that_won(gpu):
    """A float32 tile takes twice what the guess, float16, would."""
    total = 80 * 64**3
    gpu.fail("wrong", more=10**9, dtype="float16", total_bytes=total)
    with small_engine(replace(GPU, tile_voxels=64**3, kept_bytes=10**9)) as engine:
        assert within_memory(GPU, engine.cost).tile_voxels == total // 2 // (COST.activation_bytes // 2)
        engine.tune(noise(SHAPE))
        assert engine.device.dtype == "float32"
        assert engine.device.tile_voxels == total // 2 // COST.activation_bytes


# --- logits that are not finite


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("mode", [False, True], ids=["plain", "in inference mode"])
def test_logits_that_are_not_finite_are_computed_again_and_the_next_volume_is_as_ever(gpu, volume, batch, mode):
    """Two members and two views; a number is spoilt in every fourth convolution's float16 output."""
    networks = [small_network(seed) for seed in range(2)]
    device = replace(GPU, batch=batch)
    with (
        small_engine(device, networks=networks, settings=VIEWS) as engine,
        small_engine(CPU, networks=networks, settings=VIEWS) as cpu,
        torch.inference_mode(mode),
    ):
        before = masks_and_sums(engine, volume)
        gpu.fail("nan", first=4, more=20, dtype="float16")
        mask, sums, incidents = masks_and_sums(engine, volume)
        assert len([text for text in incidents if "repeated in float32" in text]) >= 2
        assert_same_surface(mask, sums, masks_and_sums(cpu, volume)[1], passes=4)
        gpu.wish()
        again = masks_and_sums(engine, volume)
        assert (again[1].tobytes(), again[2]) == (before[1].tobytes(), ())


def test_where_the_repeated_tile_does_not_fit_either_it_runs_on_the_cpu(gpu, engines, volume, expected):
    nan = {"kind": "nan", "first": 3, "dtype": "float16"}
    gpu.wish(faults=[nan, {"kind": "oom", "first": CONVOLUTIONS + 1}])
    mask, sums, incidents = masks_and_sums(engines[2], volume)
    assert any("repeated in float32" in text for text in incidents)
    assert_same_surface(mask, sums, expected[1])
