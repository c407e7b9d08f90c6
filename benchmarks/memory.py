"""Memory against a volume's depth: python benchmarks/memory.py

`python -m surface_kernel predict` on .npy volumes of 320 × 320 voxels and growing depth, its logits going to disk as
they come, one layer of 3 × 3 × 3 weights as the network. Then Unet/resnet18 at one depth, beside what cannot be
avoided: weights twice (as loaded and as placed), one tile's activations as `cost` counts them, its input and the
logits of the layers that are kept. Each in processes of their own; the peak is the worker's (VmHWM), less what it holds
after the same run on a volume of one tile with the small network.
"""

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from machine import described
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "kernel"), str(ROOT / "train")]

from surface_kernel.inference.engine import Engine  # noqa: E402
from surface_kernel.inference.settings import Settings  # noqa: E402
from surface_kernel.inference.tiles import Grid  # noqa: E402
from surface_kernel.networks import cost, network  # noqa: E402
from surface_kernel.networks.architecture import Architecture  # noqa: E402
from surface_kernel.networks.device import Device  # noqa: E402
from surface_kernel.networks.weights import Metadata  # noqa: E402
from surface_kernel.runs.pipeline import Pipeline  # noqa: E402
from surface_kernel.runs.worker import Done, Unit  # noqa: E402
from surface_kernel.volumes.intensity import Intensity  # noqa: E402

TILE, ACROSS, DEPTHS = 128, 320, (320, 640, 1280)
TOLD = Metadata(Architecture(), Intensity(), (TILE,) * 3, overlap=0.5)


def made(kind: str) -> nn.Module:
    """Give a network."""
    torch.manual_seed(0)
    module = network.build(Architecture()) if kind == "unet" else nn.Conv3d(1, 1, 3, padding=1)
    return module.eval().requires_grad_(False)


@dataclass(frozen=True)
class Load:
    """Makes an engine in a worker."""

    kind: str

    def __call__(self, device_name: str | None, threads: int | None) -> Engine:
        """Make it."""
        chosen = Device(name="cpu", dtype="float32", batch=1, threads=2, layout="contiguous")
        return Engine([made(self.kind)], [TOLD], settings=Settings(), device=chosen, cost=cost.Cost(1, 1, 1))


def one(kind: str, depth: int, across: int) -> float:
    """Predict a volume; give the worker's peak in GB."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "volume.npy"
        grey = np.lib.format.open_memmap(path, "w+", np.uint8, (depth, across, across))
        for z in range(depth):
            grey[z] = np.random.default_rng(z).integers(1, 256, (across, across), np.uint8)
        grey.flush()
        unit = Unit("volume", path, grey.shape, sums=Path(folder) / "sums.raw")
        peaks = []

        def finish(done: Done) -> None:
            assert not done.error, done.error
            peaks.append(peak_gb(pipeline._workers[0].process.pid or 0))

        chosen = Device(name="cpu", dtype="float32", batch=1, threads=2, layout="contiguous").to_mapping()
        with Pipeline(Load(kind), "cpu", device=chosen) as pipeline:
            left = [unit]
            list(pipeline.run(lambda before: left.pop() if left else None, finish))
    return peaks[0]


def peak_gb(process: int) -> float:
    """Give the most memory that a process has held so far."""
    status = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) * 1024 / 1e9


def in_its_own(kind: str, depth: int, across: int) -> float:
    """Do so in a process of its own."""
    command = [sys.executable, "-W", "ignore", __file__, kind, str(depth), str(across)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def unavoidable_gb() -> float:
    """Count what a prediction with the Unet holds at the least."""
    counted, voxels = cost.of(made("unet"), (TILE,) * 3), TILE**3
    weights = 2 * sum(tensor.numel() * tensor.element_size() for tensor in made("unet").state_dict().values())
    kept = Grid((ACROSS,) * 3, (TILE,) * 3, 0.5).kept_bytes
    return (weights + counted.activation_bytes * voxels + 4 * voxels + kept) / 1e9


def main() -> None:
    """Measure, print."""
    base = in_its_own("conv", TILE, TILE)
    print(f"# Peak memory of a worker, volumes of {ACROSS} × {ACROSS}, tiles of {TILE}³ at half overlap\n")
    print("| network | depth | peak, GB | above a volume of one tile |\n|---|---|---|---|")
    for depth in DEPTHS:
        peak = in_its_own("conv", depth, ACROSS)
        print(f"| 3 × 3 × 3 weights | {depth} | {peak:.2f} | {peak - base:.2f} |")
    peak, least = in_its_own("unet", ACROSS, ACROSS), unavoidable_gb()
    print(f"| Unet/resnet18 | {ACROSS} | {peak:.2f} | {peak - base:.2f} |")
    print(f"\nUnet/resnet18 cannot do with less than {least:.2f} GB: it took {(peak - base) / least:.2f} times that.")
    print(f"Machine: {described()}.")


if __name__ == "__main__":
    if sys.argv[1:]:
        print(one(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
    else:
        main()
