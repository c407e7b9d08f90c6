"""Mutants by the batch: hypothesis draws seeds, and each seed makes many, so that most of the time goes into them."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

BATCH = 50


def fuzz(long, check, seeds):
    """Hands `check` a random.Random, BATCH times a seed; returns how often. The long form has fifty times the seeds."""
    seeds *= 50 if long else 1

    @settings(max_examples=seeds, deadline=None, database=None, derandomize=not long)
    @given(st.integers(0, 2**64 - 1))
    def batch(seed):
        dice = random.Random(seed)
        for _ in range(BATCH):
            check(dice)

    batch()
    return seeds * BATCH
