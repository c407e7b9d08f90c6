"""Several processes, one training: the rank of this process, and what the processes exchange.

`torchrun` starts the processes and sets rank and size in the environment. Without it there is one process, and
everything here costs nothing.
"""

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import NoReturn, TypeVar

import torch
from torch import distributed, nn

from surface_kernel.interrupts import status_of

_Item = TypeVar("_Item")
log = logging.getLogger("surface_train")

# Others wait while rank 0 writes files and the slowest scores its volumes; torch's own ten minutes are too few.
_TIMEOUT = timedelta(hours=2)


@dataclass(frozen=True)
class Group:
    """This process among all processes of a training."""

    rank: int = 0
    """Number of this process, from 0."""

    size: int = 1
    """Number of all processes."""

    local_rank: int = 0
    """Number of this process on its machine, and of its GPU."""

    @property
    def primary(self) -> bool:
        """Whether this process is the one that writes files and logs."""
        return self.rank == 0

    def gather(self, own: Sequence[_Item]) -> list[_Item]:
        """Return the items of all processes, in the order of their ranks, in every process."""
        if self.size == 1:
            return list(own)
        rows: list[list[_Item]] = [[] for _ in range(self.size)]
        distributed.all_gather_object(rows, list(own))
        return [item for row in rows for item in row]

    def as_rank_0(self, own: _Item) -> _Item:
        """Return rank 0's value in every process: for decisions by the clock, which must be the same in all."""
        if self.size == 1:
            return own
        answer = [own]
        distributed.broadcast_object_list(answer, src=0)
        return answer[0]

    def share(self, network: nn.Module) -> None:
        """Copy rank 0's parameters and statistics into the network of every process."""
        if self.size > 1:
            for tensor in network.state_dict().values():
                distributed.broadcast(tensor, src=0)


@contextmanager
def joined() -> Iterator[Group]:
    """Join the group of processes that torchrun started, where it did, and leave it at the end.

    What is raised inside ends this process, after a line that says what it was: to leave the group means to wait for
    the others, who wait for this one. torchrun then ends them.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Group()
        return
    group = Group(rank=int(os.environ["RANK"]), size=size, local_rank=int(os.environ["LOCAL_RANK"]))
    if torch.cuda.is_available():
        torch.cuda.set_device(group.local_rank)
    # What is gathered and decided goes over the CPU; gradients and weights where the network is.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend, timeout=_TIMEOUT)
    try:
        yield group
    except BaseException as error:
        _end(error, group.rank)
    distributed.destroy_process_group()


def _end(error: BaseException, rank: int) -> NoReturn:
    """End this process at once, as an error that nobody caught would."""
    if isinstance(error, KeyboardInterrupt | ValueError | RuntimeError | OSError):
        log.error("error: process %d: %s", rank, " ".join(str(error).split()) or type(error).__name__)
    else:
        log.exception("process %d", rank)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status_of(error) if isinstance(error, KeyboardInterrupt) else 1)
