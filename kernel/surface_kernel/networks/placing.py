"""Networks on a device: which one, in which precision, within which limits of its memory."""

import copy
from contextlib import AbstractContextManager
from dataclasses import replace

import numba
import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from surface_kernel.machine import cores, cpu_flags, machine_bytes
from surface_kernel.networks.cost import Cost
from surface_kernel.networks.device import Device, DeviceError

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_MOST_ELEMENTS = 2**31 - 1  # of one tensor: convolutions count them in 32 bits

# Of a device's memory, what activations may take: the rest is for weights, what convolutions work in, and fragments.
_GPU_SHARE, _CPU_SHARE, _KEPT_SHARE = 0.5, 0.2, 0.15


def choose(name: str | None = None, threads: int | None = None) -> Device:
    """Return the device to start with; `selftest` finds out whether another precision or batch is faster.

    A GPU computes in float16, which every card since Volta does fast. A CPU computes in bfloat16 where it has matrix
    units for it (AMX), else in float32: without them bfloat16 is slower.

    Args:
        name: "cpu", "cuda" or "cuda:N"; None: a GPU where there is one.
        threads: of the CPU; None: all that the process may use.

    Raises:
        DeviceError: for another name, or a GPU that is not there.
    """
    threads = threads or cores()
    chosen = name or ("cuda" if torch.cuda.is_available() else "cpu")
    kind = chosen.split(":")[0]
    if kind not in ("cpu", "cuda"):
        raise DeviceError(f'device: expected cpu, cuda or cuda:N, got "{chosen}"')
    if kind == "cuda":
        index = chosen.partition(":")[2] or "0"
        if not index.isdecimal() or int(index) >= torch.cuda.device_count():
            expected = f"one of the {torch.cuda.device_count()} CUDA devices here"
            raise DeviceError(f'device: expected {expected}, got "{chosen}"; nvidia-smi lists them')
        return Device(name=chosen, dtype="float16", batch=4, threads=threads)
    return Device(name=chosen, dtype="bfloat16" if has_amx() else "float32", batch=2, threads=threads)


def within_memory(device: Device, cost: Cost) -> Device:
    """Return the device with the limits that its memory sets to tiles of a network of this cost."""
    if device.is_gpu:
        free_bytes = torch.cuda.get_device_properties(device.name).total_memory * _GPU_SHARE
    else:
        free_bytes = machine_bytes() * _CPU_SHARE * device.threads / cores()
    # On a GPU logits wait in pinned memory: two volumes at a time for each, and torch rounds up to powers of two.
    kept_by = 4 * max(1, torch.cuda.device_count()) if device.is_gpu else 1
    per_voxel = cost.activation_bytes * _DTYPES[device.dtype].itemsize / 4
    return replace(
        device,
        tile_voxels=int(min(free_bytes / per_voxel, _MOST_ELEMENTS / cost.elements)),
        kept_bytes=int(machine_bytes() * _KEPT_SHARE * device.threads / cores() / kept_by),
    )


def place(network: nn.Module, device: Device) -> nn.Module:
    """Move a network to a device, in its memory layout."""
    last = device.layout == "channels_last"
    layout = torch.channels_last_3d if last else torch.contiguous_format
    return network.to(device.name, memory_format=layout)  # type: ignore[call-overload, no-any-return]


def place_copy(network: nn.Module, device: Device) -> nn.Module:
    """Return a copy on the device for prediction only, the convolutions' weights in its precision.

    Autocast would convert them anew for every batch. Everything else stays float32, as autocast has it.
    """
    placed = place(copy.deepcopy(network), device)
    for module in placed.modules():
        if isinstance(module, _ConvNd):
            module.to(_DTYPES[device.dtype])
    if device.compiled:
        placed.compile(dynamic=False)
    return placed


def autocast(device: Device) -> AbstractContextManager[None]:
    """Return the context in which a network runs in the device's precision."""
    reduced = device.dtype != "float32"
    return torch.autocast(torch.device(device.name).type, dtype=_DTYPES[device.dtype], enabled=reduced)


def set_current(device: Device) -> None:
    """Let what this thread asks of CUDA without naming a device, such as pinned memory, go to this one."""
    if device.is_gpu:
        torch.cuda.set_device(torch.device(device.name).index or 0)


def share_threads(device: Device) -> None:
    """Let torch, and numba's parallel kernels (the score's, none of this room), use the device's threads.

    numba comes first: starting its threads sets torch's number too (numba issue 9387), and torch has the last word.
    """
    numba.set_num_threads(min(device.threads, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
    torch.set_num_threads(device.threads)


def has_amx() -> bool:
    """Whether the CPU has matrix units for bfloat16."""
    return "amx_bf16" in cpu_flags()


def has_bfloat16() -> bool:
    """Whether the CPU has any instructions for bfloat16."""
    return bool({"amx_bf16", "avx512_bf16"} & cpu_flags())
