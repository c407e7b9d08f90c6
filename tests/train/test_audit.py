from pathlib import Path

import numpy as np
import pytest
import torch

from surface_kernel import weights
from surface_kernel.architecture import Architecture
from surface_kernel.intensity import Intensity
from surface_kernel.volume import write_mask
from surface_kernel.weights import Metadata, WeightsError
from surface_train.__main__ import main
from surface_train.audit import audit


def mask_of(path: Path, share: float) -> Path:
    mask = np.zeros(10_000, np.uint8)
    mask[: round(share * mask.size)] = 1
    write_mask(path, mask.reshape(10, 20, 50))
    return path


def weights_of(path: Path, value: float) -> Path:
    described = Metadata(Architecture(), Intensity(), (32, 32, 32), threshold=0.35, provenance={"epoch": 4})
    weights.save(path, {"a": torch.tensor([1.0, value]), "n": torch.tensor([3])}, described)
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
    assert f"shape (10, 20, 50), foreground {shown}: {'sound' if sound else 'UNIFORM'}" in found.text


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
    assert "UNIFORM: variance 0.0001, wanted at least 0.001" in found.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.full((2, 2, 2), np.nan, np.float32), "wanted finite probabilities"),
        (np.zeros((2, 2), np.float32), "wanted finite probabilities"),
        (np.zeros((2, 2, 2), np.uint8), "wanted finite probabilities"),
        (np.linspace(-3, 3, 8).reshape(2, 2, 2), "found values from -3 to 3, wanted 0 to 1"),
    ],
)
def test_what_is_no_probability_is_refused(tmp_path: Path, content: np.ndarray, message: str) -> None:
    np.save(tmp_path / "p.npy", content)
    with pytest.raises(ValueError, match=message):
        audit(tmp_path / "p.npy")


def test_a_pickle_is_not_run(tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        audit(tmp_path / "p.npy")


def test_weights_tell_what_they_are(tmp_path: Path) -> None:
    found = audit(weights_of(tmp_path / "w.safetensors", 2.0))
    assert found.sound
    assert "threshold 0.35" in found.text
    assert "'epoch': 4" in found.text


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_with_a_number_that_is_none_are_broken(tmp_path: Path, value: float) -> None:
    found = audit(weights_of(tmp_path / "w.safetensors", value))
    assert not found.sound
    assert "BROKEN: 1 tensors are not finite, a first" in found.text


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"found \.pth, wanted \.tif, \.npy or \.safetensors"):
        audit(tmp_path / "model.pth")
    (tmp_path / "w.safetensors").write_bytes(b"no")
    with pytest.raises(WeightsError):
        audit(tmp_path / "w.safetensors")


def test_the_commands_exit_code_is_the_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = mask_of(tmp_path / "good.tif", 0.3), mask_of(tmp_path / "bad.tif", 0.9988)
    assert main(["audit", str(good)]) == 0
    assert main(["audit", str(bad), str(good)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.rpartition(": ")[2] for line in lines] == ["sound", "wanted 0.1% to 95% foreground", "sound"]
    assert main(["audit", str(tmp_path / "none.tif")]) == 1
    assert capsys.readouterr().out.startswith(f"error: {tmp_path / 'none.tif'}: found no such file")
