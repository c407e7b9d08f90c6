"""The simulation itself: an upgrade of torch that breaks it fails here, by name."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

pytestmark = pytest.mark.simulated_cuda


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(), nn.Conv3d(4, 1, 1))


def images(*sizes):
    return torch.from_numpy(np.random.default_rng(1).normal(size=(2, 1, *sizes)).astype(np.float32))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_convolution_with_autocast_and_backward(dtype):
    expected, network, x = small(), small().cuda(), images(8, 9, 10)
    expected(x).square().mean().backward()
    with torch.autocast("cuda", dtype=dtype, enabled=dtype != torch.float32):
        logits = network(x.to("cuda"))
    assert (logits.device, logits.dtype) == (torch.device("cuda", 0), dtype)
    logits.float().square().mean().backward()
    exact = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 0.05, "atol": 2e-3}
    for own, other in zip(network.parameters(), expected.parameters(), strict=True):
        assert own.grad.device.type == "cuda"
        torch.testing.assert_close(own.grad.cpu(), other.grad, **exact)
    torch.testing.assert_close(network[1].running_mean.cpu(), expected[1].running_mean, rtol=1e-2, atol=1e-3)


def test_what_lies_on_different_devices_does_not_meet(gpu):
    gpu.wish(gpus=2)
    first, second = torch.ones(3, device="cuda:0"), torch.ones(3, device="cuda:1")
    with pytest.raises(RuntimeError, match="at least two devices, cuda:0 and cuda:1"):
        first + second
    with pytest.raises(RuntimeError, match="at least two devices, cuda:1 and cpu"):
        second + torch.ones(3)
    with pytest.raises(RuntimeError, match="invalid device ordinal"):
        torch.cuda.Stream("cuda:2")


def test_a_copy_back_holds_poison_until_it_is_waited_for(gpu):
    there, here = torch.arange(4.0, device="cuda"), torch.empty(4, pin_memory=True)
    here.copy_(there, non_blocking=True)
    assert here.tolist() == [12345.0] * 4
    torch.cuda.synchronize()
    assert here.tolist() == [0, 1, 2, 3]
    gpu.wish(poison=float("nan"))
    here.copy_(there, non_blocking=True)
    assert here.isnan().all()
    event = torch.cuda.Event()
    event.record()
    event.synchronize()
    assert here.tolist() == [0, 1, 2, 3]


def hazard_of(gpu, text):
    """Whether just this was reported; it is forgotten."""
    found = gpu.hazards
    gpu.forget()
    return len(found) == 1 and text in found[0]


def test_a_pinned_source_must_stay_as_it_is_until_the_copy_is_waited_for(gpu):
    source = torch.ones(5).pin_memory()
    source.to("cuda", non_blocking=True)
    source[0] = 2
    torch.cuda.synchronize()
    assert hazard_of(gpu, "changed while its copy to the GPU was under way")


def test_memory_that_is_not_pinned_cannot_be_copied_to_without_waiting(gpu):
    torch.empty(3).copy_(torch.ones(3, device="cuda"), non_blocking=True)
    assert hazard_of(gpu, "not pinned")


def test_streams_wait_for_one_another(gpu):
    side = torch.cuda.Stream()
    x = torch.ones(3, device="cuda") * 2
    with torch.cuda.stream(side):
        x + 1
    assert hazard_of(gpu, "may not have written yet")
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        x + 1


def test_memory_used_on_another_stream_is_recorded(gpu):
    side, x, here = torch.cuda.Stream(), torch.ones(3, device="cuda"), torch.empty(3, pin_memory=True)
    side.wait_stream(torch.cuda.current_stream())
    for records in (True, False):
        with torch.cuda.stream(side):
            here.copy_(x, non_blocking=True)
        if records:
            x.record_stream(side)
        side.synchronize()
    assert hazard_of(gpu, "without record_stream")


def test_memory_is_counted_and_has_a_limit(gpu):
    before = torch.cuda.memory_allocated()
    gpu.wish(limit_bytes=before + 10_000)
    kept = torch.ones(1000, device="cuda")
    assert torch.cuda.memory_allocated() == before + 4000
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        torch.ones(10_000, device="cuda")
    del kept
    assert torch.cuda.memory_allocated() == before


def test_faults_come_where_they_are_wanted(gpu):
    network, x = small().cuda(), images(4, 4, 4).cuda()
    plain = network(x)
    gpu.fail("engine", first=2)
    with pytest.raises(RuntimeError, match="GET was unable to find an engine"):
        network(x)
    gpu.fail("wrong", first=2)
    assert not torch.equal(network(x), plain)
    gpu.fail("sticky", first=1)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="an illegal memory access"):
            network(x)
    assert [line["fault"] for line in gpu.seen("fault")] == ["engine", "wrong", "sticky"]


def test_the_architecture_decides_about_bfloat16(gpu):
    assert not torch.cuda.is_bf16_supported(including_emulation=False)
    gpu.wish(capability=(8, 0))
    assert torch.cuda.is_bf16_supported(including_emulation=False)


def test_a_copy_of_a_network_is_another_one():
    network = small().cuda()
    other = copy.deepcopy(network)
    assert all(parameter.is_cuda for parameter in other.parameters())
    assert other[0].weight.data_ptr() != network[0].weight.data_ptr()


LAYERS = {
    "average": nn.AvgPool3d(2),
    "maximum": nn.MaxPool3d(2),
    "nearest": nn.Upsample(scale_factor=2),
    "trilinear": nn.Upsample(scale_factor=2, mode="trilinear"),
    "transposed": nn.ConvTranspose3d(1, 3, 2, 2),
    "instance": nn.InstanceNorm3d(1, affine=True),
    "batch": nn.BatchNorm3d(1),
    "leaky": nn.LeakyReLU(inplace=True),
    "adaptive": nn.AdaptiveAvgPool3d(1),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d], ids=["contiguous", "last"])
def test_layers_compute_in_half_precision_what_the_cpu_does(name, layout):
    layer = copy.deepcopy(LAYERS[name])
    x = images(8, 8, 8).requires_grad_()
    there = x.detach().to("cuda", memory_format=layout).requires_grad_()
    expected = layer(x * 1.0)
    with torch.autocast("cuda", dtype=torch.float16):
        found = copy.deepcopy(LAYERS[name]).cuda()((there * 1.0).half())
    torch.testing.assert_close(found.float().cpu(), expected, rtol=5e-3, atol=5e-3)
    expected.square().mean().backward()
    (found.float().square().mean() * 64).backward()
    torch.testing.assert_close(there.grad.cpu() / 64, x.grad, rtol=2e-2, atol=2e-3)
