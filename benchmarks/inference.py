"""The kernel's pipeline beside its network alone: python benchmarks/inference.py network|accelerator|outside

network      Unet/resnet18, untrained, float32, 2 threads, from LZW TIFFs on disk to masks on disk: the kernel, the same
             tiles through the network alone, and MONAI's sliding_window_inference in the same tiles between Pillow and
             the kernel's writer (benchmarks/requirements-peers.txt). Turn by turn, one 320³ volume a turn, three turns
             after a volume of 64³ that warms up: nothing is gained by having several volumes under way.
accelerator  A network that sleeps 30 ms a tile and takes no CPU, four tiles a batch, 64 tiles a volume, on one and on
             two workers. Idle is 1 − tiles · 30 ms / wall, from the moment the workers are loaded, nothing decoded yet,
             to the last mask on disk.
outside      The CPU-seconds a volume of all that is not the network: the same pipeline around an identity, in the
             tiles that the plan of least work chooses, and in tiles of 128³ at half overlap.
"""

import os
import sys
import tempfile
import time
from collections import deque
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from machine import described, spread
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "kernel"), str(ROOT / "train")]

from surface_kernel.inference.engine import Engine  # noqa: E402
from surface_kernel.inference.settings import Settings  # noqa: E402
from surface_kernel.inference.tiles import Grid  # noqa: E402
from surface_kernel.networks import cost, network  # noqa: E402
from surface_kernel.networks.architecture import Architecture  # noqa: E402
from surface_kernel.networks.device import Device  # noqa: E402
from surface_kernel.networks.placing import share_threads  # noqa: E402
from surface_kernel.networks.weights import Metadata  # noqa: E402
from surface_kernel.postprocess.drop_small_components import drop_small_components  # noqa: E402
from surface_kernel.runs.pipeline import Pipeline  # noqa: E402
from surface_kernel.runs.worker import Done, Ready, Unit  # noqa: E402
from surface_kernel.volumes import volume  # noqa: E402
from surface_kernel.volumes.intensity import Intensity  # noqa: E402

SIDE, TILE, THREADS, DUST = 320, 128, 2, 1000
TURNS, SLEEP_S, BATCH, VOLUMES = 3, 0.03, 4, 24
TOLD = Metadata(Architecture(), Intensity(), (TILE,) * 3, overlap=0.5)


class Sleeping(nn.Module):
    """Takes its time, and none of the CPU's; gives back what it gets."""

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        """Sleep."""
        time.sleep(SLEEP_S * len(tiles))
        return tiles


@dataclass(frozen=True)
class Load:
    """Makes an engine in a worker. kind: the network. planned: tiles of least work, or those of TILE."""

    kind: str
    planned: bool

    def __call__(self, device_name: str | None, threads: int | None) -> Engine:
        """Make it."""
        return Engine(
            [made(self.kind)],
            [TOLD],
            Settings(threshold=0.73, dust_voxels=DUST),
            device(self.planned),
            cost.Cost(1, 1, 1),
        )


def made(kind: str) -> nn.Module:
    """Give a network, the same each time."""
    torch.manual_seed(0)
    networks = {"sleep": Sleeping, "identity": nn.Identity, "unet": partial(network.build, Architecture())}
    return networks[kind]().eval().requires_grad_(False)


def device(planned: bool, batch: int = 1) -> Device:
    """Give the device that everything here runs on."""
    plain = Device(name="cpu", dtype="float32", batch=batch, threads=THREADS, layout="contiguous")
    return plain.within(cost.of(made("unet"), (TILE,) * 3)) if planned else plain


def volumes(folder: Path, count: int, side: int = SIDE) -> list[Unit]:
    """Write LZW volumes of wavy sheets, a seventh of the voxels, in noise that compresses as badly as a scroll's."""
    units = []
    z, y, x = np.ogrid[:side, :side, :side]
    for number in range(count):
        rng = np.random.default_rng(number)
        wave = np.sin(2 * np.pi * (x + 12 * np.sin(y / 40 + number) + 8 * np.cos(z / 50)) / 24)
        grey = (90 + 70 * (wave > 0.9) + rng.normal(0, 12, wave.shape)).clip(1, 255).astype(np.uint8)
        path = folder / f"{side}_{number}.tif"
        volume.write_lzw(path, grey)
        units.append(Unit(path.stem, path, grey.shape, mask=folder / f"{path.stem}.raw"))
    return units


def finish(done: Done) -> Done:
    """Do what the kernel does with a mask that a worker left."""
    assert not done.error, done.error
    mask = np.fromfile(done.unit.mask, np.uint8).reshape(done.unit.shape_zyx)
    done.unit.mask.unlink()
    drop_small_components(mask, DUST, connectivity=26)
    volume.write_mask(done.unit.path.with_suffix(".mask.tif"), mask)
    return done


def through(pipeline: Pipeline, units: list[Unit]) -> float:
    """Send volumes through a pipeline; give the seconds it took."""
    left, began_s = deque(units), time.perf_counter()
    assert len(list(pipeline.run(lambda before: left.popleft() if left else None, finish))) == len(units)
    return time.perf_counter() - began_s


def network_alone(module: nn.Module, grid: Grid) -> float:
    """Run as many tiles as the plan has; give the seconds."""
    tiles = torch.randn(1, 1, *grid.tile_zyx)
    began_s = time.perf_counter()
    with torch.inference_mode():
        for _ in range(grid.tiles):
            module(tiles)
    return time.perf_counter() - began_s


