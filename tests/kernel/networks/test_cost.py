import pytest
import torch
from torch import nn

from surface_kernel.networks import cost, network
from surface_kernel.networks.architecture import Architecture


def test_two_layers_by_hand():
    # Each voxel: 27 × 1 × 4 and 27 × 4 × 1 multiplications and as many additions. Alive at the most: one channel in
    # and four out of the first layer, or four and one of the second; the tile itself is the caller's.
    module = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.Conv3d(4, 1, 3, padding=1))
    found = cost.of(module, (4, 6, 8))
    assert found.flop == 2 * 27 * 4 * 2
    assert found.activation_bytes == 4 * (4 + 1)
    assert found.elements == 4


def test_what_is_dropped_makes_room():
    class Wide(nn.Module):
        def forward(self, tiles):
            for _ in range(5):
                tiles = tiles.repeat(1, 8, 1, 1, 1).sum(1, keepdim=True)
            return tiles

    found = cost.of(Wide(), (4, 4, 4))
    assert found.activation_bytes == 4 * (1 + 8 + 1)  # what came in, eight channels of it, their sum; never 16


def test_operations_in_place_and_views_take_nothing():
    class InPlace(nn.Module):
        def forward(self, tiles):
            made = tiles + 1
            return made.relu_().flip(2).view(-1).reshape(tiles.shape)

    assert cost.of(InPlace(), (4, 4, 4)).activation_bytes == 4 * 2


@pytest.mark.parametrize(
    ("decoder", "encoder", "gflop"),
    [("Unet", "resnet18", 275), ("FPN", "resnet18", 138), ("Unet", "efficientnet-b0", 193)],
)
def test_real_networks_cost_what_was_counted_elsewhere(decoder, encoder, gflop):
    found = cost.of(network.build(Architecture(decoder, encoder)).eval(), (128, 128, 128))
    assert found.flop * 128**3 / 1e9 == pytest.approx(gflop, abs=1)


def test_counting_leaves_the_network_as_it_was():
    module = nn.Conv3d(1, 1, 1)
    before = module.weight.clone()
    cost.of(module, (2, 2, 2))
    assert module.weight.device.type == "cpu"
    assert torch.equal(module.weight, before)
