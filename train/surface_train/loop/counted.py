"""What a training takes of a GPU's memory, counted on tensors that hold nothing: for whoever has no GPU at hand.

Two steps run on torch's "meta" device: shapes without numbers. Weights, moments, activations, gradients and what the
loss makes are counted; what convolutions work in, fragments of the allocator and CUDA itself are not.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from surface_kernel.networks.cost import AliveBytes
from surface_kernel.networks.network import build, supervise_deeply
from surface_train.data.truth import Truth
from surface_train.loop.step import make_optimiser
from surface_train.losses import loss
from surface_train.losses.terms import label_maps
from surface_train.settings import TrainingSettings

_SMALL = np.zeros((8, 8, 8), np.uint8)  # a label: to learn the dtypes of its maps


@dataclass(frozen=True, kw_only=True)
class CountedMemory:
    """Gigabytes of a GPU at the peak of a training step."""

    batch: int
    """Patches that the step sees at once."""
    peak_gb: float
    averaged_gb: float
    """More, once weights are averaged."""


def count(settings: TrainingSettings, batch: int | None = None) -> CountedMemory:
    """Count a training's memory on a GPU, in half precision unless the settings ask for float32.

    Args:
        settings: of the run.
        batch: of patches; None: the settings'.
    """
    batch = settings.patches.batch if batch is None else batch
    network = build(settings.network).train()
    if settings.network.deep:
        supervise_deeply(network, True)
    with AliveBytes() as alive:
        network = network.to("meta")
        weights = sum(tensor.nbytes for tensor in network.state_dict().values())
        optimiser = make_optimiser(network, settings.optimiser)
        for _ in range(2):  # moments are made in the first step, and are there at the second one's peak
            _step(network, optimiser, settings=settings, batch=batch)
    return CountedMemory(batch=batch, peak_gb=alive.peak_bytes / 1e9, averaged_gb=weights / 1e9)


def described(settings: TrainingSettings) -> str:
    """Return the counted memory of a run as lines for people, and of one patch at a time."""
    sides = "×".join(map(str, settings.patches.shape_zyx))
    precision = "float32" if settings.optimiser.precision == "float32" else "half precision"
    lines = [f"memory on a GPU, counted, not measured: {precision}, without what cuDNN works in"]
    for batch in sorted({1, settings.patches.batch}):
        row = count(settings, batch)
        lines.append(
            f"  {sides} × {batch}: {row.peak_gb:.1f} GB; {row.averaged_gb:.1f} more while weights are averaged"
        )
    return "\n".join(lines)


def _step(network: nn.Module, optimiser: torch.optim.Optimizer, *, settings: TrainingSettings, batch: int) -> None:
    """Take a step as `Stepper` does, one batch of it."""
    shape_zyx = settings.patches.shape_zyx
    optimiser.zero_grad(set_to_none=True)
    maps = {
        kind.name: torch.empty(
            (batch, *kind.shape(shape_zyx)), dtype=torch.from_numpy(kind.make(_SMALL)).dtype, device="meta"
        )
        for kind in label_maps(settings.loss)
    }
    truth = Truth(torch.empty((batch, *shape_zyx), dtype=torch.uint8, device="meta"), maps)
    with HalfConvolutions(enabled=settings.optimiser.precision != "float32"):
        outputs = network(torch.empty((batch, 1, *shape_zyx), device="meta"))
    total = loss.total if isinstance(outputs, Tensor) else loss.deep_total
    value, _ = total(outputs, truth, settings.loss)
    value.backward()  # type: ignore[no-untyped-call]
    optimiser.step()


class HalfConvolutions(TorchFunctionMode):
    """Converts what convolutions see as autocast does on a GPU, which torch has for no "meta" tensors.

    A weight is converted once a pass, and its copy kept until the pass ends; all else takes the dtype that it is given.
    """

    def __init__(self, *, enabled: bool) -> None:
        super().__init__()
        self._enabled = enabled
        self._weights: dict[int, Tensor] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if self._enabled and func in (torch.conv3d, torch.conv_transpose3d):
            args = [self._half(argument) for argument in args]
        return func(*args, **(kwargs or {}))

    def _half(self, argument: Any) -> Any:
        if not isinstance(argument, Tensor) or argument.dtype != torch.float32:
            return argument
        if not isinstance(argument, nn.Parameter):
            return argument.half()
        if id(argument) not in self._weights:
            self._weights[id(argument)] = argument.half()
        return self._weights[id(argument)]
