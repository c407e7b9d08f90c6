"""The kernel's pipeline compared with its network alone: python benchmarks/inference.py network|accelerator|outside

network      Unet/resnet18, untrained, float32, 2 threads, from LZW TIFFs on disk to masks on disk: the kernel, the same
             tiles through the network alone, and MONAI's sliding_window_inference in the same tiles between Pillow and
             the kernel's writer (benchmarks/requirements-peers.txt). In turns, one 320³ volume per turn, three turns
             after a volume of 64³ for warm-up: nothing is gained by processing several volumes at a time.
accelerator  A network that sleeps 30 ms per tile and uses no CPU, four tiles per batch, 64 tiles per volume, on one
             and on two workers. Idle is 1 − tiles · 30 ms / wall time, from the moment the workers are loaded, nothing
             decoded yet, to the last mask on disk.
outside      CPU-seconds per volume of everything but the network: the same pipeline with an identity network, in the
             tiles that the plan of least work chooses, and in tiles of 128³ at half overlap.
"""

import os
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from machine import describe, median_and_range
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "kernel"), str(ROOT / "train")]

from surface_kernel.inference.engine import Engine  # noqa: E402
from surface_kernel.inference.settings import Settings  # noqa: E402
from surface_kernel.inference.tiles import Grid  # noqa: E402
from surface_kernel.networks import cost, network  # noqa: E402
from surface_kernel.networks.architecture import Architecture  # noqa: E402
from surface_kernel.networks.device import Device, DeviceRequest  # noqa: E402
from surface_kernel.networks.placing import share_threads, within_memory  # noqa: E402
from surface_kernel.networks.weights import Metadata  # noqa: E402
from surface_kernel.postprocess.mask import finish_mask  # noqa: E402
from surface_kernel.postprocess.mask_settings import MaskSettings  # noqa: E402
from surface_kernel.runs.messages import Done, Ready, Unit  # noqa: E402
from surface_kernel.runs.pipeline import Pipeline, UnitHandler  # noqa: E402
from surface_kernel.volumes import volume  # noqa: E402
from surface_kernel.volumes.image_files import write_lzw  # noqa: E402
from surface_kernel.volumes.intensity import Intensity  # noqa: E402
from surface_kernel.volumes.mask_files import write_mask  # noqa: E402

SIDE, TILE, THREADS = 320, 128, 2
MASK = MaskSettings().with_threshold(0.73)
TURNS, SLEEP_S, BATCH, VOLUMES = 3, 0.03, 4, 24
METADATA = Metadata(architecture=Architecture(), intensity=Intensity(), tile_zyx=(TILE,) * 3, overlap=0.5)


class Sleeping(nn.Module):
    """Takes time but no CPU, and returns its input."""

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        """Sleep."""
        time.sleep(SLEEP_S * len(tiles))
        return tiles


@dataclass(frozen=True)
class Load:
    """Makes an engine in a worker: a kind of network, in the tiles of least work or in those of TILE."""

    kind: str
    planned: bool

    def __call__(self, device_name: str | None, threads: int | None) -> Engine:
        """Make it."""
        return Engine(
            [made(self.kind)],
            [METADATA],
            settings=Settings(mask=MASK),
            device=device(self.planned),
            cost=cost.Cost(flop=1, activation_bytes=1, elements=1),
        )


def made(kind: str) -> nn.Module:
    """Return a network, the same each time."""
    torch.manual_seed(0)
    networks = {"sleep": Sleeping, "identity": nn.Identity, "unet": partial(network.build, Architecture())}
    return networks[kind]().eval().requires_grad_(False)


def device(planned: bool, batch: int = 1) -> Device:
    """Return the device that everything here runs on."""
    plain = Device(name="cpu", dtype="float32", batch=batch, threads=THREADS, layout="contiguous")
    return within_memory(plain, cost.of(made("unet"), (TILE,) * 3)) if planned else plain


def volumes(folder: Path, count: int, side: int = SIDE) -> list[Unit]:
    """Write LZW volumes of wavy sheets, a seventh of the voxels, in noise that compresses as badly as a scroll's."""
    units = []
    z, y, x = np.ogrid[:side, :side, :side]
    for number in range(count):
        rng = np.random.default_rng(number)
        wave = np.sin(2 * np.pi * (x + 12 * np.sin(y / 40 + number) + 8 * np.cos(z / 50)) / 24)
        grey = (90 + 70 * (wave > 0.9) + rng.normal(0, 12, wave.shape)).clip(1, 255).astype(np.uint8)
        path = folder / f"{side}_{number}.tif"
        write_lzw(path, grey)
        units.append(Unit(case=path.stem, path=path, shape_zyx=grey.shape, mask=folder / f"{path.stem}.raw"))
    return units


class Volumes(UnitHandler[Done]):
    """Hands out units, and does what the kernel does with a mask that a worker left."""

    def __init__(self) -> None:
        self.left: deque[Unit] = deque()

    def next_unit(self, queued: Sequence[Unit]) -> Unit | None:
        """Hand out the next one."""
        return self.left.popleft() if self.left else None

    def on_done(self, done: Done) -> bool:
        """Let every unit be finished."""
        return True

    def finish(self, done: Done) -> Done:
        """Drop small components, write the TIFF."""
        assert not done.error, done.error
        mask = np.fromfile(done.unit.mask, np.uint8).reshape(done.unit.shape_zyx)
        done.unit.mask.unlink()
        finish_mask(mask, None, MASK)
        write_mask(done.unit.path.with_suffix(".mask.tif"), mask)
        return done

    def may_continue(self) -> bool:
        """Go on for as long as it takes."""
        return True


