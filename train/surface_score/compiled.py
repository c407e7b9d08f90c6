"""How this package compiles its loops with numba, and on how many cores it runs them."""

import os
from collections.abc import Callable
from typing import TypeVar, cast

import numba

_Function = TypeVar("_Function", bound=Callable[..., object])


def compiled(function: _Function) -> _Function:
    """Return a function that is compiled on its first call, releases the GIL, and is cached on disk where possible.

    A compiled function may call only compiled functions of its own file: numba looks at that file alone to decide
    whether its cache is still valid. Where neither the package's folder nor the user's cache is writable, numba refuses
    to cache, and the function is compiled again in each process.
    """
    try:
        compiled_function = numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:
        compiled_function = numba.njit(nogil=True)(function)
    return cast(_Function, compiled_function)


def allowed_cores() -> int:
    """Return how many cores this process may use, which may be fewer than the machine has."""
    counted = os.process_cpu_count() if hasattr(os, "process_cpu_count") else len(os.sched_getaffinity(0))
    return counted or 1
