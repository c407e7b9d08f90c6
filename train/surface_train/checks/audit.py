"""Sanity check of masks, probabilities and weights on disk: foreground share, statistics, and a verdict."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from surface_kernel import probability
from surface_kernel.networks import weights
from surface_kernel.runs.report import validation_fault
from surface_kernel.volumes import volume
from surface_kernel.volumes.intensity import Intensity
from surface_kernel.volumes.names import ARRAYS, TIFFS, find_volumes
from surface_kernel.volumes.scanned import scanned_bits, unpacked
from surface_train.checks.sentinel import SeenProbabilities, violation
from surface_train.data import cases, check
from surface_train.data.cases import UNLABELLED
from surface_train.settings import Sentinel

if TYPE_CHECKING:
    from torch import Tensor

    from surface_kernel.inference.engine import Engine

THRESHOLD = 0.5  # above which probabilities on disk count as foreground
_LIMITS = Sentinel()
_ARRAY = "probabilities or a mask, (z, y, x)"
_VOLUMES = 2  # of the data, on which weights are run
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # of BatchNorm: tensors that are not learnt


@dataclass(frozen=True)
class Audit:
    """The result of one file's sanity check."""

    text: str
    """Its statistics and the verdict."""
    sound: bool
    """Whether it can be a prediction of surfaces, or the weights of a network that makes one."""


def audit(path: Path, data: Path | None = None, device: str | None = None) -> Audit:
    """Check a mask or label (.tif), a mask or probabilities (.npy), or weights (.safetensors).

    Volumes are held one at a time, probabilities slab by slab.

    Args:
        path: the file.
        data: a competition's folder, a folder of .tif or one .tif: weights are also run on up to two volumes of it.
        device: for that: "cpu", "cuda" or "cuda:N".

    Raises:
        ValueError: for a file of another kind, and what the kernel raises.
    """
    suffix = path.suffix.lower()
    if suffix in TIFFS:
        return _integers(path, volume.read(path))
    if suffix in ARRAYS:
        return _array(path)
    if suffix == ".safetensors":
        return _weights(path, data, device)
    raise ValueError(f"{path}: expected a .tif, .npy or .safetensors file, got {path.suffix or 'no suffix'}")


def audit_data(data: Path) -> Audit:
    """Check the cases of a competition's folder as `fit` does before its first step. Raises CasesError."""
    listed, missing = cases.read(data)
    checked = check.check(listed)
    refused = any(case.fault for case in checked)
    rows = f"; {missing} rows of train.csv without image or label" if missing else ""
    text = f"{data}: {check.described(checked, listed)}\n{data}: {'NOT SOUND' if refused else 'sound'}{rows}"
    return Audit(text, not refused)


# --- masks and labels


def _integers(path: Path, voxels: npt.NDArray[Any]) -> Audit:
    """Judge a mask, {0, 1}, by its share, and a label, {0, 1, 2}, by its share of 1 among the labelled voxels."""
    counts = np.zeros(256, np.int64)
    for page in voxels:
        counts += np.bincount(page.reshape(-1), minlength=256)
    text = f"{path}: shape {voxels.shape}, {_moments_of(counts)}, "
    present = np.flatnonzero(counts)
    if present[-1] > UNLABELLED:
        others = present[present > 1]
        named = ", ".join(map(str, others[:3])) + (", …" if len(others) > 3 else "")
        return Audit(f"{text}NO MASK: expected only values 0 and 1, got {named}", False)
    share = _share(counts[1], counts[:2].sum())
    if present[-1] == UNLABELLED:
        zero, one, two = counts[:3] / counts.sum()
        text += f"a label: 0 {zero:.2%}, 1 {one:.2%}, 2 (unlabelled) {two:.2%}; with 2 as surface {one + two:.2%}; "
        text += f"surface among the labelled {share:.2%}"
    else:
        text += f"foreground {share:.2%}"
    fault = violation(_LIMITS, share)
    return Audit(f"{text}: {f'UNIFORM: {fault}' if fault else 'sound'}", not fault)


def _moments_of(counts: npt.NDArray[np.int64]) -> str:
    grey = np.arange(256)
    mean = float((counts * grey).sum() / counts.sum())
    deviation = math.sqrt((counts * (grey - mean) ** 2).sum() / counts.sum())
    present = np.flatnonzero(counts)
    return f"min {present[0]}, max {present[-1]}, mean {mean:.3f}, std {deviation:.3f}"


