"""Averaged weights: the plain mean of states (SWA, Izmailov et al. 2018), or an exponential one (EMA)."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from surface_kernel.networks.device import Device
from surface_kernel.networks.placing import autocast

State = dict[str, Tensor]


class WeightAverage:
    """A running mean of network states, in float32 on the network's own device. Empty until the first `add`."""

    def __init__(self, decay: float | None = None, *, mean: Mapping[str, Tensor] | None = None, count: int = 0) -> None:
        """Make an empty mean, or continue a saved one.

        Args:
            decay: None for the plain mean; else the share of the mean that stays at each `add`. Of the first states,
                fewer than 1 / (1 − decay), an exponential mean is a plain one too, so that it does not lean on where
                it began.
            mean: the state so far.
            count: how many states are in it.
        """
        self.decay = decay
        self.mean: State = dict(mean or {})
        self.count = count

    def add(self, state: Mapping[str, Tensor]) -> None:
        """Add a state to the mean. Integers, such as BatchNorm's step count, are taken over as they are."""
        self.count += 1
        share = 1 / self.count if self.decay is None else max(1 / self.count, 1 - self.decay)
        for name, tensor in state.items():
            latest = tensor.detach()
            if self.count == 1 or not latest.is_floating_point():
                self.mean[name] = latest.clone()
            else:
                self.mean[name].lerp_(latest.float(), share)


def recompute_batchnorm(network: nn.Module, images: Iterable[Tensor], device: Device) -> None:
    """Recompute the BatchNorm statistics of averaged weights, as a plain mean over the batches.

    The batches run without dropout and in the precision that the weights will be used in, which torch's own
    `update_bn` does not do; one that overflows there runs in float32. A network without BatchNorm is left as it is, and
    no batch is asked for.

    Args:
        network: changed in place; its mode is kept.
        images: batches, float32 (batch, 1, z, y, x).
        device: where the network is.

    Raises:
        RuntimeError: for statistics that are not finite in float32 either.
    """
    layers = batchnorms(network)
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    was_training = network.training
    network.eval()
    for layer in layers:
        layer.train()
        layer.reset_running_stats()
        layer.momentum = None  # a cumulative mean instead of a moving one
    kept = KeptBuffers(network)
    for batch in images:
        kept.keep()
        for tried in (device, replace(device, dtype="float32")):
            with torch.no_grad(), autocast(tried):
                network(batch.to(device.name))
            if kept.finite:
                break
            kept.put_back()
        else:
            raise RuntimeError("averaged weights: expected finite statistics of BatchNorm, got others in float32 too")
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    network.train(was_training)


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


def batchnorms(network: nn.Module) -> list[_BatchNorm]:
    """Return a network's BatchNorm layers."""
    return [layer for layer in network.modules() if isinstance(layer, _BatchNorm)]
