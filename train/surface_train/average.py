"""Stochastic weight averaging (Izmailov et al. 2018): the mean of the weights at the ends of epochs."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from surface_kernel.device import Device

State = dict[str, Tensor]


class Average:
    """A running mean of network states, in float32 on the CPU. Empty until the first `add`."""

    def __init__(self, mean: Mapping[str, Tensor] | None = None, count: int = 0) -> None:
        self.mean: State = dict(mean or {})
        self.count = count

    def add(self, state: Mapping[str, Tensor]) -> None:
        """Take one more state into the mean. Whole numbers, such as BatchNorm's step count, are taken as they are."""
        self.count += 1
        for name, tensor in state.items():
            latest = tensor.detach().cpu()
            if self.count == 1 or not latest.is_floating_point():
                self.mean[name] = latest.clone()
            else:
                self.mean[name] += (latest.float() - self.mean[name]) / self.count


def recompute_batchnorm(network: nn.Module, images: Iterable[Tensor], device: Device) -> None:
    """Measure the BatchNorm statistics of averaged weights anew, as a plain mean over the batches.

    images: float32 (batch, 1, z, y, x). They run in the precision that the weights will be used in, which torch's own
    `update_bn` does not do, and without dropout, as they will be used too. A network without BatchNorm is left as is.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, _BatchNorm)]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    was_training = network.training
    network.eval()
    for layer in layers:
        layer.train()
        layer.reset_running_stats()
        layer.momentum = None  # a cumulative mean instead of a moving one
    with torch.no_grad(), device.autocast():
        for batch in images:
            network(batch.to(device.name))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    network.train(was_training)