def _share(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole else 0.0


# --- probabilities


def _array(path: Path) -> Audit:
    try:
        values = np.load(path, allow_pickle=False, mmap_mode="r")
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: expected {_ARRAY}, got no readable array: {error}") from error
    integers = values.dtype.kind in "biu"
    if values.ndim != 3 or not values.size or not (integers or values.dtype.kind == "f"):
        raise ValueError(f"{path}: expected {_ARRAY}, got {values.dtype} {values.shape}")
    low, high = values.min(), values.max()  # NaN where there is one
    if integers:
        if low < 0 or high > 255:
            raise ValueError(f"{path}: expected a mask of 0 and 1, got values from {low} to {high}")
        return _integers(path, values)
    if not 0 <= low <= high <= 1:
        raise ValueError(f"{path}: expected probabilities from 0 to 1, got values from {low:.3g} to {high:.3g}")
    seen = SeenProbabilities(THRESHOLD, _LIMITS)
    for page in values:
        seen.add(page)
    return Audit(f"{path}: shape {values.shape}, {seen.text}: {seen.fault or 'sound'}", not seen.fault)


# --- weights


def _weights(path: Path, data: Path | None, device: str | None) -> Audit:
    metadata, tensors = weights.load(path)
    learnt = sum(tensor.numel() for name, tensor in tensors.items() if name.rpartition(".")[2] not in _STATISTICS)
    lines = [f"{path}: {learnt:,} parameters in {len(tensors)} tensors", *_described(metadata)]
    broken = _not_finite(tensors)
    if broken:
        lines.append(f"  BROKEN: {len(broken)} tensors are not finite, {broken[0]} first")
    else:
        lines.append("  all values are finite")
    fault = validation_fault(metadata.provenance)
    if fault:
        lines.append(f"  UNIFORM in its own validation: {fault}")
    sound = not broken and not fault
    if not broken and data is not None:
        for made in _predictions(path, _chosen(data), device):
            lines.append("  " + made.text)
            sound = sound and made.sound
    lines.append(f"{path}: {'sound' if sound else 'BROKEN' if broken else 'NOT SOUND'}")
    return Audit("\n".join(lines), sound)


def _not_finite(tensors: Mapping[str, "Tensor"]) -> list[str]:
    return [name for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]


def _described(metadata: weights.Metadata) -> Iterable[str]:
    """Yield the metadata line by line, one line per entry of the provenance too."""
    yield "  architecture: " + ", ".join(map(str, metadata.architecture.to_mapping().values()))
    yield "  intensity: " + ", ".join(f"{name} {value}" for name, value in metadata.intensity.to_mapping().items())
    yield f"  tile: {' × '.join(map(str, metadata.tile_zyx))}, overlap {metadata.overlap:g}"
    yield f"  threshold: {metadata.threshold:g}"
    for name, value in metadata.provenance.items():
        if isinstance(value, Mapping):
            yield f"  {name}: " + ", ".join(f"{inner} {number}" for inner, number in value.items())
        else:
            yield f"  {name}: {value if isinstance(value, str) else json.dumps(value)}"


def _chosen(data: Path) -> list[Path]:
    """Return the volumes to predict: a file itself, else up to two of a folder, far apart in the order of names."""
    if data.is_file():
        return [data]
    folders = [folder for folder in (data / "train_images", data / "test_images", data) if folder.is_dir()]
    volumes = find_volumes(folders[0], TIFFS)[0] if folders else []
    if not volumes:
        raise ValueError(f"{data}: expected a .tif, a folder of them, or one with train_images; got no .tif")
    return volumes[:: max(1, math.ceil(len(volumes) / _VOLUMES))][:_VOLUMES]


def _predictions(path: Path, images: Iterable[Path], device: str | None) -> Iterable[Audit]:
    from surface_kernel.inference.engine import Engine
    from surface_kernel.inference.predict import PredictionError
    from surface_kernel.inference.settings import Settings

    engine = Engine.load([path], Settings(), device_name=device)
    for image in images:
        try:
            yield _prediction(engine, image)
        except PredictionError as error:
            yield Audit(f"{image}: BROKEN: {error}", False)


def _prediction(engine: "Engine", image: Path) -> Audit:
    """Run the weights on a volume, and check its labelled voxels where there is a label, else all of them."""
    grey = volume.read(image)
    label = _label_of(image, grey.shape)
    seen = SeenProbabilities(engine.threshold, _LIMITS)
    bits = scanned_bits(grey)
    for start_z, slab in engine.logits(grey, scanned=bits):
        planes = slice(start_z, start_z + len(slab))
        # What was not scanned has the logit of background, whatever the network does: it would hide a collapse.
        counted = unpacked(bits[planes], grey.shape[2])
        if label is not None:
            counted &= label[planes] != UNLABELLED
        seen.add(probability.probabilities(slab[counted]))
    text = f"{image}: input {_input(engine.metadata[0].intensity, grey)}; probabilities: {seen.text}"
    if label is not None:
        counts = np.bincount(label.reshape(-1), minlength=3)
        text += f" of the labelled voxels, truth {_share(counts[1], counts[:2].sum()):.2%}"
    return Audit(f"{text}, threshold {engine.threshold:g}: {seen.fault or 'sound'}", not seen.fault)


def _label_of(image: Path, shape_zyx: tuple[int, ...]) -> volume.Volume | None:
    """Read the label of the same name beside the images' folder, as in train_labels; None without one."""
    folder = image.parent
    path = folder.with_name(folder.name.replace("images", "labels")) / image.name
    if path == image or not path.is_file():
        return None
    label = volume.read(path)
    if label.shape != shape_zyx or label.max() > UNLABELLED:
        got = f"{label.shape} with values up to {label.max()}"
        raise ValueError(f"{path}: expected a label of {shape_zyx} with 0, 1 and 2, got {got}")
    return label


def _input(intensity: Intensity, grey: volume.Volume) -> str:
    """Return the statistics of the network's input for a volume's scanned voxels."""
    counts = np.bincount(grey.reshape(-1), minlength=256)
    counts[0] = 0
    table, total = intensity.table(grey).astype(np.float64), max(int(counts.sum()), 1)
    mean = float((counts * table).sum() / total)
    deviation = math.sqrt((counts * (table - mean) ** 2).sum() / total)
    return f"mean {mean:.2f}, std {deviation:.2f}"
