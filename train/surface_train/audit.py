"""Is a prediction alive? Foreground share, spread, and a verdict, for masks and probabilities on disk."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from surface_kernel import volume, weights
from surface_kernel.report import LEAST_VARIANCE, UNIFORM_SHARES

THRESHOLD = 0.5  # at which probabilities are counted as foreground


@dataclass(frozen=True)
class Audit:
    """What a file holds, and whether that can be a prediction."""

    text: str
    sound: bool


def audit(path: Path) -> Audit:
    """Look at a mask (.tif), probabilities (.npy) or weights (.safetensors). Raises ValueError for anything else."""
    if path.suffix in (".tif", ".tiff"):
        return _mask(path)
    if path.suffix == ".npy":
        return _probabilities(path)
    if path.suffix == ".safetensors":
        return _weights(path)
    raise ValueError(f"{path}: found {path.suffix or 'no ending'}, wanted .tif, .npy or .safetensors")


def _mask(path: Path) -> Audit:
    mask = volume.read(path) != 0
    return _verdict(path, float(mask.mean()), f"shape {mask.shape}, ")


def _probabilities(path: Path) -> Audit:
    values = np.load(path, allow_pickle=False)
    if values.ndim != 3 or values.dtype.kind != "f" or not np.isfinite(values).all():
        raise ValueError(f"{path}: found {values.dtype} {values.shape}, wanted finite probabilities (z, y, x)")
    if values.min() < 0 or values.max() > 1:
        raise ValueError(f"{path}: found values from {values.min():.3g} to {values.max():.3g}, wanted 0 to 1")
    text = f"min {values.min():.3f}, max {values.max():.3f}, mean {values.mean():.3f}, std {values.std():.3f}, "
    spread = float(values.var(dtype=np.float64))
    made = _verdict(path, float((values > THRESHOLD).mean()), text)
    if spread < LEAST_VARIANCE:
        return Audit(f"{made.text}; UNIFORM: variance {spread:.2g}, wanted at least {LEAST_VARIANCE}", False)
    return made


def _verdict(path: Path, share: float, text: str) -> Audit:
    low, high = UNIFORM_SHARES
    sound = low <= share <= high
    verdict = "sound" if sound else f"UNIFORM: wanted {low:.1%} to {high:.0%} foreground"
    return Audit(f"{path}: {text}foreground {share:.2%}: {verdict}", sound)


def _weights(path: Path) -> Audit:
    metadata, tensors = weights.load(path)
    broken = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    count = sum(tensor.numel() for tensor in tensors.values())
    text = f"{path}: {metadata.architecture}, {count / 1e6:.1f} M numbers, threshold {metadata.threshold}"
    if broken:
        return Audit(f"{text}: BROKEN: {len(broken)} tensors are not finite, {broken[0]} first", False)
    return Audit(f"{text}, {dict(metadata.provenance)}: sound", True)
