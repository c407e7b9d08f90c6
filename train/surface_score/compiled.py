"""How this package compiles its loops."""

from collections.abc import Callable
from typing import TypeVar, cast

import numba

_Function = TypeVar("_Function", bound=Callable[..., object])


def compiled(function: _Function) -> _Function:
    """Compile a function on its first call, free it of the GIL, and keep the result on disk where that is possible.

    A compiled function may call only compiled functions of its own file: numba looks at that file alone to tell whether
    what it kept is still right. Where neither the package's folder nor the user's cache can be written, numba refuses
    to keep anything, and the function is compiled anew in each process.
    """
    try:
        kept = numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:
        kept = numba.njit(nogil=True)(function)
    return cast(_Function, kept)
