"""What runs the network: which device, in which precision and memory layout, how many tiles at a time, how large.

With all of it fixed, the same logits come out every time on a CPU. Change the batch or the number of threads, and the
last bits of the logits change with them: so a run reports its `Device`, and whoever continues or shares it takes that.
"""

import copy
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

import numba
import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from surface_kernel.machine import cores, machine_bytes
from surface_kernel.networks.cost import Cost

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
LAYOUTS = ("contiguous", "channels_last")
_MOST_ELEMENTS = 2**31 - 1  # of one tensor: convolutions count them in 32 bits

# Of a device's memory, what activations may take: the rest is for weights, what convolutions work in, and fragments.
_GPU_SHARE, _CPU_SHARE, _KEPT_SHARE = 0.5, 0.2, 0.15


class DeviceError(RuntimeError):
    """A device that was asked for and cannot be used."""


@dataclass(frozen=True)
class Device:
    """Where and how a network runs.

    dtype: of its convolutions. batch: tiles of the trained size that it sees together. threads: of the CPU, for
    torch. layout: of activations and weights, one of LAYOUTS. tile_voxels, kept_bytes: how large the tiles and the
    logits kept for blending may grow (`tiles.plan`); 0: no larger than what the network was trained on. compiled:
    through torch.compile.
    """

    name: str
    dtype: str
    batch: int
    threads: int
    layout: str = "channels_last"
    tile_voxels: int = 0
    kept_bytes: int = 0
    compiled: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in _DTYPES or self.layout not in LAYOUTS or min(self.batch, self.threads) < 1:
            wanted = f"wanted a dtype of {', '.join(_DTYPES)}, a layout of {', '.join(LAYOUTS)}, batch and threads ≥ 1"
            raise DeviceError(f"device: found {self!r}, {wanted}")

    @classmethod
    def from_mapping(cls, entries: Mapping[str, Any]) -> Self:
        """Read what `to_mapping` gave, of another process or an earlier run. Raises DeviceError."""
        if set(entries) != {field.name for field in fields(cls)}:
            raise DeviceError(f"device: found {sorted(entries)}, wanted {[field.name for field in fields(cls)]}")
        return cls(**entries)

    def to_mapping(self) -> dict[str, Any]:
        """Give the entries that `from_mapping` reads."""
        return asdict(self)

    @property
    def is_gpu(self) -> bool:
        """Say whether work on it goes on beside Python's."""
        return self.name.startswith("cuda")

    def attend(self) -> None:
        """Let what this thread asks of CUDA without naming a device, such as pinned memory, go to this one."""
        if self.is_gpu:
            torch.cuda.set_device(torch.device(self.name).index or 0)

    def autocast(self) -> AbstractContextManager[None]:
        """Give the context in which the network runs in this precision."""
        reduced = self.dtype != "float32"
        return torch.autocast(torch.device(self.name).type, dtype=_DTYPES[self.dtype], enabled=reduced)

    def place(self, network: nn.Module) -> nn.Module:
        """Move a network here, in this layout."""
        last = self.layout == "channels_last"
        layout = torch.channels_last_3d if last else torch.contiguous_format
        return network.to(self.name, memory_format=layout)  # type: ignore[call-overload, no-any-return]

    def place_copy(self, network: nn.Module) -> nn.Module:
        """Put a copy here for prediction only, the convolutions' weights in this precision.

        Autocast would convert them anew for every batch. Everything else stays float32, as autocast has it.
        """
        placed = self.place(copy.deepcopy(network))
        for module in placed.modules():
            if isinstance(module, _ConvNd):
                module.to(_DTYPES[self.dtype])
        if self.compiled:
            placed.compile(dynamic=False)
        return placed

    def within(self, cost: Cost) -> "Device":
        """Give this device with the limits that its memory sets to tiles of a network of this cost."""
        if self.is_gpu:
            free_bytes = torch.cuda.get_device_properties(self.name).total_memory * _GPU_SHARE
        else:
            free_bytes = machine_bytes() * _CPU_SHARE * self.threads / cores()
        per_voxel = cost.activation_bytes * _DTYPES[self.dtype].itemsize / 4
        return replace(
            self,
            tile_voxels=int(min(free_bytes / per_voxel, _MOST_ELEMENTS / cost.elements)),
            kept_bytes=int(machine_bytes() * _KEPT_SHARE * self.threads / cores()),
        )

    def __str__(self) -> str:
        compiled = ", compiled" if self.compiled else ""
        how = f"{self.dtype}, {self.layout}, {self.batch} tiles a batch, {self.threads} threads{compiled}"
        return f"{self.name}, {how}"


def choose(name: str | None = None, threads: int | None = None) -> Device:
    """Pick the device: the one named ("cpu", "cuda", "cuda:1"), else a GPU where there is one. Raises DeviceError.

    Precision and batch are what usually is fastest; `selftest` finds out. A GPU computes in float16, which every card
    since Volta does fast. A CPU computes in bfloat16 where it has matrix units for it (AMX), else in float32: without
    them bfloat16 is slower. threads: all that the process may use, unless said.
    """
    threads = threads or cores()
    found = name or ("cuda" if torch.cuda.is_available() else "cpu")
    kind = found.split(":")[0]
    if kind not in ("cpu", "cuda"):
        raise DeviceError(f'device: found "{found}", wanted cpu, cuda or cuda:N')
    if kind == "cuda":
        index = found.partition(":")[2] or "0"
        if not index.isdecimal() or int(index) >= torch.cuda.device_count():
            raise DeviceError(f'device: found {torch.cuda.device_count()} CUDA devices, wanted "{found}"')
        return Device(found, "float16", batch=4, threads=threads)
    return Device(found, "bfloat16" if has_amx() else "float32", batch=2, threads=threads)


def share_threads(device: Device) -> None:
    """Give torch the device's threads, and numba's parallel kernels (the score's, none of this room) as many.

    numba comes first: starting its threads sets torch's number too (numba issue 9387), and torch has the last word.
    """
    numba.set_num_threads(min(device.threads, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
    torch.set_num_threads(device.threads)


def has_amx() -> bool:
    """Say whether the CPU has matrix units for bfloat16."""
    return "amx_bf16" in _cpu_flags()


def has_bfloat16() -> bool:
    """Say whether the CPU has any instructions for bfloat16."""
    return bool({"amx_bf16", "avx512_bf16"} & _cpu_flags())


def _cpu_flags() -> set[str]:
    try:
        return set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return set()
