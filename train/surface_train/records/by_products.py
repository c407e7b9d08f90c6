"""What a run makes beside its state and weights, and can do without."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from surface_kernel.message import one_line

log = logging.getLogger("surface_train")


@contextmanager
def by_product(name: str) -> Iterator[None]:
    """Let whatever fails in the block be one line of the log: a picture is not worth an epoch.

    Args:
        name: of what is made, as the line names it.
    """
    try:
        yield
    except Exception as error:  # of any library that draws or writes it
        log.warning("%s left out: %s", name, one_line(error))
