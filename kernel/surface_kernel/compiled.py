"""How loops are compiled with numba."""

from collections.abc import Callable
from typing import Any

import numba


def compiled(*, fastmath: bool | set[str] = False) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that compiles a function on its first call; it releases the GIL, and is cached if possible.

    A compiled function may call only compiled functions of its own file: numba looks at that file alone to decide
    whether its cache is still valid. Where neither the package's folder nor the user's cache is writable, numba refuses
    to cache at all, and the function is compiled again in each process.

    Args:
        fastmath: as numba takes it.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(nogil=True, cache=True, fastmath=fastmath)(function)
        except RuntimeError:
            return numba.njit(nogil=True, fastmath=fastmath)(function)

    return decorate
