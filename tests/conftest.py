"""What tests of several rooms share."""

import os
from collections.abc import Callable, Iterator

import pytest


@pytest.fixture(scope="session")
def with_small_networks() -> Callable[[pytest.MonkeyPatch], None]:
    """Return a function that puts `SmallNetwork` into the kernel."""
    from small_networks import small_library

    from surface_kernel.networks import network

    return lambda patched: patched.setattr(network, "_library", small_library)


@pytest.fixture(scope="session", autouse=True)
def workers_start_in_a_moment() -> None:
    """Let the server that forks workers do once what each of them would do: see `preloaded`."""
    from surface_kernel.runs import worker_process

    worker_process._PRELOADED.append("preloaded")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Compute with one thread: on arrays this small, several only wait for one another on a busy machine."""
    import torch

    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "sched_getaffinity", lambda pid: {0})
        patched.setattr(os, "process_cpu_count", lambda: 1, raising=False)
        torch.set_num_threads(1)
        yield
    torch.set_num_threads(threads)
