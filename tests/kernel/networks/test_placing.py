import os

import numpy as np
import pytest
import torch
from scenes import run_python
from torch import nn

from surface_kernel.networks import placing
from surface_kernel.networks.cost import Cost
from surface_kernel.networks.device import Device, DeviceError
from surface_kernel.networks.placing import autocast, choose, place, place_copy, within_memory


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
    monkeypatch.setattr(placing, "has_amx", lambda: has_amx)
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
    with pytest.raises(DeviceError, match=f'expected one of the 2 CUDA devices here, got "{name}"'):
        choose(name)


def test_cuda_without_any_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(DeviceError, match='expected one of the 0 CUDA devices here, got "cuda"'):
        choose("cuda")


@pytest.mark.parametrize("name", ["tpu", "mps", "CPU", "cpux"])
def test_another_kind_is_refused(name):
    with pytest.raises(DeviceError, match=f'expected cpu, cuda or cuda:N, got "{name}"'):
        choose(name)


@pytest.mark.parametrize(("dtype", "expected"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_convolutions_run_in_the_device_precision(dtype, expected):
    with autocast(Device(name="cpu", dtype=dtype, batch=1, threads=1)):
        assert nn.Conv3d(1, 1, 1)(torch.zeros(1, 1, 2, 2, 2)).dtype == expected


def test_a_placed_network_answers_as_before():
    network, tiles = nn.Conv3d(1, 2, 3, padding=1), torch.rand(1, 1, 4, 4, 4)
    before = network(tiles).detach().numpy()
    after = place(network, Device(name="cpu", dtype="float32", batch=1, threads=1))(tiles).detach().numpy()
    np.testing.assert_allclose(after, before, atol=1e-6)


def test_a_copy_is_placed_in_the_device_precision_and_the_original_stays(monkeypatch):
    network = nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), nn.BatchNorm3d(2), nn.Conv3d(2, 1, 1)).eval()
    placed = place_copy(network, Device(name="cpu", dtype="bfloat16", batch=1, threads=1))
    dtypes = {name: tensor.dtype for name, tensor in placed.state_dict().items() if tensor.is_floating_point()}
    assert {dtypes["0.weight"], dtypes["0.bias"], dtypes["2.weight"]} == {torch.bfloat16}
    assert {dtypes["1.weight"], dtypes["1.running_mean"]} == {torch.float32}
    assert {tensor.dtype for tensor in network.parameters()} == {torch.float32}
    tiles = torch.rand(2, 1, 8, 8, 8)
    with torch.inference_mode(), autocast(Device(name="cpu", dtype="bfloat16", batch=1, threads=1)):
        np.testing.assert_array_equal(placed(tiles).float(), network(tiles).float())  # as autocast alone has it


def test_tiles_are_as_large_as_memory_and_32_bits_allow(monkeypatch):
    monkeypatch.setattr(placing, "machine_bytes", lambda: 10**10)
    monkeypatch.setattr(placing, "cores", lambda: 4)
    full = Device(name="cpu", dtype="float32", batch=1, threads=4)
    assert (
        within_memory(full, Cost(flop=1, activation_bytes=200, elements=32)).tile_voxels == 10**7
    )  # a fifth of 10 GB, at 200 bytes a voxel
    assert within_memory(full, Cost(flop=1, activation_bytes=200, elements=32)).kept_bytes == 1.5e9
    # Half of the cores and so of the memory, and half the bytes a voxel.
    half = Device(name="cpu", dtype="bfloat16", batch=1, threads=2)
    assert within_memory(half, Cost(flop=1, activation_bytes=200, elements=32)).tile_voxels == 10**7
    assert within_memory(full, Cost(flop=1, activation_bytes=0.001, elements=1024)).tile_voxels == 2**21 - 1


def test_the_machine_has_memory():
    assert 10**8 < placing.machine_bytes() < 10**15


def test_a_compiled_network_answers_as_before(monkeypatch):
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, dynamic: compiled.append(dynamic))
    place_copy(nn.Conv3d(1, 1, 1), Device(name="cpu", dtype="float32", batch=1, threads=1, compiled=True))
    assert compiled == [False]


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core")
def test_torch_has_its_threads_wherever_networks_run():
    """In a fresh process: in the main thread and in another, before and after this room's numba kernels ran."""
    code = """
import numba, torch
from concurrent.futures import ThreadPoolExecutor
from surface_kernel.networks.device import Device
from surface_kernel.networks.placing import share_threads
from surface_kernel.inference.slab import compile_kernels
torch.set_num_threads(1)
share_threads(Device(name="cpu", dtype="float32", batch=2, threads=2))
found = [numba.get_num_threads(), torch.get_num_threads()]
compile_kernels()
with ThreadPoolExecutor(1) as pool:
    pool.submit(compile_kernels).result()
    print(*found, torch.get_num_threads(), pool.submit(torch.get_num_threads).result())
"""
    done = run_python(code)
    assert done.stdout.split() == ["2", "2", "2", "2"], done.stderr
