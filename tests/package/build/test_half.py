"""What half precision keeps, what it refuses, and that its cost is told as it is."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from masks import mask_settings
from scenes import two_greys
from torch import nn

from surface_kernel.inference.engine import Engine
from surface_kernel.inference.settings import Settings
from surface_kernel.networks import weights
from surface_kernel.networks.architecture import Architecture
from surface_kernel.networks.cost import Cost
from surface_kernel.networks.device import Device
from surface_kernel.networks.weights import Metadata, WeightsError
from surface_kernel.volumes.image_files import write_lzw
from surface_kernel.volumes.intensity import Intensity
from surface_package.build import half

TOLD = Metadata(architecture=Architecture(), intensity=Intensity(), tile_zyx=(32, 32, 32), provenance={"fold": "3"})


def save(path: Path, **state: object) -> Path:
    weights.save(path, {name: torch.tensor(values) for name, values in state.items()}, TOLD)
    return path


def test_kernels_are_halved_and_what_has_one_axis_is_kept(tmp_path: Path) -> None:
    third = 1 / 3
    source = save(tmp_path / "full", kernel=[[third, 65504.0]], variance=[third, 1e9], steps=7, ids=[[70000]])
    half.write(source, tmp_path / "half")
    told, state = weights.load(tmp_path / "half")
    assert told == TOLD
    assert {name: tensor.dtype for name, tensor in state.items()} == {
        "kernel": torch.float16,
        "variance": torch.float32,
        "steps": torch.int64,
        "ids": torch.int64,
    }
    assert state["kernel"].tolist() == [[0.333251953125, 65504.0]]
    assert state["variance"].tolist() == [np.float32(third), 1e9]
    assert (int(state["steps"]), state["ids"].tolist()) == (7, [[70000]])
    half.write(tmp_path / "half", tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "half").read_bytes()


@pytest.mark.parametrize("value", [-70000.0, float("inf"), float("nan")])
def test_what_float16_does_not_hold_is_refused_by_name(tmp_path: Path, value: float) -> None:
    source = save(tmp_path / "full", kernel=[[0.0, value]])
    with pytest.raises(WeightsError, match=r"full: expected .*, got \S+ in kernel; build without --half"):
        half.write(source, tmp_path / "half")
    assert not (tmp_path / "half").exists()


class Shifted(nn.Module):
    """Gives its input and a number more."""

    def __init__(self, shift: float) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        return tiles + self.shift


@pytest.fixture(params=[True, False], ids=["local", "as trained"])
def scene(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A volume of two greys; a weights file's name is by how much its network shifts their logits, -5, -1 and 1."""
    told = SimpleNamespace(intensity=Intensity(), tile_zyx=(32, 32, 32), overlap=0.5, threshold=0.5)
    told.architecture = SimpleNamespace(local=request.param)

    def load(files: Sequence[Path], settings: Settings, device: Device) -> Engine:
        assert (device.name, device.dtype) == ("cpu", "float32")
        networks = [Shifted(float(path.name)) for path in files]
        return Engine(
            networks,
            [told] * len(files),  # type: ignore[list-item]
            settings=settings,
            device=device,
            cost=Cost(flop=1, activation_bytes=1, elements=1),
        )

    monkeypatch.setattr(half.Engine, "load", load)
    write_lzw(tmp_path / "a.tif", two_greys((8, 6, 40)))
    return tmp_path / "a.tif"


def test_the_change_is_that_of_logits_and_masks(scene: Path) -> None:
    grey = two_greys((8, 6, 40))
    dark, light = int((grey == 80).sum()), int((grey == 120).sum())

    def compared(shift: str, least_voxels: int = 0) -> half.PrecisionChange:
        settings = Settings(mask=mask_settings(least_voxels=least_voxels))
        return half.compare([Path("0")], [Path(shift)], settings=settings, path=scene)

    def change(surface_voxels: int, changed_voxels: int, largest: float) -> half.PrecisionChange:
        return half.PrecisionChange(
            volume="a.tif",
            voxels=grey.size,
            surface_voxels=surface_voxels,
            changed_voxels=changed_voxels,
            largest_logit_change=largest,
        )

    assert compared("0") == change(light, 0, 0.0)
    assert compared("0.5") == change(light, 0, 0.5)
    assert compared("1.5") == change(light, dark, 1.5)
    assert compared("-1.5") == change(light, light, 1.5)
    # Light voxels alone are too few then, and joined by the dark ones they are not: masks are those that are submitted.
    assert compared("1.5", least_voxels=light + 1) == change(0, dark + light, 1.5)


def test_members_and_views_are_the_bundles(scene: Path) -> None:
    settings = Settings(staged=(((0, "none"),), ((1, "x"), (1, "none"))), mask=mask_settings(least_voxels=0))
    change = half.compare([Path("0"), Path("0")], [Path("0"), Path("0.75")], settings=settings, path=scene)
    assert change.largest_logit_change == pytest.approx(0.5, abs=1e-6)  # two of three passes differ


def test_a_change_is_told_in_one_line() -> None:
    change = half.PrecisionChange(
        volume="a.tif", voxels=200000, surface_voxels=9000, changed_voxels=50, largest_logit_change=0.001235
    )
    assert str(change) == (
        "half precision on a.tif: logits change by at most 0.001235, "
        "the mask in 50 voxels (0.0250% of the mask's 200000 voxels, 9000 of them surface)"
    )
