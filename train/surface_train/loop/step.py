"""One step of a training: batches in, weights moved. Precision, gradient accumulation and several GPUs are here."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from surface_kernel.networks.device import Device
from surface_kernel.networks.network import supervise_deeply
from surface_kernel.networks.placing import autocast, place
from surface_train.data.patches import Batch
from surface_train.data.truth import Truth
from surface_train.distributed import Group
from surface_train.loop.average import KeptBuffers
from surface_train.losses import loss
from surface_train.losses.terms import weighted_terms
from surface_train.settings import Optimiser, TrainingSettings


class PrecisionError(ValueError):
    """A precision or a way to train that this device does not have."""


def precise(device: Device, optimiser: Optimiser) -> Device:
    """Return the device with the precision to train in.

    A GPU trains in bfloat16 where it has units for it (since Ampere), which needs no loss scaling; else in float16.

    Raises:
        PrecisionError: when the settings ask for a precision that the device does not have.
    """
    cuda, precision = device.is_gpu, optimiser.precision
    has_bfloat16 = not cuda or torch.cuda.get_device_capability(device.name) >= (8, 0)
    if precision == "auto":
        return replace(device, dtype="bfloat16") if cuda and has_bfloat16 else device
    if precision == "float16" and not cuda:
        raise PrecisionError('optimiser.precision: expected "bfloat16", "float32" or "auto" on a CPU, got "float16"')
    if precision == "bfloat16" and not has_bfloat16:
        own = f'expected "float16" or "auto" on {device.name}, which has no bfloat16 units'
        raise PrecisionError(f'optimiser.precision: {own}, got "bfloat16"')
    return replace(device, dtype=precision)


class Stepper:
    """A network on its device, with the optimiser that moves its weights.

    `network` is the plain module, for states and validation; steps run through a compiled or parallel one where the
    settings or the group ask for it.
    """

    def __init__(self, network: nn.Module, *, settings: TrainingSettings, device: Device, group: Group) -> None:
        self.settings, self.device = settings, device
        if settings.optimiser.sync_batchnorm:
            if not device.is_gpu:
                raise PrecisionError('optimiser.sync_batchnorm: expected GPUs, got a CPU; use norm = "instance"')
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        self.network = place(network, device)
        self.optimiser = make_optimiser(self.network, settings.optimiser)
        # A scaler keeps float16's small gradients from becoming 0; the others have the range of float32.
        self.scaler = torch.amp.GradScaler(device.name.split(":")[0], enabled=device.dtype == "float16")
        compiled = settings.optimiser.compile
        running = cast(nn.Module, torch.compile(self.network)) if compiled else self.network
        self._kept = KeptBuffers(self.network) if self.scaler.is_enabled() else None
        self._parallel = _parallel(running, settings, device) if group.size > 1 else None
        self._running = self._parallel or running

    @property
    def names(self) -> list[str]:
        """What `step` returns, by name."""
        return ["loss", *weighted_terms(self.settings.loss), "variance_of_p"]

    def step(self, batches: Sequence[Batch], rate: float) -> dict[str, Tensor] | None:
        """Move the weights by the mean gradient of some batches.

        Where float16 overflows, the scaler skips the step and lowers its scale: then the network is as it was before,
        BatchNorm's statistics too.

        Args:
            batches: whose gradients are added up.
            rate: the learning rate.

        Returns:
            The means over the batches of "loss", of every term that has a weight, and of "variance_of_p", the
            probabilities' raw variance: float32 scalars on the device. None for a step that was skipped.

        Raises:
            RuntimeError: when the gradient is not finite and no scaler deals with it.
        """
        for parameters in self.optimiser.param_groups:
            parameters["lr"] = rate
        self.network.train()
        self._deepen(True)
        self.optimiser.zero_grad(set_to_none=True)
        if self._kept:
            self._kept.keep()
        seen: list[dict[str, Tensor]] = []
        for position, batch in enumerate(batches):
            # Gradients are summed over the processes once, with the last batch.
            alone = self._parallel is not None and position < len(batches) - 1
            with self._parallel.no_sync() if self._parallel and alone else nullcontext():
                seen.append(self._backward(batch, 1 / len(batches)))
        self._deepen(False)
        means = {name: torch.stack([row[name] for row in seen]).mean() for name in seen[0]}
        return means if self._move(means["loss"]) else None

    def measure(self, batch: Batch) -> dict[str, Tensor]:
        """Return what `step` would for one batch, with the network in evaluation mode and nothing moved."""
        self.network.eval()
        with torch.no_grad(), autocast(self.device):
            logits = self.network(self._images(batch))
        return self._described(logits, self._truth(batch))[1]

    def _deepen(self, on: bool) -> None:
        if self.settings.network.deep:
            supervise_deeply(self.network, on)

    def _backward(self, batch: Batch, share: float) -> dict[str, Tensor]:
        truth = self._truth(batch)
        with autocast(self.device):
            outputs = self._running(self._images(batch))
        value, described = self._described(outputs, truth)
        self.scaler.scale(value * share).backward()  # type: ignore[no-untyped-call]
        return described

    def _described(self, outputs: Tensor | Sequence[Tensor], truth: Truth) -> tuple[Tensor, dict[str, Tensor]]:
        weights = self.settings.loss
        if isinstance(outputs, Tensor):
            logits = outputs
            value, parts = loss.total(logits, truth, weights)
        else:
            logits = outputs[0]
            value, parts = loss.deep_total(outputs, truth, weights)
        with torch.no_grad():
            spread = loss.probability_variance(logits[:, 0].float(), truth).mean()
        return value, {"loss": value.detach(), **parts, "variance_of_p": spread}

    def _move(self, value: Tensor) -> bool:
        """Move the weights by their gradients; return whether the step was made."""
        self.scaler.unscale_(self.optimiser)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.optimiser.clip_norm)
        # A scaler skips a step whose gradient is not finite; without one such a step would spoil the weights for good.
        if not self.scaler.is_enabled() and not torch.isfinite(norm):
            got = f"a loss of {value.item()} with a gradient of norm {norm.item()}"
            raise RuntimeError(f"expected a finite loss and gradient, got {got}; lower the learning rate")
        self.scaler.step(self.optimiser)
        if self._kept is None:
            return True
        before = self.scaler.get_scale()
        self.scaler.update()
        skipped = self.scaler.get_scale() < before  # torch tells it in no other way
        if skipped:
            self._kept.put_back()
        return not skipped

    def _images(self, batch: Batch) -> Tensor:
        return self._moved(torch.from_numpy(batch.images))[:, None]

    def _truth(self, batch: Batch) -> Truth:
        maps = {name: self._moved(torch.from_numpy(array)) for name, array in batch.maps.items()}
        return Truth(self._moved(torch.from_numpy(batch.labels)), maps)

    def _moved(self, tensor: Tensor) -> Tensor:
        if self.device.is_gpu:
            return tensor.pin_memory().to(self.device.name, non_blocking=True)
        return tensor


def make_optimiser(network: nn.Module, chosen: Optimiser) -> torch.optim.Optimizer:
    """Return the optimiser of a network's parameters."""
    parameters, rate, decay = network.parameters(), chosen.learning_rate, chosen.weight_decay
    if chosen.kind == "sgd":
        nesterov = chosen.momentum > 0
        return torch.optim.SGD(parameters, rate, chosen.momentum, weight_decay=decay, nesterov=nesterov)
    return torch.optim.AdamW(parameters, rate, weight_decay=decay)


def _parallel(network: nn.Module, settings: TrainingSettings, device: Device) -> DistributedDataParallel:
    name, _, index = device.name.partition(":")
    # EfficientNets keep a classification head that no decoder uses: its gradients never come.
    idle = settings.network.encoder.startswith("efficientnet")
    places = [int(index or 0)] if name == "cuda" else None
    return DistributedDataParallel(network, places, find_unused_parameters=idle)
