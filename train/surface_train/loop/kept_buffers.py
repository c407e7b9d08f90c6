"""A network's buffers as they were: a forward pass in float16 may overflow, and BatchNorm's statistics with it."""

import torch
from torch import Tensor, nn


class KeptBuffers:
    """Copies of a network's buffers, made anew before every pass that may have to be undone.

    An average that has once seen a NaN stays NaN for good; a gradient scaler skips the step, not the statistics.
    """

    def __init__(self, network: nn.Module) -> None:
        self._own = list(network.buffers())
        self._kept = [torch.empty_like(tensor) for tensor in self._own]

    @torch.no_grad()
    def keep(self) -> None:
        """Copy the buffers."""
        self._copy(self._kept, self._own)

    @torch.no_grad()
    def put_back(self) -> None:
        """Set the buffers to what they were when they were kept."""
        self._copy(self._own, self._kept)

    @property
    def finite(self) -> bool:
        """Whether all numbers of the buffers are finite."""
        return all(bool(torch.isfinite(tensor).all()) for tensor in self._own)

    @staticmethod
    def _copy(targets: list[Tensor], sources: list[Tensor]) -> None:
        """Copy in one launch a dtype: a network has a hundred of them."""
        for dtype in {tensor.dtype for tensor in targets}:
            pairs = [pair for pair in zip(targets, sources, strict=True) if pair[0].dtype == dtype]
            torch._foreach_copy_([target for target, _ in pairs], [source for _, source in pairs])
