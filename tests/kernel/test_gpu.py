"""What only a GPU can show: it computes the same surface as the CPU does, within half precision."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scenes import noise

from surface_kernel.engine import Engine
from surface_kernel.settings import Settings

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def test_a_gpu_agrees_with_the_cpu(weights_file: Path) -> None:
    volume = noise((40, 33, 50))
    probabilities = []
    for device in ("cpu", "cuda"):
        engine = Engine.load([weights_file], Settings(views=("none", "x")), device)
        logits = np.concatenate([slab for _, slab in engine.logits(volume)])
        probabilities.append(1 / (1 + np.exp(-logits.astype(np.float64))))
    assert np.abs(probabilities[0] - probabilities[1]).mean() < 0.005
