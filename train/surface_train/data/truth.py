"""The truth that a loss compares with: labels, and the two maps that are made of them once.

`boundary_distance` and `skeleton` are numpy and run in the loader's threads; `Truth` holds their results for a batch.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from surface_train.data.distance import distance_to

FAR_VOXELS = 1e6


def boundary_distance(label: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Give every voxel's distance in voxels to the nearest voxel labelled as the other kind.

    label: uint8 {0, 1, 2} (z, y, x); float32 of the same shape comes back. Label 2 is neither kind: where the
    annotation ends there is no boundary; a voxel of it gets its distance to the surface. FAR_VOXELS where the other
    kind is missing.
    """
    return np.where(label == 1, distance_to(label, 0), distance_to(label, 1))


def skeleton(label: npt.NDArray[np.uint8], iterations: int) -> npt.NDArray[np.uint8]:
    """Give the skeleton {0, 1} of the surface at half resolution: uint8, each side of (z, y, x) halved and rounded up.

    On a mask the soft skeleton of Shit et al. 2021 (algorithm 1) is this one: what an opening takes away, of the mask
    and of each of its `iterations` erosions. Empty where there is no surface.
    """
    image = _halved(label == 1)
    found = np.zeros_like(image)
    for _ in range(iterations + 1):
        eroded = _eroded(image)
        found |= image & ~_widened(eroded)
        image = eroded
    return found.view(np.uint8)


def _halved(image: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    for axis in range(3):
        first, second = (np.moveaxis(image, axis, 0)[start::2] for start in (0, 1))
        half = first.copy()
        half[: len(second)] |= second
        image = np.moveaxis(half, 0, axis)
    return np.ascontiguousarray(image)


def _eroded(image: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Keep voxels whose six neighbours, as far as there are any, belong to the image too."""
    kept = image.copy()
    for axis in range(3):
        into, seen = np.moveaxis(kept, axis, 0), np.moveaxis(image, axis, 0)
        into[1:] &= seen[:-1]
        into[:-1] &= seen[1:]
    return kept


def _widened(image: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Add all 26 neighbours."""
    for axis in range(3):
        wide = image.copy()
        into, seen = np.moveaxis(wide, axis, 0), np.moveaxis(image, axis, 0)
        into[1:] |= seen[:-1]
        into[:-1] |= seen[1:]
        image = wide
    return image


@dataclass(frozen=True)
class Truth:
    """Labels of a batch, and what the terms of a loss need to know of them, each made once and only when asked for.

    labels: uint8 {0, 1, 2} (batch, z, y, x). distances: float32 of that shape, `boundary_distance` of each sample.
    skeletons: uint8 {0, 1} (batch, half z, half y, half x), `skeleton` of each sample with skeleton_iterations. What
    is not given is made, on the CPU. Raises ValueError when shapes or dtypes do not belong together.
    """

    labels: Tensor
    distances: Tensor | None = None
    skeletons: Tensor | None = None
    skeleton_iterations: int = 3

    def __post_init__(self) -> None:
        if self.labels.dtype != torch.uint8 or self.labels.dim() != 4:
            found = f"{self.labels.dtype} {tuple(self.labels.shape)}"
            raise ValueError(f"labels: found {found}, wanted torch.uint8 (batch, z, y, x)")
        batch, *shape_zyx = self.labels.shape
        half = (batch, *((side + 1) // 2 for side in shape_zyx))
        for name, given, wanted in (
            ("distances", self.distances, tuple(self.labels.shape)),
            ("skeletons", self.skeletons, half),
        ):
            if given is not None and tuple(given.shape) != wanted:
                raise ValueError(f"{name}: found {tuple(given.shape)}, wanted {wanted} for these labels")

    @cached_property
    def labelled(self) -> Tensor:
        """Give 1.0 where a voxel is labelled, else 0.0."""
        return (self.labels != 2).float()

    @cached_property
    def surface(self) -> Tensor:
        """Give 1.0 where a voxel is labelled as surface, else 0.0."""
        return (self.labels == 1).float()

    @cached_property
    def sign(self) -> Tensor:
        """Give −1.0 on surface, else 1.0: a logit times this is above 0 where it is wrong."""
        return torch.rsub(self.surface, 1, alpha=2)

    @cached_property
    def labelled_count(self) -> Tensor:
        """Count each sample's labelled voxels: float32 (batch,)."""
        return (self.labels != 2).sum((1, 2, 3)).float()

    @cached_property
    def surface_count(self) -> Tensor:
        """Count each sample's surface voxels: float32 (batch,)."""
        return (self.labels == 1).sum((1, 2, 3)).float()

    @cached_property
    def any_labelled(self) -> Tensor:
        """Give 1.0 for samples with a labelled voxel, else 0.0: float32 (batch,)."""
        return (self.labelled_count > 0).float()

    @cached_property
    def variance(self) -> Tensor:
        """Give the variance of the surface over each sample's labelled voxels, s (1 − s) of its share s: (batch,)."""
        share = self.surface_count / self.labelled_count.clamp(min=1)
        return share * (1 - share)

    @cached_property
    def boundary_distance(self) -> Tensor:
        """Give `distances`, or make them."""
        if self.distances is not None:
            return self.distances
        made = [boundary_distance(sample) for sample in self.labels.cpu().numpy()]
        return torch.from_numpy(np.stack(made)).to(self.labels.device)

    @cached_property
    def skeleton(self) -> Tensor:
        """Give `skeletons`, or make them, as 1.0 and 0.0."""
        if self.skeletons is not None:
            return self.skeletons.float()
        made = [skeleton(sample, self.skeleton_iterations) for sample in self.labels.cpu().numpy()]
        return torch.from_numpy(np.stack(made)).to(self.labels.device).float()

    @cached_property
    def halved_surface(self) -> Tensor:
        """Give the surface at half resolution: 1.0 where any of a block's 2×2×2 voxels is surface, else 0.0."""
        return functional.max_pool3d(self.surface, 2, 2, ceil_mode=True)

    @cached_property
    def widened_surface(self) -> Tensor:
        """Give 1.0 on surface and its 26 neighbours, else 0.0."""
        wide = self.labels == 1
        for axis in (1, 2, 3):
            seen, steps = wide.clone(), wide.shape[axis] - 1
            wide.narrow(axis, 1, steps).logical_or_(seen.narrow(axis, 0, steps))
            wide.narrow(axis, 0, steps).logical_or_(seen.narrow(axis, 1, steps))
        return wide.float()

    def mean(self, values: Tensor) -> Tensor:
        """Average values over each sample's labelled voxels: (batch, z, y, x) to (batch,); 0 without any."""
        return (values * self.labelled).sum((1, 2, 3)) / self.labelled_count.clamp(min=1)
