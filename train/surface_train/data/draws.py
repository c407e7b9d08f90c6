"""The random numbers of a patch: one stream for each purpose, so that no variation moves another.

A stream depends on the run's seed, the patch's number and the id of its purpose alone. Switching a variation off, or
adding one, therefore leaves all other numbers of all patches as they are.
"""

import enum
from dataclasses import dataclass

import numpy as np

_PATCHES = 1  # first key of these streams; 0 is that of the order of the cases, in store.py


@enum.unique
class Stream(enum.IntEnum):
    """What random numbers are drawn for, and the id that their stream is seeded with.

    Ids are permanent: another one would change the patches of every seed. A new purpose takes the next free id.
    """

    PLACE = 0
    SCALE = 1
    FLIPS = 2
    TURNS = 3
    BLUR = 4
    LOW_RESOLUTION = 5
    GREY = 6
    GAMMA = 7
    NOISE = 8
    CUT_OUTS = 9


@dataclass(frozen=True)
class Draws:
    """The random numbers of one patch of a run."""

    seed: int
    """Seed of the run, 0 or more."""

    patch: int
    """Number of the patch within the run, from 0."""

    def of(self, stream: Stream) -> np.random.Generator:
        """Return a stream from its beginning, at every call."""
        key = (_PATCHES, self.patch, int(stream))
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))
