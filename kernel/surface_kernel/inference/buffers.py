"""Memory for tiles that is used again: fresh memory costs more to touch first than a tile costs to cut."""

from collections.abc import Iterable
from threading import Lock

import torch
from torch import Tensor


class Buffers:
    """Tensors on the CPU, kept for whoever wants one of their kind next. Several threads may use it.

    Args:
        pinned: whether a GPU is to reach them, so that copies go on beside its work.
    """

    def __init__(self, *, pinned: bool) -> None:
        self._pinned = pinned
        self._free: list[Tensor] = []
        self._lock = Lock()

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return a tensor of any content: one that was given back before, else a new one."""
        with self._lock:
            for place, kept in enumerate(self._free):
                if kept.shape == shape and kept.dtype == dtype:
                    return self._free.pop(place)
        # Whatever mode the caller is in: the threads that write into it later are in none, and could not.
        with torch.inference_mode(False):
            return torch.empty(shape, dtype=dtype, pin_memory=self._pinned)

    def give_back(self, tensors: Iterable[Tensor]) -> None:
        """Keep tensors that nobody reads or writes any more."""
        with self._lock:
            self._free += tensors

    def keep_only(self, tile_zyx: tuple[int, int, int]) -> None:
        """Let go of tensors for tiles of another size."""
        with self._lock:
            self._free = [kept for kept in self._free if kept.shape[-3:] == tile_zyx]
