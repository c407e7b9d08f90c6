import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from masks import mask_settings
from scenes import noise, two_greys
from torch import nn

from surface_kernel.inference import engine as engine_module
from surface_kernel.inference.engine import Engine
from surface_kernel.inference.predict import PredictionError
from surface_kernel.inference.settings import Settings
from surface_kernel.networks import weights
from surface_kernel.networks.architecture import Architecture
from surface_kernel.networks.cost import Cost
from surface_kernel.networks.device import Device
from surface_kernel.networks.network import NetworkError
from surface_kernel.networks.weights import Metadata, WeightsError
from surface_kernel.volumes.intensity import Intensity

CPU = Device(name="cpu", dtype="float32", batch=2, threads=1)
NOTHING = Cost(flop=1, activation_bytes=1, elements=1)
TOLD = Metadata(architecture=Architecture("Linknet", "efficientnet-b0"), intensity=Intensity(), tile_zyx=(32, 32, 32))
TILE = SimpleNamespace(intensity=Intensity(), tile_zyx=(3, 4, 5), overlap=0.5, threshold=0.5)


def engine_of(*networks, views=("none",), threshold=0.5, device=CPU):
    """An engine of small tiles, which no weights file could ask for."""
    settings = Settings(views=views, mask=mask_settings(threshold=threshold))
    return Engine(networks, [TILE] * len(networks), settings=settings, device=device, cost=NOTHING)


def predicted(engine, volume, **named):
    """Gives the mask, and what is told of the probabilities."""
    mask = np.full(volume.shape, 7, np.uint8)
    return mask, engine.predict(volume, mask=mask, **named)


@pytest.mark.parametrize(
    ("threshold", "greys"), [(0.5, (120,)), (0.73, (120,)), (0.74, ()), (0.27, (120,)), (0.26, (80, 120))]
)
def test_masks_by_hand(threshold, greys):
    """Logits are -5, -1 and 1, and 1 / (1 + exp(1)) is 0.2689: what is above a threshold can be said in advance."""
    volume = two_greys()
    with engine_of(nn.Identity(), threshold=threshold) as engine:
        mask, _ = predicted(engine, volume)
    np.testing.assert_array_equal(mask, np.isin(volume, greys).astype(np.uint8), strict=True)


def test_mean_and_variance_of_the_probabilities_by_hand():
    volume = two_greys()  # a quarter is 0, and 3 / 8 each are 80 and 120
    low, middle, high = 1 / (1 + np.exp(5)), 1 / (1 + np.exp(1)), 1 / (1 + np.exp(-1))
    mean = low / 4 + 3 / 8 * (middle + high)
    expected = (low - mean) ** 2 / 4 + 3 / 8 * ((middle - mean) ** 2 + (high - mean) ** 2)
    with engine_of(nn.Identity()) as engine:
        _, spread = predicted(engine, volume)
    assert spread.mean == pytest.approx(mean, rel=1e-4)
    assert spread.variance == pytest.approx(expected, rel=1e-4)
    assert spread.incidents == ()


class Scaled(nn.Module):
    """Gives its input times a number, and that along x only where it is asked to see it in a mirror."""

    def __init__(self, factor, shift=0):
        super().__init__()
        self.factor, self.shift = factor, shift

    def forward(self, tiles):
        return self.factor * tiles.roll(self.shift, -1)


