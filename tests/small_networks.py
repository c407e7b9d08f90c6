"""A network of two layers in place of a library's, whose smallest one takes a second a step."""

from types import SimpleNamespace

import torch
from torch import Tensor, nn


class SmallNetwork(nn.Module):
    """Two layers in place of a library's network: BatchNorm, and a part that draws while it trains."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv3d(1, channels, 3, padding=1), nn.BatchNorm3d(channels)
        self.last = nn.Conv3d(channels, 1, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        found = torch.relu(self.norm(self.first(images)))
        kept = torch.rand(len(images), 1, 1, 1, 1, device=images.device) < 0.8 if self.training else True
        result: Tensor = self.last(found * kept)
        return result


def small_library() -> SimpleNamespace:
    """Stand in for segmentation-models-pytorch-3d, whose smallest network takes a second a step."""
    return SimpleNamespace(create_model=lambda name, **_: SmallNetwork(4 if name == "linknet" else 5))
