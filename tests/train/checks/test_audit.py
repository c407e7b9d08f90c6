from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from surface_kernel.networks import network, weights
from surface_kernel.networks.architecture import Architecture
from surface_kernel.networks.weights import Metadata, WeightsError
from surface_kernel.volumes import volume
from surface_kernel.volumes.image_files import write_lzw
from surface_kernel.volumes.intensity import Intensity
from surface_kernel.volumes.mask_files import write_mask
from surface_train.__main__ import main
from surface_train.checks.audit import audit


def mask_of(path: Path, share: float) -> Path:
    mask = np.zeros(10_000, np.uint8)
    mask[: round(share * mask.size)] = 1
    write_mask(path, mask.reshape(10, 20, 50))
    return path


def weights_of(path: Path, value: float) -> Path:
    provenance = {"epoch": 4, "commit": None, "fold": "all", "validation": {"dice": 0.5, "score": 0.25}}
    described = Metadata(
        architecture=Architecture(), intensity=Intensity(), tile_zyx=(32, 32, 32), threshold=0.35, provenance=provenance
    )
    tensors = {"a.weight": torch.tensor([1.0, value]), "n": torch.tensor([3, 4])}
    counted = {"norm.running_mean": torch.ones(5), "norm.num_batches_tracked": torch.tensor(6)}
    weights.save(path, tensors | counted, described)
    return path


@pytest.mark.parametrize(
    ("share", "sound", "shown"),
    [
        (0.0, False, "0.00%"),
        (0.0009, False, "0.09%"),
        (0.001, True, "0.10%"),
        (0.05, True, "5.00%"),
        (0.95, True, "95.00%"),
        (0.9501, False, "95.01%"),
        (0.9988, False, "99.88%"),
        (1.0, False, "100.00%"),
    ],
)
def test_a_mask_is_judged_by_its_share(tmp_path: Path, share: float, sound: bool, shown: str) -> None:
    found = audit(mask_of(tmp_path / "1.tif", share))
    assert found.sound is sound
    deviation = (share * (1 - share)) ** 0.5
    moments = f"max {int(share > 0)}, mean {share:.3f}, std {deviation:.3f}"
    verdict = (
        "sound"
        if sound
        else f"UNIFORM: expected at {'least 0.1%' if share < 0.5 else 'most 95%'} foreground, got {shown}"
    )
    assert found.text.endswith(f"{moments}, foreground {shown}: {verdict}")


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.uint16])
def test_a_mask_may_be_an_array_of_whole_numbers(tmp_path: Path, dtype: type) -> None:
    mask = np.zeros((4, 5, 6), dtype)
    mask[1] = 1
    np.save(tmp_path / "m.npy", mask)
    found = audit(tmp_path / "m.npy")
    assert found.sound
    assert "shape (4, 5, 6), min 0, max 1, mean 0.250, std 0.433, foreground 25.00%: sound" in found.text


def test_a_label_tells_the_shares_of_its_three_values(tmp_path: Path) -> None:
    label = np.full((10, 10, 10), 2, np.uint8)
    label[:4] = 0  # 400 voxels; 50 of them surface
    label[3, :5] = 1
    write_lzw(tmp_path / "l.tif", label)
    found = audit(tmp_path / "l.tif")
    assert found.sound
    assert "a label: 0 35.00%, 1 5.00%, 2 (unlabelled) 60.00%; with 2 as surface 65.00%" in found.text
    assert found.text.endswith("surface among the labelled 12.50%: sound")


@pytest.mark.parametrize("inside", [0, 1])
def test_a_label_without_surface_or_without_anything_else_is_uniform(tmp_path: Path, inside: int) -> None:
    label = np.full((10, 10, 10), 2, np.uint8)
    label[:4] = inside
    write_lzw(tmp_path / "l.tif", label)
    found = audit(tmp_path / "l.tif")
    assert not found.sound
    limit = "most 95%" if inside else "least 0.1%"
    verdict = f"UNIFORM: expected at {limit} foreground, got {inside:.2%}"
    assert found.text.endswith(f"among the labelled {inside:.2%}: {verdict}")
    write_lzw(tmp_path / "l.tif", np.full((2, 2, 2), 2, np.uint8))
    assert "among the labelled 0.00%: UNIFORM" in audit(tmp_path / "l.tif").text


