import numpy as np
import pytest
import torch
from torch import Tensor, nn

from surface_kernel.networks.device import Device
from surface_train.loop.average import WeightAverage, recompute_batchnorm

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = Device(name="cpu", dtype="float32", batch=2, threads=1)


def states(count: int) -> list[dict[str, Tensor]]:
    rng = np.random.default_rng(0)
    return [
        {"weight": torch.from_numpy(rng.normal(size=(3, 2))).float(), "num_batches_tracked": torch.tensor(10 * n)}
        for n in range(count)
    ]


@pytest.mark.parametrize("count", [1, 2, 7])
def test_it_is_the_mean_of_the_states(count: int) -> None:
    average = WeightAverage()
    for state in states(count):
        average.add(state)
    wanted = np.mean([state["weight"].numpy().astype(np.float64) for state in states(count)], axis=0)
    np.testing.assert_allclose(average.mean["weight"].numpy(), wanted, rtol=1e-6)
    assert average.count == count
    assert average.mean["num_batches_tracked"] == 10 * (count - 1)
    assert average.mean["num_batches_tracked"].dtype == torch.int64


def test_a_mean_that_was_put_away_goes_on() -> None:
    whole, half = WeightAverage(), WeightAverage()
    for state in states(4):
        whole.add(state)
    for state in states(4)[:2]:
        half.add(state)
    half = WeightAverage(None, mean={name: tensor.clone() for name, tensor in half.mean.items()}, count=half.count)
    for state in states(4)[2:]:
        half.add(state)
    assert half.count == 4
    assert torch.equal(half.mean["weight"], whole.mean["weight"])


def test_an_exponential_mean_follows_its_formula() -> None:
    average, wanted = WeightAverage(decay=0.75), None
    for count, state in enumerate(states(9), start=1):
        average.add(state)
        share = max(1 / count, 0.25)  # up to the fourth state a plain mean
        latest = state["weight"].double()
        wanted = latest if wanted is None else (1 - share) * wanted + share * latest
        if count == 4:
            plain = torch.stack([state["weight"] for state in states(4)]).mean(dim=0)
            torch.testing.assert_close(average.mean["weight"], plain)
    torch.testing.assert_close(average.mean["weight"], wanted.float())
    assert average.count == 9


def test_it_keeps_nothing_of_a_network_that_goes_on_learning() -> None:
    network, average = nn.Linear(2, 1), WeightAverage()
    average.add(network.state_dict())
    before = average.mean["weight"].clone()
    with torch.no_grad():
        network.weight.add_(1)
    assert torch.equal(average.mean["weight"], before)


def test_batchnorm_holds_the_mean_of_its_batches_statistics() -> None:
    layer = nn.BatchNorm3d(1, momentum=0.3)
    layer.running_mean += 100  # what it had measured under other weights
    batches = [torch.randn(2, 1, 3, 4, 5) * scale + scale for scale in (1.0, 2.0, 6.0)]
    recompute_batchnorm(layer.eval(), batches, CPU)
    assert layer.running_mean.item() == pytest.approx(np.mean([batch.mean().item() for batch in batches]), rel=1e-5)
    assert layer.running_var.item() == pytest.approx(np.mean([batch.var().item() for batch in batches]), rel=1e-5)
    assert layer.momentum == 0.3
    assert not layer.training


def test_statistics_are_measured_as_the_network_will_be_used() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm3d(1)).train()
    recompute_batchnorm(network, [torch.ones(1, 1, 4, 4, 4)], CPU)
    assert network[1].running_mean.item() == 1  # with dropout it would be the mean of zeros and twos
    assert network[1].running_var.item() == 0
    assert all(part.training for part in network.modules())


def test_the_weights_are_left_alone() -> None:
    network = nn.Sequential(nn.Conv3d(1, 2, 3), nn.BatchNorm3d(2)).eval()
    before = {name: tensor.clone() for name, tensor in network.named_parameters()}
    recompute_batchnorm(network, [torch.randn(1, 1, 4, 4, 4)], CPU)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.named_parameters())
    assert all(tensor.grad is None for tensor in network.parameters())


def test_without_batchnorm_no_batch_is_asked_for() -> None:
    def batches() -> Tensor:
        raise AssertionError("a batch was asked for")
        yield

    recompute_batchnorm(nn.Conv3d(1, 1, 3), batches(), CPU)
