"""NCCL's part, played by gloo: collectives of device tensors run on the CPU tensors below, and are checked."""

import simulated_device as device
import torch
import torch.distributed
from torch import Tensor
from torch.utils._pytree import tree_map

from simulated_gpu import evidence

_USED = ("allreduce_", "broadcast_", "allgather_")


def register() -> torch.library.Library:
    """Register the collectives that the project and DistributedDataParallel use; return what must be kept."""
    begin = torch.distributed.init_process_group

    def init_process_group(backend: str | None = None, *args: object, **named: object) -> None:
        evidence.note("group", backend=backend, current=device.current())
        begin(backend and backend.replace("nccl", "gloo"), *args, **named)

    torch.distributed.init_process_group = init_process_group
    library = torch.library.Library("c10d", "IMPL")
    for name in _USED:
        library.impl(name, _checked(getattr(torch.ops.c10d, name).default), "CUDA")
    return library


def _checked(operator):
    def call(*args, **kwargs):
        made = operator(*tree_map(lambda leaf: _on_cpu(leaf, operator), list(args)), **kwargs)
        return (args[0], *made[1:]) if isinstance(made, tuple) else made

    return call


def _on_cpu(leaf: object, operator: object) -> object:
    if not isinstance(leaf, Tensor) or leaf.device.type != "cuda":
        return leaf
    if not (leaf.is_contiguous() or leaf.is_contiguous(memory_format=torch.channels_last_3d)):
        evidence.hazard(f"{operator}: NCCL wants contiguous tensors, got {tuple(leaf.shape)} {leaf.stride()}")
    if leaf.device.index != device.current():
        evidence.hazard(f"{operator}: a tensor on {leaf.device}, while the current device is cuda:{device.current()}")
    return device.on_cpu(leaf)