def pipeline_of(load: Load, chosen: Device, workers: int = 1) -> tuple[Pipeline[Done], Volumes]:
    """Start a pipeline on the CPU, and return it with what hands out its units."""
    handler = Volumes()
    request = DeviceRequest(name="cpu", agreed=chosen)
    return Pipeline(load, handler, device=request, workers=workers), handler


def through(pipeline: Pipeline[Done], handler: Volumes, units: list[Unit]) -> float:
    """Send volumes through a pipeline; return the seconds it took."""
    began_s = time.perf_counter()
    handler.left.extend(units)
    assert len(list(pipeline.run())) == len(units)
    return time.perf_counter() - began_s


def network_alone(module: nn.Module, grid: Grid) -> float:
    """Run as many tiles as the plan has; return the seconds."""
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
    finish_mask(mask, None, MASK)
    write_mask(unit.path.with_suffix(".monai.tif"), mask)
    return time.perf_counter() - began_s


def beside_the_network(folder: Path) -> None:
    """Measure the kernel, its network and MONAI in turns."""
    units, (warm,) = volumes(folder, TURNS), volumes(folder, 1, 64)
    chosen = device(planned=True)
    grid = tiles_of(chosen)
    module = made("unet")
    found: dict[str, list[float]] = {"kernel": [], "network": [], "MONAI": []}
    share_threads(chosen)
    pipeline, handler = pipeline_of(Load("unet", True), chosen)
    with pipeline:
        through(pipeline, handler, [warm])
        network_alone(module, Grid((64,) * 3, (64,) * 3, 0.0))
        for unit in units:
            found["network"].append(network_alone(module, grid))
            found["kernel"].append(through(pipeline, handler, [unit]))
            found["MONAI"].append(through_monai(module, grid, unit))
    print(f"# {TURNS} volumes of {SIDE}³, disk to mask on disk, Unet/resnet18 in float32, {THREADS} threads\n")
    print(f"{grid.tiles} tiles of {grid.tile_zyx}, one at a time, each voxel computed {grid.redundancy:.2f} times.\n")
    print("| who | seconds per volume, median (range) | times the network alone, of the sums |\n|---|---|---|")
    for name, seconds in found.items():
        print(f"| {name} | {median_and_range(seconds)} | {sum(seconds) / sum(found['network']):.3f} |")


def tiles_of(chosen: Device) -> Grid:
    """Plan a volume's tiles as the engine does."""
    ready = Ready(
        device=chosen,
        trials=(),
        tile_s=0,
        flop=0,
        members=1,
        stages=1,
        passes=1,
        trained_zyx=METADATA.tile_zyx,
        overlap=METADATA.overlap,
    )
    return ready.grid((SIDE,) * 3)


def beside_an_accelerator(folder: Path) -> None:
    """Measure the share of time in which a sleeping network is idle."""
    units, wall_s = volumes(folder, VOLUMES), {}
    for workers in (1, 2):
        pipeline, handler = pipeline_of(Load("sleep", False), device(False, BATCH), workers)
        with pipeline:
            while not all(worker.loaded for worker in pipeline._workers):
                list(pipeline._receive(0.1))
            through(pipeline, handler, volumes(folder, workers, 64))
            wall_s[workers] = through(pipeline, handler, units)
    tiles = Grid((SIDE,) * 3, (TILE,) * 3, 0.5).tiles
    print(f"# A network that sleeps {SLEEP_S * 1e3:.0f} ms per tile, {VOLUMES} volumes of {SIDE}³ of {tiles} tiles\n")
    print("| workers | wall, s | idle |\n|---|---|---|")
    for workers, seconds in wall_s.items():
        print(f"| {workers} | {seconds:.1f} | {1 - VOLUMES * tiles * SLEEP_S / workers / seconds:.1%} |")
    print(f"\nTwo workers are {wall_s[1] / wall_s[2]:.2f} times as fast as one.")


def outside(folder: Path) -> None:
    """Measure the CPU-seconds of all processes with an identity network."""
    units = volumes(folder, 8)
    print(f"# CPU-seconds per volume of {SIDE}³ outside the network, disk to mask on disk\n")
    print("| tiles | CPU-seconds | wall, s |\n|---|---|---|")
    for planned in (True, False):
        grid = tiles_of(device(planned))
        pipeline, handler = pipeline_of(Load("identity", planned), device(planned))
        with pipeline:
            through(pipeline, handler, units[:2])
            process = pipeline._workers[0].process.pid
            begun = time.process_time() + cpu_seconds(process)
            wall_s = through(pipeline, handler, units)
            used = time.process_time() + cpu_seconds(process) - begun
        print(f"| {grid.tiles} of {grid.tile_zyx} | {used / len(units):.2f} | {wall_s / len(units):.2f} |")


def cpu_seconds(process: int) -> float:
    """Return the CPU-seconds that a process has used so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure what is asked for."""
    measure = {"network": beside_the_network, "accelerator": beside_an_accelerator, "outside": outside}
    if sys.argv[1:2] == [] or sys.argv[1] not in measure:
        sys.exit(f"expected one of {', '.join(measure)}, got {' '.join(sys.argv[1:]) or 'nothing'}")
    with tempfile.TemporaryDirectory() as folder:
        measure[sys.argv[1]](Path(folder))
    print(f"\nMachine: {describe()}.")


if __name__ == "__main__":
    main()
