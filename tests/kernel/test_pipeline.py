import numpy as np
import pytest
import torch
from scenes import noise, two_greys
from torch import nn

from surface_kernel import pipeline, weights
from surface_kernel.architecture import Architecture
from surface_kernel.device import Device
from surface_kernel.intensity import Intensity
from surface_kernel.network import NetworkError
from surface_kernel.pipeline import Engine
from surface_kernel.predict import Member
from surface_kernel.settings import Settings
from surface_kernel.weights import Metadata, WeightsError

CPU = Device("cpu", "float32", batch=2, threads=1)
IDENTITY = Member(nn.Identity(), Intensity())


def identity_engine(threshold=0.5, dust_voxels=0):
    return Engine([IDENTITY], (3, 4, 5), 0.5, threshold, Settings(dust_voxels=dust_voxels), CPU)


@pytest.mark.parametrize(
    ("threshold", "greys"), [(0.5, (120,)), (0.73, (120,)), (0.74, ()), (0.27, (120,)), (0.26, (80, 120))]
)
def test_masks_by_hand(threshold, greys):
    """Logits are -5, -1 and 1, and 1 / (1 + exp(1)) is 0.2689: what is above a threshold can be said in advance."""
    volume = two_greys()
    made = identity_engine(threshold).predict(volume)
    np.testing.assert_array_equal(made.mask, np.isin(volume, greys).astype(np.uint8), strict=True)
    assert made.foreground == pytest.approx(np.isin(volume, greys).mean())


def test_the_variance_of_the_probabilities_by_hand():
    volume = two_greys()  # a quarter is 0, and 3 / 8 each are 80 and 120
    low, middle, high = 1 / (1 + np.exp(5)), 1 / (1 + np.exp(1)), 1 / (1 + np.exp(-1))
    mean = low / 4 + 3 / 8 * (middle + high)
    expected = (low - mean) ** 2 / 4 + 3 / 8 * ((middle - mean) ** 2 + (high - mean) ** 2)
    assert identity_engine().predict(volume).variance == pytest.approx(expected, rel=1e-4)


def test_dust_is_dropped_after_the_slabs_are_joined():
    volume = np.full((9, 6, 8), 80, np.uint8)
    volume[:, 2, 3] = 120  # one line of 9 through every slab
    volume[0, 5, 7] = 120
    made = identity_engine(threshold=0.9, dust_voxels=9).predict(volume)
    assert made.mask.sum() == 9
    assert made.mask[:, 2, 3].all()
    assert made.foreground == pytest.approx(9 / volume.size)


def saved(path, **changes):
    """Writes a weights file whose state fits no network."""
    entries = {"tile_zyx": (32, 32, 32), "overlap": 0.25} | changes
    metadata = Metadata(Architecture("Linknet", "efficientnet-b0"), Intensity(), **entries)
    weights.save(path, {"w": torch.zeros(1)}, metadata)
    return path


def test_the_first_members_threshold_holds_unless_the_settings_say_otherwise(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "restore", lambda architecture, state: nn.Identity())
    files = [saved(tmp_path / f"{n}.safetensors", threshold=0.3 + n / 10) for n in range(2)]
    engine = Engine.load(files, Settings(), "cpu")
    assert (engine.threshold, engine.tile_zyx, engine.overlap, len(engine.members)) == (0.3, (32, 32, 32), 0.25, 2)
    assert Engine.load(files[::-1], Settings(), "cpu").threshold == 0.4
    assert Engine.load(files, Settings(threshold=0.8), "cpu").threshold == 0.8


@pytest.mark.parametrize("changes", [{"tile_zyx": (32, 32, 64)}, {"overlap": 0.5}])
def test_members_with_other_tiles_are_refused(tmp_path, changes):
    files = [saved(tmp_path / "a.safetensors"), saved(tmp_path / "b.safetensors", **changes)]
    with pytest.raises(WeightsError, match=r"b\.safetensors: found tile and overlap .* as in a\.safetensors"):
        Engine.load(files, Settings(), "cpu")


def test_weights_of_another_network_are_refused(tmp_path):
    with pytest.raises(NetworkError, match="found a state that does not fit"):
        Engine.load([saved(tmp_path / "a.safetensors")], Settings(), "cpu")


def test_a_real_network_makes_the_same_bytes_twice(weights_file):
    engine, volume = Engine.load([weights_file], Settings(dust_voxels=0), "cpu"), noise((20, 33, 40))
    made = engine.predict(volume)
    assert 0.05 < made.foreground < 0.95
    assert engine.predict(volume).mask.tobytes() == made.mask.tobytes()
