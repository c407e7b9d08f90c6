"""Weights at half precision: half the bytes to upload and to mount, and how far that changes a prediction."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from surface_kernel import probability
from surface_kernel.inference.engine import Engine
from surface_kernel.inference.settings import Settings
from surface_kernel.networks import weights
from surface_kernel.networks.placing import choose, within_memory
from surface_kernel.networks.weights import WeightsError
from surface_kernel.postprocess.drop_small_components import drop_small_components
from surface_kernel.volumes import volume


@dataclass(frozen=True)
class Change:
    """What half precision changed on one volume, predicted in float32 on the CPU with the bundle's settings.

    largest_logit_change: of the mean logits over members and views, at the voxel where it is largest, to four
    digits. changed_voxels: of the mask as it is submitted, without dust; beside them all of the volume, and how many
    are surface by the weights as they were trained.
    """

    volume: str
    voxels: int
    surface_voxels: int
    changed_voxels: int
    largest_logit_change: float

    def __str__(self) -> str:
        share = f"{self.changed_voxels / self.voxels:.4%} of the mask's {self.voxels} voxels"
        return (
            f"half precision on {self.volume}: logits change by {self.largest_logit_change} at most, "
            f"{self.changed_voxels} voxels by their mask ({share}, {self.surface_voxels} of them surface)"
        )


def write(source: Path, target: Path) -> None:
    """Write a weights file again, its kernels and matrices in float16. Raises WeightsError where one does not fit.

    What has a single axis stays as it is: biases, and the scales and running statistics of norms. It is a thousandth
    of the bytes, and with it in float16 the demo's logits changed three times as much. The kernel widens what it loads.
    """
    metadata, state = weights.load(source)
    for name, tensor in state.items():
        if tensor.is_floating_point() and tensor.ndim > 1:
            state[name] = tensor.half()
            if not state[name].isfinite().all():
                found = f"{tensor.abs().max():.4g} in {name}"
                raise WeightsError(f"{source}: found {found}, wanted numbers that float16 holds; build without --half")
    weights.save(target, state, metadata)


def compare(full: Sequence[Path], halved: Sequence[Path], settings: Settings, path: Path) -> Change:
    """Predict one volume with both. Raises VolumeError, and what the engine raises."""
    grey = volume.read(path)
    logits, mask = _predict(full, settings, grey)
    others, other = _predict(halved, settings, grey)
    return Change(
        volume=path.name,
        voxels=mask.size,
        surface_voxels=int(mask.sum()),
        changed_voxels=int(np.count_nonzero(mask != other)),
        largest_logit_change=float(f"{np.abs(logits - others).max():.4g}"),
    )


def _predict(
    files: Sequence[Path], settings: Settings, grey: volume.Volume
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Give a volume's mean logits and its mask."""
    with Engine.load(files, settings, device=replace(choose("cpu"), dtype="float32")) as engine:
        if all(metadata.architecture.local for metadata in engine.metadata):
            engine.take(within_memory(engine.device, engine.cost))  # larger tiles: less to compute
        logits = np.empty(grey.shape, np.float32)
        tiles = engine.grid(grey.shape).tiles * sum(map(len, engine.stages))
        with tqdm(total=tiles, unit="tile", leave=False, disable=None) as bar:
            for first, slab in engine.logits(grey, bar.update):
                logits[first : first + len(slab)] = slab
        mask = probability.above(logits, engine.threshold)
    drop_small_components(mask, settings.dust_voxels, connectivity=26)
    return logits, mask
