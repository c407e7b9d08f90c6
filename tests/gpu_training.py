"""A small network that trains on simulated GPUs, in this process or in one that starts from `RUN`."""

from types import SimpleNamespace

import torch
from torch import Tensor, nn

TINY = """
epochs = 3
steps_per_epoch = 3
fold_count = 2
overlap = 0.25

[network]
decoder = "Linknet"
encoder = "efficientnet-b0"

[patches]
shape_zyx = [32, 32, 32]
batch = 2
workers = 1

[optimiser]
learning_rate = 2e-3
warmup_steps = 2

[average]
start_epoch = 2
batchnorm_steps = 2

[validation]
every_epochs = 2
cases = 1
"""

# Of a process of its own: `python FILE fit ...`, or by torchrun.
RUN = """
import sys
from gpu_training import library
from surface_kernel.networks import network
from surface_train.__main__ import main
network._library = library
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""


class SmallTrained(nn.Module):
    """Two layers, BatchNorm, and a part that draws while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv3d(1, 4, 3, padding=1), nn.BatchNorm3d(4)
        self.last = nn.Conv3d(4, 1, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        seen = torch.relu(self.norm(self.first(images)))
        kept = torch.rand(len(images), 1, 1, 1, 1, device=images.device) < 0.8 if self.training else 1
        logits: Tensor = self.last(seen * kept)
        return logits


def library() -> SimpleNamespace:
    """Stand in for the library that builds networks."""
    return SimpleNamespace(create_model=lambda name, **_: SmallTrained())
