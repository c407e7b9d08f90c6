import os

import numba
import numpy as np
import pytest
import torch
from scenes import run_python
from torch import nn

from surface_kernel import device
from surface_kernel.device import Device, DeviceError, choose


def test_the_cpu_is_chosen_where_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose().name == "cpu"
    assert choose() == choose("cpu")


def test_as_many_threads_as_the_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "process_cpu_count", lambda: 5, raising=False)
    assert choose("cpu").threads == 5
    monkeypatch.delattr(os, "process_cpu_count")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 2, 3})
    assert choose("cpu").threads == 3


@pytest.mark.parametrize(("has_amx", "dtype"), [(True, "bfloat16"), (False, "float32")])
def test_a_cpu_computes_in_bfloat16_where_it_has_matrix_units(monkeypatch, has_amx, dtype):
    monkeypatch.setattr(device, "_has_amx", lambda: has_amx)
    assert choose("cpu").dtype == dtype


def test_a_gpu_is_chosen_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert (choose().name, choose().dtype) == ("cuda", "float16")
    assert choose("cuda:1").name == "cuda:1"
    assert choose("cpu").name == "cpu"


@pytest.mark.parametrize("name", ["cuda:7", "cuda:2", "cuda:-1", "cuda:one"])
def test_a_gpu_that_is_not_there_is_refused(monkeypatch, name):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(DeviceError, match=f'found 2 CUDA devices, wanted "{name}"'):
        choose(name)


def test_cuda_without_any_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(DeviceError, match='found 0 CUDA devices, wanted "cuda"'):
        choose("cuda")


@pytest.mark.parametrize("name", ["tpu", "mps", "CPU", "cpux"])
def test_another_kind_is_refused(name):
    with pytest.raises(DeviceError, match=f'found "{name}", wanted cpu, cuda or cuda:N'):
        choose(name)


@pytest.mark.parametrize(("dtype", "expected"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_convolutions_run_in_the_device_precision(dtype, expected):
    with Device("cpu", dtype, 1, 1).autocast():
        assert nn.Conv3d(1, 1, 1)(torch.zeros(1, 1, 2, 2, 2)).dtype == expected


def test_a_placed_network_answers_as_before():
    network, tiles = nn.Conv3d(1, 2, 3, padding=1), torch.rand(1, 1, 4, 4, 4)
    before = network(tiles).detach().numpy()
    after = Device("cpu", "float32", 1, 1).place(network)(tiles).detach().numpy()
    np.testing.assert_allclose(after, before, atol=1e-6)


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="one core")
def test_a_parallel_kernel_leaves_torch_its_threads():
    """In a fresh process, where numba has not started its threads yet (numba issue 9387)."""
    code = """
import numba, numpy as np, torch
from surface_kernel.device import Device, share_threads
from surface_kernel.stitch import gather
torch.set_num_threads(1)
share_threads(Device("cpu", "float32", 2, 2))
found = [numba.get_num_threads(), torch.get_num_threads()]
one, weight = np.zeros(1, np.int64), np.ones((1, 2), np.float32)
gather(np.ones((1, 1, 1, 2, 2, 2), np.float32), one, one, weight, one, weight, one, weight, 0,
       np.empty((2, 2, 2), np.float32))
print(*found, numba.get_num_threads(), torch.get_num_threads())
"""
    done = run_python(code)
    assert done.stdout.split() == ["2", "2", "2", "2"], done.stderr
