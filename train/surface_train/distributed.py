"""Several processes, one training: who this process is among them, and what they tell one another.

`torchrun` starts the processes and says in the environment who each one is. Without it there is one process, and
everything here costs nothing.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed, nn

_Item = TypeVar("_Item")

# Others wait while rank 0 writes files and the slowest scores its volumes; torch's own ten minutes are too few.
_PATIENCE = timedelta(hours=2)


@dataclass(frozen=True)
class Group:
    """This process among all: `rank` of `size`, and which one of its machine it is."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def primary(self) -> bool:
        """Tell whether this process is the one that writes files and talks."""
        return self.rank == 0

    def gather(self, own: Sequence[_Item]) -> list[_Item]:
        """Give everybody's items, by rank, to everybody."""
        if self.size == 1:
            return list(own)
        rows: list[list[_Item]] = [[] for _ in range(self.size)]
        distributed.all_gather_object(rows, list(own))
        return [item for row in rows for item in row]

    def as_rank_0(self, own: _Item) -> _Item:
        """Give rank 0's answer to everybody: for questions that clocks answer, and one word must hold for all."""
        if self.size == 1:
            return own
        answer = [own]
        distributed.broadcast_object_list(answer, src=0)
        return answer[0]

    def share(self, network: nn.Module) -> None:
        """Give rank 0's parameters and statistics to everybody."""
        if self.size > 1:
            for tensor in network.state_dict().values():
                distributed.broadcast(tensor, src=0)


@contextmanager
def joined() -> Iterator[Group]:
    """Join the processes that torchrun started, if it did, and leave them at the end."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Group()
        return
    group = Group(int(os.environ["RANK"]), size, int(os.environ["LOCAL_RANK"]))
    if torch.cuda.is_available():
        torch.cuda.set_device(group.local_rank)
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=_PATIENCE)
    try:
        yield group
    finally:
        distributed.destroy_process_group()