@pytest.mark.parametrize(
    ("values", "named"),
    [([0, 255], "255"), ([0, 1, 255], "255"), ([0, 1, 3, 4], "3, 4"), ([5, 6, 7, 8, 9], "5, 6, 7, …")],
)
def test_values_that_no_mask_has_are_named(tmp_path: Path, values: list[int], named: str) -> None:
    write_lzw(tmp_path / "m.tif", np.resize(np.array(values, np.uint8), (3, 4, 5)))
    found = audit(tmp_path / "m.tif")
    assert not found.sound
    assert f"max {max(values)}, " in found.text
    assert found.text.endswith(f"NO MASK: expected only values 0 and 1, got {named}")


def test_probabilities_are_judged_by_share_and_spread(tmp_path: Path) -> None:
    varied = np.full((4, 5, 6), 0.1, np.float32)
    varied[:2] = 0.9
    np.save(tmp_path / "varied.npy", varied)
    found = audit(tmp_path / "varied.npy")
    assert found.sound
    assert "min 0.100, max 0.900, mean 0.500, std 0.400, foreground 50.00%: sound" in found.text
    np.save(tmp_path / "low.npy", varied / 2)
    assert not audit(tmp_path / "low.npy").sound
    # Half of it lies above the threshold, by nothing: that is no prediction.
    np.save(tmp_path / "flat.npy", np.where(varied > 0.5, 0.51, 0.49).astype(np.float32))
    found = audit(tmp_path / "flat.npy")
    assert not found.sound
    assert "UNIFORM: expected a variance of at least 0.001, got 0.0001" in found.text


def test_probabilities_that_went_through_a_sigmoid_twice_are_found_out(tmp_path: Path) -> None:
    # As the reference's public code reads its network: a sigmoid of its probabilities, and nothing at the faces.
    logits = gaussian_filter(np.random.default_rng(0).normal(size=(24, 24, 24)), 2)
    once = 1 / (1 + np.exp(-(3 * logits / logits.std() - 2))).astype(np.float32)
    twice = 1 / (1 + np.exp(-once))
    stitched = np.zeros_like(twice)
    stitched[1:-1, 1:-1, 1:-1] = twice[1:-1, 1:-1, 1:-1]
    for name, values in (("once", once), ("twice", twice), ("stitched", stitched)):
        np.save(tmp_path / f"{name}.npy", values)
    assert audit(tmp_path / "once.npy").sound
    for name, words in (("twice", "0.5 or more: was an"), ("stitched", "0.5 or more, zeros aside: was an")):
        found = audit(tmp_path / f"{name}.npy")
        assert not found.sound
        assert f"FLOORED: every probability is {words} activation applied twice?" in found.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.full((2, 2, 2), np.nan, np.float32), "expected probabilities from 0 to 1, got values from nan to nan"),
        (np.array([[[0.5, np.nan]]], np.float32), "expected probabilities from 0 to 1, got values from nan to nan"),
        (np.array([[[0.5, np.inf]]], np.float32), "expected probabilities from 0 to 1, got values from 0.5 to inf"),
        (np.zeros((2, 2), np.float32), r"expected probabilities or a mask, \(z, y, x\), got float32 \(2, 2\)"),
        (np.zeros((0, 2, 2), np.float32), r"expected probabilities or a mask, \(z, y, x\), got float32 \(0, 2, 2\)"),
        (np.zeros((2, 2, 2), complex), "got complex128"),
        (np.full((2, 2, 2), -1), "expected a mask of 0 and 1, got values from -1 to -1"),
        (np.full((2, 2, 2), 256), "expected a mask of 0 and 1, got values from 256 to 256"),
        (np.linspace(-3, 3, 8).reshape(2, 2, 2), "expected probabilities from 0 to 1, got values from -3 to 3"),
    ],
)
def test_what_is_no_probability_is_refused(tmp_path: Path, content: np.ndarray, message: str) -> None:
    np.save(tmp_path / "p.npy", content)
    with pytest.raises(ValueError, match=message):
        audit(tmp_path / "p.npy")


