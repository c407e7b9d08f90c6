"""What a tile costs a network: floating-point operations and memory, counted on tensors that hold nothing.

torch's "meta" device runs a network's shapes without its numbers, in a fraction of a second whatever the tile's size.
"""

import copy
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one voxel of a tile costs."""

    flop: float
    """A multiplication and an addition are two."""
    activation_bytes: float
    """Of float32 activations alive at a time, at most."""
    elements: float
    """Of the largest single tensor."""


def of(network: nn.Module, tile_zyx: tuple[int, int, int]) -> Cost:
    """Return what a tile of this shape, in voxels, costs a network, per voxel. The network is left as it is."""
    empty = copy.deepcopy(network).to("meta")
    tile = torch.empty((1, 1, *tile_zyx), device="meta")
    with torch.inference_mode(), FlopCounterMode(display=False) as flops, AliveBytes() as alive:
        empty(tile)
    voxels = tile.numel()
    return Cost(
        flop=flops.get_total_flops() / voxels,
        activation_bytes=alive.peak_bytes / voxels,
        elements=max(alive.largest, voxels) / voxels,
    )


class AliveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows how many bytes of tensors are alive, of those that are made within it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak_bytes = self.largest = self._bytes = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._count(tensor)
        return made

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        self.largest = max(self.largest, tensor.numel())
        if key in self._known:  # a view, or an operation in place
            return
        self._known.add(key)
        size = storage.nbytes()
        self._bytes += size
        self.peak_bytes = max(self.peak_bytes, self._bytes)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._bytes -= size