def through_monai(module: nn.Module, grid: Grid, unit: Unit) -> float:
    """Do the same with MONAI's sliding window, in the same tiles."""
    from monai.inferers import sliding_window_inference

    began_s = time.perf_counter()
    grey = volume.read(unit.path)
    overlap = tuple(
        1 - (starts[1] - starts[0]) / tile if len(starts) > 1 else 0.0
        for starts, tile in zip(grid.starts_zyx, grid.tile_zyx, strict=True)
    )
    standard = ((grey - grey.mean(dtype=np.float64)) / grey.std(dtype=np.float64)).astype(np.float32)
    with torch.inference_mode():
        made_ = sliding_window_inference(
            torch.from_numpy(standard)[None, None], grid.tile_zyx, 1, module, overlap, mode="gaussian"
        )
    mask = (made_[0, 0].numpy() > 0).view(np.uint8)
    drop_small_components(mask, DUST, connectivity=26)
    volume.write_mask(unit.path.with_suffix(".monai.tif"), mask)
    return time.perf_counter() - began_s


def beside_the_network(folder: Path) -> None:
    """Measure the kernel, its network and MONAI in turns."""
    units, (warm,) = volumes(folder, TURNS), volumes(folder, 1, 64)
    chosen = device(planned=True)
    grid = tiles_of(chosen)
    module = made("unet")
    found: dict[str, list[float]] = {"kernel": [], "network": [], "MONAI": []}
    share_threads(chosen)
    with Pipeline(Load("unet", True), "cpu", device=chosen.to_mapping()) as pipeline:
        through(pipeline, [warm])
        network_alone(module, Grid((64,) * 3, (64,) * 3, 0.0))
        for unit in units:
            found["network"].append(network_alone(module, grid))
            found["kernel"].append(through(pipeline, [unit]))
            found["MONAI"].append(through_monai(module, grid, unit))
    print(f"# {TURNS} volumes of {SIDE}³, disk to mask on disk, Unet/resnet18 in float32, {THREADS} threads\n")
    print(f"{grid.tiles} tiles of {grid.tile_zyx}, one at a time, each voxel computed {grid.redundancy:.2f} times.\n")
    print("| who | seconds a volume, median (range) | times the network alone, of the sums |\n|---|---|---|")
    for name, seconds in found.items():
        print(f"| {name} | {spread(seconds)} | {sum(seconds) / sum(found['network']):.3f} |")


def tiles_of(chosen: Device) -> Grid:
    """Plan a volume's tiles as the engine does."""
    told = Ready(chosen.to_mapping(), "", (), 0, 0, 1, 1, 1, TOLD.tile_zyx, TOLD.overlap, 0.5)
    return told.grid((SIDE,) * 3)


def beside_an_accelerator(folder: Path) -> None:
    """Measure how long a sleeping network waits."""
    units, wall_s = volumes(folder, VOLUMES), {}
    for workers in (1, 2):
        loaded = Load("sleep", False), "cpu", workers
        with Pipeline(*loaded, device=device(False, BATCH).to_mapping()) as pipeline:
            while not all(worker.loaded for worker in pipeline._workers):
                list(pipeline._receive(0.1))
            through(pipeline, volumes(folder, workers, 64))
            wall_s[workers] = through(pipeline, units)
    tiles = Grid((SIDE,) * 3, (TILE,) * 3, 0.5).tiles
    print(f"# A network that sleeps {SLEEP_S * 1e3:.0f} ms a tile, {VOLUMES} volumes of {SIDE}³ of {tiles} tiles\n")
    print("| workers | wall, s | idle |\n|---|---|---|")
    for workers, seconds in wall_s.items():
        print(f"| {workers} | {seconds:.1f} | {1 - VOLUMES * tiles * SLEEP_S / workers / seconds:.1%} |")
    print(f"\nTwo workers are {wall_s[1] / wall_s[2]:.2f} times as fast as one.")


def outside(folder: Path) -> None:
    """Measure the CPU-seconds of all processes around an identity."""
    units = volumes(folder, 8)
    print(f"# CPU-seconds a volume of {SIDE}³ outside the network, disk to mask on disk\n")
    print("| tiles | CPU-seconds | wall, s |\n|---|---|---|")
    for planned in (True, False):
        grid = tiles_of(device(planned))
        with Pipeline(Load("identity", planned), "cpu", device=device(planned).to_mapping()) as pipeline:
            through(pipeline, units[:2])
            process = pipeline._workers[0].process.pid
            begun = time.process_time() + cpu_seconds(process)
            wall_s = through(pipeline, units)
            used = time.process_time() + cpu_seconds(process) - begun
        print(f"| {grid.tiles} of {grid.tile_zyx} | {used / len(units):.2f} | {wall_s / len(units):.2f} |")


def cpu_seconds(process: int) -> float:
    """Give the CPU-seconds that a process has used so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure what is asked for."""
    measure = {"network": beside_the_network, "accelerator": beside_an_accelerator, "outside": outside}
    if sys.argv[1:2] == [] or sys.argv[1] not in measure:
        sys.exit(f"found {sys.argv[1:]}, wanted one of {', '.join(measure)}")
    with tempfile.TemporaryDirectory() as folder:
        measure[sys.argv[1]](Path(folder))
    print(f"\nMachine: {described()}.")


if __name__ == "__main__":
    main()
