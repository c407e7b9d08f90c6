"""The engine: weights files and settings in, then a mask for every volume that is handed over."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from surface_kernel import surface, weights
from surface_kernel.device import Device, choose, share_threads
from surface_kernel.network import restore
from surface_kernel.predict import Logits, Member, Volume, slabs
from surface_kernel.settings import Settings
from surface_kernel.tiles import Grid
from surface_kernel.weights import WeightsError


@dataclass(frozen=True)
class Prediction:
    """A mask, uint8 {0, 1} (z, y, x), and what its probabilities were like."""

    mask: surface.Mask
    foreground: float
    variance: float


@dataclass(frozen=True)
class Engine:
    """Loaded members and how their logits become masks."""

    members: Sequence[Member]
    tile_zyx: tuple[int, int, int]
    overlap: float
    threshold: float
    settings: Settings
    device: Device

    @classmethod
    def load(cls, files: Sequence[Path], settings: Settings, device_name: str | None = None) -> "Engine":
        """Load and check every weights file. Raises WeightsError, NetworkError, DeviceError."""
        device = choose(device_name)
        share_threads(device)
        loaded = [weights.load(path) for path in files]
        first = loaded[0][0]
        for path, (metadata, _) in zip(files, loaded, strict=True):
            if (metadata.tile_zyx, metadata.overlap) != (first.tile_zyx, first.overlap):
                found, wanted = (metadata.tile_zyx, metadata.overlap), (first.tile_zyx, first.overlap)
                raise WeightsError(f"{path}: found tile and overlap {found}, wanted {wanted} as in {files[0].name}")
        members = [
            Member(device.place(restore(metadata.architecture, state)), metadata.intensity)
            for metadata, state in loaded
        ]
        threshold = first.threshold if settings.threshold is None else settings.threshold
        return cls(members, first.tile_zyx, first.overlap, threshold, settings, device)

    def grid(self, shape_zyx: tuple[int, int, int]) -> Grid:
        """Plan the tiles of a volume."""
        return Grid(shape_zyx, self.tile_zyx, self.overlap)

    def logits(
        self, volume: Volume, on_tiles: Callable[[int], object] = lambda count: None
    ) -> Iterator[tuple[int, Logits]]:
        """Yield the volume's logits as `predict.slabs` does."""
        return slabs(self.members, volume, self.grid(volume.shape), self.device, self.settings.views, on_tiles)

    def predict(self, volume: Volume, on_tiles: Callable[[int], object] = lambda count: None) -> Prediction:
        """Predict the mask of a uint8 volume (z, y, x). Raises PredictionError."""
        mask = np.empty(volume.shape, np.uint8)
        total = total_of_squares = 0.0
        for start_z, slab in self.logits(volume, on_tiles):
            mask[start_z : start_z + len(slab)] = surface.above(slab, self.threshold)
            probability = surface.probability(slab)
            total += float(probability.sum(dtype=np.float64))
            total_of_squares += float(np.square(probability).sum(dtype=np.float64))
        mask = surface.drop_dust(mask, self.settings.dust_voxels)
        mean = total / volume.size
        return Prediction(mask, float(mask.mean()), max(0.0, total_of_squares / volume.size - mean**2))
