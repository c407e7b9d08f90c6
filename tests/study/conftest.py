"""The study trains the small networks of the trainer's tests."""

from train.conftest import logging_as_before, one_thread, with_small_networks

__all__ = ["logging_as_before", "one_thread", "with_small_networks"]