def test_a_pickle_is_not_run(tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(
        ValueError, match=r"p\.npy: expected probabilities or a mask, .*got no readable array: .*Python objects"
    ):
        audit(tmp_path / "p.npy")


@pytest.mark.parametrize("kept", [0, 5, 100, 200])
def test_a_file_cut_short_is_refused(tmp_path: Path, kept: int) -> None:
    np.save(tmp_path / "p.npy", np.zeros((4, 5, 6), np.float32))
    content = (tmp_path / "p.npy").read_bytes()
    (tmp_path / "p.npy").write_bytes(content[:kept])
    with pytest.raises(ValueError, match=r"p\.npy: expected .*, got no readable array"):
        audit(tmp_path / "p.npy")


# --- weights


def test_weights_tell_what_they_are_line_by_line(tmp_path: Path) -> None:
    path = weights_of(tmp_path / "w.safetensors", 2.0)
    found = audit(path)
    assert found.sound
    lines = found.text.splitlines()
    assert lines[0] == f"{path}: 4 parameters in 4 tensors"  # a running mean and a count are none
    assert lines[1].startswith("  architecture: Unet, resnet18")
    assert lines[2:] == [
        "  intensity: kind standardised, limit 5.0",
        "  tile: 32 × 32 × 32, overlap 0.5",
        "  threshold: 0.35",
        "  commit: null",
        "  epoch: 4",
        "  fold: all",
        "  validation: dice 0.5, score 0.25",
        "  all values are finite",
        f"{path}: sound",
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_with_a_number_that_is_none_are_broken_and_predict_nothing(tmp_path: Path, value: float) -> None:
    found = audit(weights_of(tmp_path / "w.safetensors", value), data=tmp_path / "none")
    assert not found.sound
    assert "BROKEN: 1 tensors are not finite, a.weight first" in found.text
    assert found.text.endswith("w.safetensors: BROKEN")


class Emits(nn.Module):
    """A network that gives `weight` times what it is fed, plus `bias`; and its sigmoid, if it is so broken."""

    def __init__(self, activated: bool = False) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))
        self.activated = activated

    def forward(self, images: Tensor) -> Tensor:
        logits = self.weight * images + self.bias
        return torch.sigmoid(logits) if self.activated else logits


def trained(path: Path, monkeypatch: pytest.MonkeyPatch, weight: float, bias: float, activated: bool = False) -> Path:
    """Weights of such a network, which the kernel is made to build."""
    built = SimpleNamespace(create_model=lambda name, **_: Emits(activated))
    monkeypatch.setattr(network, "_library", lambda *_: built)
    described = Metadata(architecture=Architecture(), intensity=Intensity(), tile_zyx=(32, 32, 32), threshold=0.5)
    weights.save(path, {"weight": torch.tensor(weight), "bias": torch.tensor(bias)}, described)
    return path


@pytest.mark.usefixtures("one_thread")
def test_weights_are_judged_by_what_they_predict(tmp_path: Path, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = trained(tmp_path / "w.safetensors", monkeypatch, 3.0, -2.0)
    found = audit(path, world.data, "cpu")
    assert found.sound
    first, second = found.text.splitlines()[-3:-1]
    assert first.startswith(f"  {world.data / 'train_images' / '11.tif'}: input mean 0.00, std 1.00; probabilities: ")
    assert second.startswith(f"  {world.data / 'train_images' / '21.tif'}: input mean ")

    image, label = (volume.read(world.data / f"train_{kind}" / "11.tif") for kind in ("images", "labels"))
    fed = (image - image.mean()) / image.std()
    wanted = (1 / (1 + np.exp(2 - 3 * fed)))[label != 2]
    moments = f"min {wanted.min():.3f}, max {wanted.max():.3f}, mean {wanted.mean():.3f}, std {wanted.std():.3f}"
    shares = (
        f"foreground {(wanted > 0.5).mean():.2%} of the labelled voxels, truth {(label[label != 2] == 1).mean():.2%}"
    )
    assert first.endswith(f"{moments}, {shares}, threshold 0.5: sound")


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("weight", "bias", "activated", "fault"),
    [
        (0.0, 3.0, False, "FLOORED: every probability is 0.5 or more: was an activation applied twice?"),
        (0.0, -3.0, False, "UNIFORM: expected at least 0.1% foreground, got 0.00%"),
        (0.01, 0.0, False, "UNIFORM: expected a variance of at least 0.001, got "),
        (3.0, -2.0, True, "FLOORED: every probability is 0.5 or more: was an activation applied twice?"),
        (1e38, 0.0, False, "BROKEN: the logits of the tile at (0, 0, 0) are not finite"),
    ],
)
def test_a_network_that_is_dead_is_found_out(
    tmp_path: Path, world: Any, monkeypatch: pytest.MonkeyPatch, weight: float, bias: float, activated: bool, fault: str
) -> None:
    path = trained(tmp_path / "w.safetensors", monkeypatch, weight, bias, activated)
    assert audit(path).sound  # as far as numbers alone can tell
    found = audit(path, world.data / "train_images" / "11.tif", "cpu")
    assert not found.sound
    assert f": {fault}" in found.text
    assert found.text.endswith("w.safetensors: NOT SOUND")


