"""From grey values to what a network is fed: one function, used by training and inference alike.

A uint8 volume has at most 256 different values, so the whole treatment is a table of 256 numbers made from the
volume's histogram: exact, and no float copy of a volume is ever needed to find its mean.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from surface_kernel.compiled import compiled
from surface_kernel.volumes.volume import forget_planes

Table = npt.NDArray[np.float32]
_PLANES = 64  # read at a time: a memory-mapped volume need not fit in memory


class IntensityError(ValueError):
    """An intensity treatment that is not known here; the message names the entry."""


@dataclass(frozen=True, kw_only=True)
class Intensity:
    """Standardise a volume by the mean and standard deviation of its scanned voxels.

    Zeros are left out of both: they are the margins of a volume that was cut out of a bigger scan, and their share
    differs from volume to volume.
    """

    kind: str = "standardised"
    """The only treatment there is."""
    limit: float = 5.0
    """Standardised values are clipped to ± this many standard deviations."""

    def __post_init__(self) -> None:
        if self.kind != "standardised":
            raise IntensityError(f'intensity.kind: expected "standardised", got "{self.kind}"')
        if not self.limit > 0:
            raise IntensityError(f"intensity.limit: expected a number > 0, got {self.limit}")

    @classmethod
    def from_mapping(cls, entries: Mapping[str, Any]) -> Self:
        """Check the entries of a settings or weights file. Raises IntensityError."""
        if set(entries) - {"kind", "limit"}:
            raise IntensityError(f"intensity: expected kind and limit, got {sorted(entries)}")
        limit = entries.get("limit", 1)
        if isinstance(limit, bool) or not isinstance(limit, int | float):
            raise IntensityError(f"intensity.limit: expected a number > 0, got {limit!r}")
        return cls(**entries)

    def to_mapping(self) -> dict[str, Any]:
        """Return the entries that `from_mapping` reads."""
        return asdict(self)

    def table(self, volume: npt.NDArray[np.uint8]) -> Table:
        """Return the network's input for every grey value of this volume.

        Args:
            volume: uint8 (z, y, x).

        Returns:
            float32 (256,). Where a volume holds zeros only, or a single other value, that value becomes 0.
        """
        planes = volume.reshape(-1, *volume.shape[-2:])
        counts = np.zeros(256, np.float64)
        for first in range(0, len(planes), _PLANES):
            counts += _counts(np.asarray(planes[first : first + _PLANES])).sum(axis=0)
            forget_planes(planes, first + _PLANES)
        grey = np.arange(256, dtype=np.float64)
        counts[0] = 0.0
        total = counts.sum()
        if total == 0.0:
            return np.zeros(256, np.float32)
        mean = float((counts * grey).sum() / total)
        deviation = float(np.sqrt((counts * (grey - mean) ** 2).sum() / total))
        scaled = (grey - mean) / max(deviation, 1.0)  # a deviation under one grey level is only rounding
        return np.clip(scaled, -self.limit, self.limit).astype(np.float32)


@compiled()
def _counts(volume: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Return how many voxels have every grey value, in four parts to be added up: int64 (4, 256)."""
    # Four tables: with one, a voxel that equals the one before would wait for its count to be written. They are added
    # up by numpy: a sum along an axis takes numba seconds to compile.
    counts = np.zeros((4, 256), np.int64)
    depth, height, width = volume.shape
    for z in range(depth):
        for y in range(height):
            row = volume[z, y]
            for x in range(0, width - 3, 4):
                counts[0, row[x]] += 1
                counts[1, row[x + 1]] += 1
                counts[2, row[x + 2]] += 1
                counts[3, row[x + 3]] += 1
            for x in range(width - width % 4, width):
                counts[0, row[x]] += 1
    return counts