def test_stages_add_up_in_their_order_and_the_mask_is_of_all_so_far():
    volume = two_greys()
    grey = Intensity().table(volume)[volume]
    with engine_of(Scaled(1), Scaled(-3), views=("none", "x")) as engine:
        assert [len(stage) for stage in engine.stages] == [1, 1, 2]
        sums = np.empty(volume.shape, np.float32)
        for stages, total in (((0,), 1), ((1,), -2), ((2,), -4)):
            mask, _ = predicted(engine, volume, sums=sums, stages=stages)
            np.testing.assert_allclose(sums, total * grey, atol=1e-4)
            np.testing.assert_array_equal(mask, (total * grey > 0).astype(np.uint8))
        at_once, all_sums = np.empty(volume.shape, np.uint8), np.empty(volume.shape, np.float32)
        engine.predict(volume, mask=at_once, sums=all_sums)
        assert all_sums.tobytes() == sums.tobytes()
        assert at_once.tobytes() == mask.tobytes()
        engine.predict(volume, mask=at_once)  # where nobody wants the sums they are kept for as long as they are needed
        assert at_once.tobytes() == mask.tobytes()
        logits = np.concatenate([slab for _, slab in engine.logits(volume)])
        np.testing.assert_allclose(logits, -grey, atol=1e-4)


def test_two_volumes_may_be_under_way_and_their_networks_take_turns():
    busy, most = [], []

    class Slow(nn.Module):
        def forward(self, tiles):
            busy.append(1)
            most.append(len(busy))
            time.sleep(0.005)
            busy.pop()
            return tiles

    volumes = [noise((9, 9, 9), seed) for seed in range(4)]
    with engine_of(Slow()) as engine, ThreadPoolExecutor(4) as pool:
        together = [mask.tobytes() for mask, _ in pool.map(lambda volume: predicted(engine, volume), volumes)]
        assert together == [predicted(engine, volume)[0].tobytes() for volume in volumes]
    assert set(most) == {1}


def test_where_memory_does_not_suffice_the_volume_is_begun_again_with_smaller_tiles():
    sizes = []

    class Small(nn.Module):
        def forward(self, tiles):
            sizes.append(tuple(tiles.shape[2:]))
            if tiles.shape[2:].numel() > 40**3:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return tiles

    volume = noise((60, 40, 90))
    device = Device(name="cpu", dtype="float32", batch=1, threads=1, tile_voxels=10**6, kept_bytes=10**9)
    with Engine([Small()], [TOLD], settings=Settings(), device=device, cost=NOTHING) as engine:
        mask, spread = predicted(engine, volume)
    assert list(dict.fromkeys(sizes)) == [(64, 32, 96), (32, 32, 96), (32, 32, 32)]
    assert spread.incidents == tuple(
        f"memory did not suffice: begun again with tiles of {tile}" for tile in ((32, 32, 96), (32, 32, 32))
    )
    np.testing.assert_array_equal(mask, (Intensity().table(volume)[volume] > 0).astype(np.uint8))


def test_whoever_was_killed_for_memory_asks_for_tiles_of_the_trained_size():
    tiles = []
    device = Device(name="cpu", dtype="float32", batch=1, threads=1, tile_voxels=10**6, kept_bytes=10**9)
    with Engine([nn.Identity()], [TOLD], settings=Settings(), device=device, cost=NOTHING) as engine:
        for tile_voxels in (None, 0):
            predicted(engine, noise((60, 40, 90)), on_tiles=tiles.append, tile_voxels=tile_voxels)
        assert engine.grid((60, 40, 90), 0).tile_zyx == TOLD.tile_zyx
        assert sum(tiles) == sum(engine.grid((60, 40, 90), voxels).tiles for voxels in (None, 0))


def test_where_memory_does_not_suffice_for_the_trained_tile_the_volume_fails():
    class Never(nn.Module):
        def forward(self, tiles):
            raise MemoryError

    with engine_of(Never()) as engine, pytest.raises(MemoryError):
        predicted(engine, noise((4, 4, 4)))


@pytest.mark.parametrize(
    ("decoder", "norm", "local"), [("Unet", "batch", True), ("Unet", "instance", False), ("FPN", "batch", False)]
)
def test_only_networks_that_look_no_further_than_their_surroundings_get_larger_tiles(
    tmp_path, monkeypatch, decoder, norm, local
):
    monkeypatch.setattr(engine_module, "restore", lambda architecture, state: nn.Conv3d(1, 1, 1))
    metadata = Metadata(
        architecture=Architecture(decoder, "resnet18", norm), intensity=Intensity(), tile_zyx=(64, 64, 64), overlap=0.5
    )
    weights.save(tmp_path / "a.safetensors", {"w": torch.zeros(1)}, metadata)
    with Engine.load([tmp_path / "a.safetensors"], Settings(), device_name="cpu") as engine:
        assert (engine.grid((128, 128, 128)).tile_zyx == (128, 128, 128)) is local
        assert (engine.grid((128, 128, 128)).tile_zyx == (64, 64, 64)) is not local