@pytest.mark.usefixtures("one_thread")
def test_the_input_is_described_over_the_scanned_voxels_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.zeros((32, 32, 32), np.uint8)
    image[:4], image[4:8] = 100, 120  # one standard deviation below and above the mean of what is not 0
    write_lzw(tmp_path / "1.tif", image)
    path = trained(tmp_path / "w.safetensors", monkeypatch, 3.0, -2.0)
    assert "1.tif: input mean 0.00, std 1.00; " in audit(path, tmp_path, "cpu").text
    image[:8] = 100
    write_lzw(tmp_path / "1.tif", image)
    assert "1.tif: input mean 0.00, std 0.00; " in audit(path, tmp_path, "cpu").text


@pytest.mark.usefixtures("one_thread")
def test_without_labels_all_voxels_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_sheet: Callable[..., Any]
) -> None:
    image, _ = make_sheet(0)
    (tmp_path / "scans").mkdir()
    for name in "abc":
        write_lzw(tmp_path / "scans" / f"{name}.tif", image)
    path = trained(tmp_path / "w.safetensors", monkeypatch, 3.0, -2.0)
    found = audit(path, tmp_path / "scans", "cpu")
    lines = found.text.splitlines()[-3:-1]
    assert [line.partition(".tif")[0][-1] for line in lines] == ["a", "c"]
    assert all("truth" not in line and "labelled" not in line for line in lines)


def test_a_folder_without_volumes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = trained(tmp_path / "w.safetensors", monkeypatch, 1.0, 0.0)
    for data in (tmp_path, tmp_path / "none"):
        with pytest.raises(
            ValueError, match=r"expected a \.tif, a folder of them, or one with train_images; got no \.tif"
        ):
            audit(path, data, "cpu")


@pytest.mark.usefixtures("one_thread")
def test_a_label_that_is_none_of_the_volume_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_case: Callable[..., Any], make_sheet: Callable[..., Any]
) -> None:
    image, label = make_sheet(0)
    path = trained(tmp_path / "w.safetensors", monkeypatch, 1.0, 0.0)
    for wrong in (label[:-1], label + 1):
        case = write_case(tmp_path, "5", "100", image, wrong)
        with pytest.raises(ValueError, match=r"5\.tif: expected a label of \(32, 40, 36\) with 0, 1 and 2, got \("):
            audit(path, case.image, "cpu")


# --- the rest


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected a \.tif, \.npy or \.safetensors file, got \.pth"):
        audit(tmp_path / "model.pth")
    (tmp_path / "w.safetensors").write_bytes(b"no")
    with pytest.raises(WeightsError):
        audit(tmp_path / "w.safetensors")


def test_the_commands_exit_code_is_the_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = mask_of(tmp_path / "good.tif", 0.3), mask_of(tmp_path / "bad.tif", 0.9988)
    assert main(["audit", str(good)]) == 0
    assert main(["audit", str(bad), str(good)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.rpartition(": ")[2] for line in lines] == [
        *("sound", "expected at most 95% foreground, got 99.88%", "sound")
    ]
    assert main(["audit", str(tmp_path / "none.tif")]) == 1
    assert capsys.readouterr().out.startswith(f"error: {tmp_path / 'none.tif'}: no such file")
