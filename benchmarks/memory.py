"""Peak memory by depth of the volume: python benchmarks/memory.py

`python -m surface_kernel predict` on .npy volumes of 320 × 320 voxels and growing depth, its logits streamed to
disk, one layer of 3 × 3 × 3 weights as the network. Then Unet/resnet18 at one depth, compared with what cannot be
avoided: weights twice (as loaded and as placed), one tile's activations as `cost` counts them, its input and the
logits of the layers that are kept. Each run has its own processes; the peak is the worker's (VmHWM), minus that of the
same run on a volume of one tile with the small network.
"""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from machine import describe
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "kernel"), str(ROOT / "train")]

from surface_kernel.inference.engine import Engine  # noqa: E402
from surface_kernel.inference.settings import Settings  # noqa: E402
from surface_kernel.inference.tiles import Grid  # noqa: E402
from surface_kernel.networks import cost, network  # noqa: E402
from surface_kernel.networks.architecture import Architecture  # noqa: E402
from surface_kernel.networks.device import Device, DeviceRequest  # noqa: E402
from surface_kernel.networks.weights import Metadata  # noqa: E402
from surface_kernel.runs.messages import Done, Unit  # noqa: E402
from surface_kernel.runs.pipeline import Pipeline, UnitHandler  # noqa: E402
from surface_kernel.volumes.intensity import Intensity  # noqa: E402

TILE, ACROSS, DEPTHS = 128, 320, (320, 640, 1280)
METADATA = Metadata(architecture=Architecture(), intensity=Intensity(), tile_zyx=(TILE,) * 3, overlap=0.5)


def made(kind: str) -> nn.Module:
    """Return a network."""
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
        return Engine(
            [made(self.kind)],
            [METADATA],
            settings=Settings(),
            device=chosen,
            cost=cost.Cost(flop=1, activation_bytes=1, elements=1),
        )


class OneVolume(UnitHandler[None]):
    """Hands out one unit, and asks for its worker's peak when it is done."""

    def __init__(self, unit: Unit) -> None:
        self.left = [unit]
        self.worker = 0
        self.peak_gb = 0.0

    def next_unit(self, queued: Sequence[Unit]) -> Unit | None:
        """Hand it out."""
        return self.left.pop() if self.left else None

    def on_done(self, done: Done) -> bool:
        """Let it be finished."""
        return True

    def finish(self, done: Done) -> None:
        """Measure the worker."""
        assert not done.error, done.error
        self.peak_gb = peak_gb(self.worker)

    def may_continue(self) -> bool:
        """Go on for as long as it takes."""
        return True


def one(kind: str, depth: int, across: int) -> float:
    """Predict a volume; return the worker's peak in GB."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "volume.npy"
        grey = np.lib.format.open_memmap(path, "w+", np.uint8, (depth, across, across))
        for z in range(depth):
            grey[z] = np.random.default_rng(z).integers(1, 256, (across, across), np.uint8)
        grey.flush()
        handler = OneVolume(
            Unit(case="volume", path=path, shape_zyx=grey.shape, sums=Path(folder) / "sums.raw"),
        )
        chosen = Device(name="cpu", dtype="float32", batch=1, threads=2, layout="contiguous")
        with Pipeline(Load(kind), handler, device=DeviceRequest(name="cpu", agreed=chosen)) as pipeline:
            handler.worker = pipeline._workers[0].process.pid or 0
            list(pipeline.run())
    return handler.peak_gb


def peak_gb(process: int) -> float:
    """Return the peak memory of a process so far, in GB."""
    status = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) * 1024 / 1e9


def in_its_own(kind: str, depth: int, across: int) -> float:
    """Return what `one` returns in a process of its own."""
    command = [sys.executable, "-W", "ignore", __file__, kind, str(depth), str(across)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def unavoidable_gb() -> float:
    """Return the least memory that a prediction with the Unet needs, in GB."""
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
    print(f"\nUnet/resnet18 needs at least {least:.2f} GB and took {(peak - base) / least:.2f} times that.")
    print(f"Machine: {describe()}.")


if __name__ == "__main__":
    if sys.argv[1:]:
        print(one(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
    else:
        main()
