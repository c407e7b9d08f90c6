import pytest
import torch
from scenes import run_python
from torch import nn

from surface_kernel.architecture import DECODERS, ENCODERS, Architecture
from surface_kernel.device import Device
from surface_kernel.network import NetworkError, build, restore

TINY = Architecture("Linknet", "efficientnet-b0")


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return build(TINY).state_dict()


@pytest.mark.parametrize("decoder", DECODERS)
def test_networks_return_logits_of_the_tiles_own_shape(decoder):
    """Scaling the last convolution scales what comes out: nothing after it squeezes into 0 to 1."""
    torch.manual_seed(0)
    network = build(Architecture(decoder, "efficientnet-b0")).eval()
    last = [layer for layer in network.modules() if isinstance(layer, nn.Conv3d)][-1]
    tiles = torch.randn(1, 1, 32, 64, 32)
    with torch.inference_mode():
        plain = network(tiles)
        assert plain.shape == tiles.shape
        last.weight.mul_(1000)
        last.bias.mul_(1000)
        torch.testing.assert_close(network(tiles), 1000 * plain, rtol=1e-4, atol=1e-3)
        assert (network(tiles).abs() > 1).any()


def test_nothing_is_downloaded_and_the_same_seed_builds_the_same_network(state):
    torch.manual_seed(0)
    again = build(TINY).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())


def test_a_restored_network_is_ready_for_inference(state):
    network = restore(TINY, state)
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(state, dtype):
    halved = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    widened = restore(TINY, halved).state_dict()
    for name, tensor in halved.items():
        assert widened[name].dtype == (torch.float32 if tensor.is_floating_point() else torch.int64)
        assert torch.equal(widened[name], tensor.to(widened[name].dtype))


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.popitem(),
        lambda state: state.update(stranger=torch.zeros(1)),
        lambda state: state.update({next(iter(state)): torch.zeros(1)}),
        lambda state: state.clear(),
    ],
)
def test_a_state_that_does_not_fit_is_one_line(state, change):
    other = dict(state)
    change(other)
    with pytest.raises(NetworkError, match=r"Linknet.*found a state that does not fit: ") as caught:
        restore(TINY, other)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_state_of_another_network_does_not_fit(state):
    with pytest.raises(NetworkError, match=r"Unet.*found a state that does not fit"):
        restore(Architecture("Unet", "efficientnet-b0"), state)


def test_stand_ins_leave_no_trace_and_what_was_loaded_comes_back():
    """At first the library is not there, then it is imported, then it is there already."""
    code = """
import sys
from types import ModuleType
stood_in = ("torchvision", "timm", "timm_3d", "pretrainedmodels", "efficientnet_pytorch")
loaded = {name: ModuleType(name) for name in ("timm", "timm.models", "torchvision")}
sys.modules.update(loaded, segmentation_models_pytorch_3d=None)
finders = list(sys.meta_path)
from surface_kernel.architecture import Architecture
from surface_kernel.device import Device
from surface_kernel.network import NetworkError, build
for attempt in range(3):
    try:
        build(Architecture("Linknet", "efficientnet-b0"))
        print("built")
    except NetworkError as error:
        assert "pip install --no-deps" in str(error), error
        print("not there")
        del sys.modules["segmentation_models_pytorch_3d"]
    assert sys.meta_path == finders, sys.meta_path
    left = {name: module for name, module in sys.modules.items() if name.split(".")[0] in stood_in}
    assert left == loaded, left
"""
    done = run_python(code)
    assert done.stdout.split("\n") == ["not there", "built", "built", ""], done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_encoder_runs(encoder):
    """Without making up initial values, which takes longer than to run: the greatest has 1.6 billion parameters."""
    with torch.device("meta"):
        network = build(Architecture("Unet", encoder)).eval()
    network, tiles = network.to_empty(device="cpu"), torch.zeros(1, 1, 32, 32, 32)
    for dtype in ("float32", "bfloat16"):
        with torch.inference_mode(), Device("cpu", dtype, batch=1, threads=1).autocast():
            assert network(tiles).shape == tiles.shape
