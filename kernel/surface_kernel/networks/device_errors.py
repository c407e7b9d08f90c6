"""What an error of torch says about a device: that memory did not suffice, or that the device cannot be used on.

CUDA's libraries have no common error for either; what they say is known by its words.
"""

import torch

# Of the CPU's allocator, the CUDA runtime and driver, cuDNN, which finds no algorithm whose workspace fits, and cuBLAS.
_MEMORY = (
    "can't allocate memory",
    "CUDA error: out of memory",
    "CUDA driver error: out of memory",
    "unable to find an engine to execute",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",
)
_DEVICE = ("CUDA error", "CUDA driver error", "cuDNN error", "CUDNN_STATUS_", "CUBLAS_STATUS_", "NVRTC", "NVML_")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that a device's memory did not suffice."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(words in text for words in _MEMORY)


def device_broken(error: BaseException) -> bool:
    """Whether an error is a GPU's own and not want of memory: after it nothing that this process computes there counts.

    An illegal access, a launch that failed and the like stay for as long as the process lives (CUDA's "sticky" errors).
    """
    if out_of_memory(error) or not isinstance(error, RuntimeError):
        return False
    own = getattr(torch, "AcceleratorError", None)  # since torch 2.8
    return (own is not None and isinstance(error, own)) or any(words in str(error) for words in _DEVICE)
