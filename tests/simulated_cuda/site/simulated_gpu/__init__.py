"""A CUDA that is simulated on the CPU build of torch, to run the code that is written for GPUs.

    sitecustomize   puts it under torch at import
    wishes          what a test asks for: how many GPUs, how much memory, which faults; read anew by every worker
    evidence        what was seen: hazards, which process touched which GPU, faults that were raised
    faults          errors and wrong numbers at the n-th call of an operator
    streams         streams and events as vector clocks: who has waited for whom
    memory          pinned memory, fresh and unfinished copies, which stream wrote what last
    kernels         operators: checked, then computed by the CPU's
    api             torch.cuda's functions
    collectives     NCCL's part, played by gloo

Tensors on cuda:N are real ones, of torch's own dispatcher, in the CPU's memory. Autocast, autograd and its threads, the
gradient scaler and DistributedDataParallel are torch's. What is computed is what the CPU computes; half precision is
float32 rounded after each operator. Work is done at once; what a GPU does later is told from the clocks, and only a
copy back to pinned memory really comes late.
"""

import ctypes
import importlib.util
import os
import sys
from pathlib import Path

_kept: list[object] = []  # torch's registrations end with their objects


def load_hooks() -> None:
    """Load the library that torch asks whether there is a CUDA; before torch's import ends."""
    ctypes.CDLL(str(_libraries() / "libsimulated_hooks.so"), ctypes.RTLD_GLOBAL)


def install() -> None:
    """Put the simulation under torch, which has just been imported."""
    path = _libraries() / "simulated_device.so"
    spec = importlib.util.spec_from_file_location("simulated_device", path)
    sys.modules["simulated_device"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    from simulated_gpu import api, collectives, evidence, kernels, memory, wishes

    wishes.read()
    os.register_at_fork(after_in_child=wishes.read)
    _kept.extend(kernels.register())
    memory.patch()
    api.patch()
    if "WORLD_SIZE" in os.environ:
        _kept.append(collectives.register())
    evidence.note("start", command=sys.argv[:4])


def _libraries() -> Path:
    return Path(os.environ["SIMULATED_CUDA_LIBRARIES"])
