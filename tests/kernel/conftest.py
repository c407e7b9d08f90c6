import logging
import os
from types import SimpleNamespace

import numba
import pytest
import torch
from scenes import noise
from torch import nn

from surface_kernel import network, weights
from surface_kernel.__main__ import main
from surface_kernel.architecture import Architecture
from surface_kernel.intensity import Intensity
from surface_kernel.weights import Metadata

TINY = Architecture("Linknet", "efficientnet-b0")


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """One folder for all examples of a property."""
    return tmp_path_factory.mktemp("examples")


@pytest.fixture(autouse=True)
def _threads(monkeypatch):
    """Chooses one thread, since tests run beside others, and puts their number back.

    torch comes last: setting numba's sets torch's too.
    """
    before = numba.get_num_threads(), torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(os, "process_cpu_count", lambda: 1, raising=False)  # Python 3.11 and 3.12 have none
    yield
    numba.set_num_threads(before[0])
    torch.set_num_threads(before[1])


@pytest.fixture(scope="session")
def weights_file(tmp_path_factory):
    """A real network, untrained, its last layer scaled so that about half of a volume of noise is surface."""
    torch.manual_seed(0)
    module = network.build(TINY).eval()
    last = [layer for layer in module.modules() if isinstance(layer, nn.Conv3d)][-1]
    sample = noise((2, 32, 32, 32))
    with torch.inference_mode():
        last.bias -= module(torch.from_numpy(Intensity().table(sample)[sample])[:, None]).median()
        last.weight *= 100
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    weights.save(path, module.state_dict(), Metadata(TINY, Intensity(), (32, 32, 32), overlap=0.25))
    return path


@pytest.fixture
def kernel(capsys):
    """Runs a command line of the kernel here; gives its exit code and the lines it printed."""
    root = logging.getLogger()
    before = root.handlers[:], root.level

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        return SimpleNamespace(code=code, lines=capsys.readouterr().out.splitlines())

    yield run
    root.handlers[:] = before[0]
    root.setLevel(before[1])