def saved(path, **changes):
    """Writes a weights file whose state fits no network."""
    entries = {"tile_zyx": (32, 32, 32), "overlap": 0.25} | changes
    metadata = Metadata(architecture=Architecture("Linknet", "efficientnet-b0"), intensity=Intensity(), **entries)
    weights.save(path, {"w": torch.zeros(1)}, metadata)
    return path


def test_the_first_members_threshold_holds_unless_the_settings_say_otherwise(tmp_path, monkeypatch):
    monkeypatch.setattr(engine_module, "restore", lambda architecture, state: nn.Conv3d(1, 1, 1))
    files = [saved(tmp_path / f"{n}.safetensors", threshold=0.3 + n / 10) for n in range(2)]
    engine = Engine.load(files, Settings(), device_name="cpu")
    assert (engine.threshold, engine.metadata[0].overlap, len(engine.members)) == (0.3, 0.25, 2)
    assert Engine.load(files[::-1], Settings(), device_name="cpu").threshold == 0.4
    assert (
        Engine.load(files, Settings(mask=mask_settings(threshold=0.8, least_voxels=1000)), device_name="cpu").threshold
        == 0.8
    )


@pytest.mark.parametrize("changes", [{"tile_zyx": (32, 32, 64)}, {"overlap": 0.5}])
def test_members_with_other_tiles_are_refused(tmp_path, changes):
    files = [saved(tmp_path / "a.safetensors"), saved(tmp_path / "b.safetensors", **changes)]
    with pytest.raises(WeightsError, match=r"b\.safetensors: tile and overlap: expected .* as in a\.safetensors"):
        Engine.load(files, Settings(), device_name="cpu")


def test_weights_of_another_network_are_refused(tmp_path):
    with pytest.raises(NetworkError, match="expected a state of this network, got another"):
        Engine.load([saved(tmp_path / "a.safetensors")], Settings(), device_name="cpu")


def test_a_real_network_makes_the_same_bytes_twice(weights_file):
    volume = noise((20, 33, 40))
    with Engine.load([weights_file], Settings(mask=mask_settings()), device_name="cpu") as engine:
        mask, _ = predicted(engine, volume)
        assert 0.05 < mask.mean() < 0.95
        assert predicted(engine, volume)[0].tobytes() == mask.tobytes()


def test_a_tuned_engine_runs_as_it_found_best_and_so_does_one_that_is_told(weights_file):
    volume = noise((20, 33, 40))
    with Engine.load([weights_file], Settings(), device_name="cpu") as engine:
        trials = engine.tune(volume)
        assert engine.device in [trial.device for trial in trials]
        assert engine.tile_s > 0
        told = Device.from_mapping(engine.device.to_mapping())
        with Engine.load([weights_file], Settings(), device=told) as other:
            assert other.device == engine.device
            assert predicted(other, volume)[0].tobytes() == predicted(engine, volume)[0].tobytes()


def test_a_prediction_that_nobody_wants_is_refused():
    with (
        engine_of(nn.Identity()) as engine,
        pytest.raises(ValueError, match="expected a mask or sums to fill"),
    ):
        engine.predict(noise((4, 4, 4)))


def test_planes_too_wide_for_the_memory_are_refused_before_any_work(monkeypatch):
    monkeypatch.setattr(engine_module, "machine_bytes", lambda: 10_000)
    with engine_of(nn.Identity()) as engine, pytest.raises(PredictionError, match=r"planes of \(40, 40\) voxels need"):
        predicted(engine, noise((4, 40, 40)))
