"""What runs the network: which device, in which precision, how many tiles at a time.

With all of it fixed, the same logits come out every time on a CPU. Change the batch or the number of threads, and the
last bits of the logits change with them.
"""

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numba
import torch
from torch import nn

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class DeviceError(RuntimeError):
    """A device that was asked for and is not there."""


@dataclass(frozen=True)
class Device:
    """Where and how a network runs. dtype: of its convolutions. threads: of the CPU, for all libraries."""

    name: str
    dtype: str
    batch: int
    threads: int

    def autocast(self) -> AbstractContextManager[None]:
        """Give the context in which the network runs in this precision."""
        reduced = self.dtype != "float32"
        return torch.autocast(torch.device(self.name).type, dtype=_DTYPES[self.dtype], enabled=reduced)

    def place(self, network: nn.Module) -> nn.Module:
        """Move a network here, its channels innermost: a quarter faster for these networks on a CPU with bfloat16."""
        return network.to(self.name, memory_format=torch.channels_last_3d)  # type: ignore[call-overload, no-any-return]

    def __str__(self) -> str:
        return f"{self.name}, {self.dtype}, {self.batch} tiles a batch, {self.threads} threads"


def choose(name: str | None = None) -> Device:
    """Pick the device: the one named ("cpu", "cuda", "cuda:1"), else a GPU where there is one. Raises DeviceError.

    A GPU computes in float16, which every card since Volta does fast. A CPU computes in bfloat16 where it has matrix
    units for it (AMX), else in float32: without them bfloat16 is slower.
    """
    threads = os.process_cpu_count() if hasattr(os, "process_cpu_count") else len(os.sched_getaffinity(0))
    found = name or ("cuda" if torch.cuda.is_available() else "cpu")
    kind = found.split(":")[0]
    if kind not in ("cpu", "cuda"):
        raise DeviceError(f'device: found "{found}", wanted cpu, cuda or cuda:N')
    if kind == "cuda":
        index = found.partition(":")[2] or "0"
        if not index.isdecimal() or int(index) >= torch.cuda.device_count():
            raise DeviceError(f'device: found {torch.cuda.device_count()} CUDA devices, wanted "{found}"')
        return Device(found, "float16", batch=4, threads=threads or 1)
    return Device(found, "bfloat16" if _has_amx() else "float32", batch=2, threads=threads or 1)


def share_threads(device: Device) -> None:
    """Give numba and torch the same number of threads.

    numba comes first: starting its threads sets torch's number too (numba issue 9387), and torch has the last word.
    """
    numba.set_num_threads(min(device.threads, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
    torch.set_num_threads(device.threads)


def _has_amx() -> bool:
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
