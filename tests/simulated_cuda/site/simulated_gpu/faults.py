"""Errors and wrong numbers where a test wants them: at the n-th call of an operator on a device."""

import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from simulated_gpu import evidence

ILLEGAL = "CUDA error: an illegal memory access was encountered"
NO_KERNEL = "CUDA error: no kernel image is available for execution on the device"

# What torch says where memory does not suffice, by a short name: (kind of error, message).
_Accelerator = getattr(torch, "AcceleratorError", RuntimeError)
MEMORY: dict[str, tuple[type[Exception], str]] = {
    "oom": (torch.OutOfMemoryError, "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of"),
    "engine": (RuntimeError, "GET was unable to find an engine to execute this computation"),
    "runtime": (_Accelerator, "CUDA error: out of memory"),
    "driver": (RuntimeError, "CUDA driver error: out of memory"),
    "cudnn alloc": (RuntimeError, "cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    "cudnn internal": (RuntimeError, "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"),
    "cublas init": (RuntimeError, "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    "cublas alloc": (RuntimeError, "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
}


@dataclass
class Fault:
    """What goes wrong, where and when."""

    kind: str
    """A name of MEMORY; "sticky": the context is broken from then on; "no kernel": every kernel fails; "wrong" and
    "nan": of its numbers."""
    device: int | None = None
    """None: any."""
    operator: str = "convolution"
    """Also "copy", "sync", "pin", "cast"."""
    first: int = 1
    """The call that fails, from 1."""
    more: int = 0
    """How many after it fail too."""
    dtype: str = ""
    """Of an output; "wrong" and "nan" may be wanted in float16 only. Empty: any."""
    thread: str = ""
    """What a thread's name begins with; others neither count nor fail."""
    process_file: str = ""
    """A file that the first process to fail makes; later processes see it and do not fail. Empty: all do."""
    calls: int = field(default=0, init=False)
    broken: bool = field(default=False, init=False)


_armed: list[Fault] = []


def arm(entries: tuple[dict[str, Any], ...]) -> None:
    """Let these faults happen, and no others."""
    _armed[:] = [Fault(**entry) for entry in entries]


def strike(operator: str, device: int) -> Fault | None:
    """Raise what is due at this call; return a fault that is to spoil its numbers, if one is due."""
    for fault in _armed:
        if fault.device not in (None, device):
            continue
        if fault.kind == "sticky" and fault.broken:
            raise _Accelerator(ILLEGAL)
        if fault.kind == "no kernel" and operator not in ("copy", "sync", "pin"):
            raise _Accelerator(NO_KERNEL)
        if operator == fault.operator and _is_due(fault):
            evidence.note("fault", fault=fault.kind, device=device, call=fault.calls)
            if fault.kind in ("wrong", "nan"):
                return fault
            if fault.kind == "sticky":
                fault.broken = True
                raise _Accelerator(ILLEGAL)
            error, message = MEMORY[fault.kind]
            raise error(message)
    return None


def _is_due(fault: Fault) -> bool:
    if not threading.current_thread().name.startswith(fault.thread):
        return False
    fault.calls += 1
    return fault.first <= fault.calls <= fault.first + fault.more and _is_mine(fault)


def _is_mine(fault: Fault) -> bool:
    """Whether no other process failed before this one."""
    if not fault.process_file:
        return True
    path = Path(fault.process_file)
    if not path.exists():
        path.write_text(str(os.getpid()))
    return path.read_text() == str(os.getpid())
