"""Tests on a simulated GPU: only `python tests/simulated_cuda` collects them, in a process of their own."""

import os

import pytest

if not {"SIMULATED_CUDA_LIBRARIES", "SIMULATED_CUDA_MISSING"} & set(os.environ):
    collect_ignore_glob = ["test_*.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip all where the simulation cannot be had, and say why."""
    if reason := os.environ.get("SIMULATED_CUDA_MISSING"):
        for item in items:
            item.add_marker(pytest.mark.skip(reason=f"no simulated CUDA: {reason}"))
