"""The truth that a loss compares with: the labels of a batch, and what the terms need to know of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from surface_train.data.maps import LabelMap


@dataclass(frozen=True)
class Truth:
    """Labels of a batch, and what is derived of them: each made once, and only when a term asks for it.

    Raises ValueError for labels of another dtype or number of axes.
    """

    labels: Tensor
    """uint8 {0, 1, 2}, (batch, z, y, x)."""

    maps: Mapping[str, Tensor] = field(default_factory=dict)
    """Maps of the labels by name, as the loader makes them: (batch, …) each. Without any, all are made on demand."""

    made: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Maps that were asked for and not given."""

    def __post_init__(self) -> None:
        if self.labels.dtype != torch.uint8 or self.labels.dim() != 4:
            got = f"{self.labels.dtype} {tuple(self.labels.shape)}"
            raise ValueError(f"labels: expected torch.uint8 (batch, z, y, x), got {got}")

    def map(self, kind: LabelMap) -> Tensor:
        """Return the batch's map of a kind: the given one or, where none at all are given, one made on the CPU, once.

        Raises ValueError when others are given but not this one, or when it does not have the shape of the labels' map.
        """
        if not self.maps:
            return self._make(kind)
        if kind.name not in self.maps:
            # Making it here would hide that the loader makes the maps of another loss, and slow every step down.
            raise ValueError(f"maps: expected {kind.name}, got {', '.join(self.maps)}")
        given, expected = self.maps[kind.name], (len(self.labels), *kind.shape(self.labels.shape[1:]))
        if tuple(given.shape) != expected:
            raise ValueError(f"maps: expected {kind.name} of {expected} for these labels, got {tuple(given.shape)}")
        return given

    def _make(self, kind: LabelMap) -> Tensor:
        if kind.name not in self.made:
            made = np.stack([kind.make(label) for label in self.labels.cpu().numpy()])
            self.made[kind.name] = torch.from_numpy(made).to(self.labels.device)
        return self.made[kind.name]

    @cached_property
    def labelled(self) -> Tensor:
        """Return 1.0 where a voxel is labelled, else 0.0."""
        return (self.labels != 2).float()

    @cached_property
    def surface(self) -> Tensor:
        """Return 1.0 where a voxel is labelled as surface, else 0.0."""
        return (self.labels == 1).float()

    @cached_property
    def sign(self) -> Tensor:
        """Return −1.0 on surface, else 1.0: a logit times this is above 0 where it is wrong."""
        return torch.rsub(self.surface, 1, alpha=2)

    @cached_property
    def labelled_count(self) -> Tensor:
        """Return the number of each sample's labelled voxels: float32 (batch,)."""
        return (self.labels != 2).sum((1, 2, 3)).float()

    @cached_property
    def surface_count(self) -> Tensor:
        """Return the number of each sample's surface voxels: float32 (batch,)."""
        return (self.labels == 1).sum((1, 2, 3)).float()

    @cached_property
    def any_labelled(self) -> Tensor:
        """Return 1.0 for samples with a labelled voxel, else 0.0: float32 (batch,)."""
        return (self.labelled_count > 0).float()

    @cached_property
    def variance(self) -> Tensor:
        """Return the variance of the surface over each sample's labelled voxels, s (1 − s) of its share s: (batch,)."""
        share = self.surface_count / self.labelled_count.clamp(min=1)
        return share * (1 - share)

    @cached_property
    def halved_surface(self) -> Tensor:
        """Return the surface at half resolution: 1.0 where any of a block's 2×2×2 voxels is surface, else 0.0."""
        return functional.max_pool3d(self.surface, 2, 2, ceil_mode=True)

    @cached_property
    def dilated_surface(self) -> Tensor:
        """Return 1.0 on surface and its 26 neighbours, else 0.0."""
        wide = self.labels == 1
        for axis in (1, 2, 3):
            seen, steps = wide.clone(), wide.shape[axis] - 1
            wide.narrow(axis, 1, steps).logical_or_(seen.narrow(axis, 0, steps))
            wide.narrow(axis, 0, steps).logical_or_(seen.narrow(axis, 1, steps))
        return wide.float()

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean over each sample's labelled voxels, 0 without any: (batch, z, y, x) to (batch,)."""
        return (values * self.labelled).sum((1, 2, 3)) / self.labelled_count.clamp(min=1)
