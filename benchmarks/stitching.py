"""Tiling and stitching alone, beside others': python benchmarks/stitching.py [SIDE] [ROUNDS]

A network that gives back what it gets, tiles of 128³ at half overlap, from a volume in memory to a uint8 mask, float32
throughout, 2 threads. Everybody's turn comes once a round. Peers want benchmarks/requirements-peers.txt installed:

    MONAI       sliding_window_inference, Gaussian weights, one and four tiles at a time, and its buffered mode
    TorchIO     GridSampler and GridAggregator, Hann weights
    nnU-Net     its loop: weight a tile, add it and its weights to two volumes in half precision, divide in the end;
                written here, also with float32 sums
    reference   its plan of 27 tiles with weights that are 0 on every face, from surface_study.reference

The others are given the standardised float32 volume; ours makes it of the grey values, tile by tile, four tiles a
batch, with the volume's table of 256 values at hand. The floor is what two threads need to read the tiles' logits once.
Prints a page of markdown.
"""

import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from machine import described, spread
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "kernel"), str(ROOT / "train")]

from surface_kernel.inference.forward import Member  # noqa: E402
from surface_kernel.inference.predict import Predictor  # noqa: E402
from surface_kernel.inference.slab import Slab, compile_kernels  # noqa: E402
from surface_kernel.inference.tiles import Grid, window  # noqa: E402
from surface_kernel.inference.views import View  # noqa: E402
from surface_kernel.networks.device import Device  # noqa: E402
from surface_kernel.networks.placing import share_threads  # noqa: E402
from surface_kernel.volumes.intensity import Intensity  # noqa: E402
from surface_study import reference  # noqa: E402

THREADS, TILE, OVERLAP, THRESHOLD, BATCH = 2, 128, 0.5, 0.3, 4
WANTED = {"MONAI, 4 tiles": 2.5, "MONAI, the fastest": 2.0, "nnU-Net's loop": 3.0}


class Ours:
    """The kernel's predictor, its buffers made."""

    def __init__(self, grey: np.ndarray) -> None:
        self.grey, self.grid = grey, Grid(grey.shape, (TILE,) * 3, OVERLAP)
        device = Device(name="cpu", dtype="float32", batch=BATCH, threads=THREADS)
        share_threads(device)
        self.predictor = Predictor([Member(nn.Identity(), Intensity())], device)
        self.tables = self.predictor.tables(grey)
        self.mask = np.empty(grey.shape, np.uint8)

    def __call__(self) -> np.ndarray:
        """Make the mask."""

        def finish(slab: Slab) -> None:
            slab.blend(mask=self.mask[slab.z_start : slab.z_end], limit=THRESHOLD, share=self.predictor.share)

        for _ in self.predictor.run(self.grey, grid=self.grid, passes=[(0, View())], finish=finish, tables=self.tables):
            pass
        return self.mask

    def values(self) -> np.ndarray:
        """Give the blended volume."""
        return np.concatenate(
            [slab for _, slab in self.predictor.slabs(self.grey, grid=self.grid, passes=[(0, View())])]
        )


def monai(volume: torch.Tensor, tiles: int, **named: object) -> Callable[[], np.ndarray]:
    """Give MONAI's way to the blended volume."""
    from monai.inferers import sliding_window_inference

    def run() -> np.ndarray:
        # A single tile is a view of the volume, which MONAI would weight in place if the network gave it back.
        network, named["mode"] = nn.Identity() if tiles > 1 else torch.clone, "gaussian"
        with torch.inference_mode():
            made = sliding_window_inference(volume, (TILE,) * 3, tiles, network, OVERLAP, **named)
        return made[0, 0].numpy()

    return run


def torchio(volume: torch.Tensor) -> Callable[[], np.ndarray]:
    """Give TorchIO's way to the blended volume."""
    import torchio as tio

    subject = tio.Subject(ct=tio.ScalarImage(tensor=volume[0]))

    def run() -> np.ndarray:
        sampler = tio.inference.GridSampler(subject, TILE, TILE // 2)
        aggregator = tio.inference.GridAggregator(sampler, overlap_mode="hann")
        for patch in sampler:
            location = patch[tio.LOCATION][None]
            aggregator.add_batch(patch["ct"][tio.DATA][None], location)
        return aggregator.get_output_tensor()[0].numpy()

    return run


def loop_of_nnunet(volume: torch.Tensor, dtype: torch.dtype) -> Callable[[], np.ndarray]:
    """Give nnU-Net's way: a volume of sums and one of weights, which it keeps in half precision."""
    own = torch.from_numpy(np.einsum("z,y,x->zyx", *[window(TILE)] * 3)).to(dtype)
    corners = Grid(tuple(volume.shape[2:]), (TILE,) * 3, OVERLAP)

    def run() -> np.ndarray:
        total, weights = torch.zeros_like(volume[0, 0], dtype=dtype), torch.zeros_like(volume[0, 0], dtype=dtype)
        for index in corners.indices():
            z, y, x = corners.corner(index)
            box = slice(z, z + TILE), slice(y, y + TILE), slice(x, x + TILE)
            logits = volume[0, 0][box].clone()
            logits *= own
            total[box] += logits
            weights[box] += own
        total /= weights
        return total.numpy()

    return run


def loop_of_reference(volume: torch.Tensor) -> Callable[[], np.ndarray]:
    """Give the reference's way: 27 tiles on 320³, weights that are 0 on the faces."""
    grid = Grid(tuple(volume.shape[2:]), (TILE,) * 3, 0.25)

    def run() -> np.ndarray:
        tiles = np.empty((*(len(axis) for axis in grid.starts_zyx), *grid.tile_zyx), np.float32)
        for index in grid.indices():
            z, y, x = grid.corner(index)
            tiles[index] = volume[0, 0, z : z + TILE, y : y + TILE, x : x + TILE].numpy()
        return reference.stitch(tiles, grid.starts_zyx, grid.shape_zyx)

    return run


def floor(side: int) -> Callable[[], object]:
    """Give a reading of all tiles' logits by two threads, and nothing else."""
    tiles = np.ones((Grid((side,) * 3, (TILE,) * 3, OVERLAP).tiles, TILE**3), np.float32)
    pool = ThreadPoolExecutor(THREADS)
    return lambda: list(pool.map(lambda part: [row.max() for row in part], np.array_split(tiles, THREADS)))


def main() -> None:
    """Measure, print."""
    side, rounds = (int(value) for value in [*sys.argv[1:], *("320", "9")[len(sys.argv) - 1 :]][:2])
    grey = np.random.default_rng(0).integers(1, 256, (side,) * 3, np.uint8)
    compile_kernels()
    ours = Ours(grey)
    exact = Intensity().table(grey).astype(np.float64)[grey]
    volume = torch.from_numpy(exact.astype(np.float32))[None, None]
    peers = {
        "MONAI, 1 tile": monai(volume, 1),
        "MONAI, 4 tiles": monai(volume, 4),
        "MONAI, buffered": monai(volume, 4, buffer_steps=1, buffer_dim=0),
        "TorchIO": torchio(volume),
        "nnU-Net's loop": loop_of_nnunet(volume, torch.half),
        "the same with float32 sums": loop_of_nnunet(volume, torch.float32),
        "the reference's plan": loop_of_reference(volume),
    }
    errors = {"ours": np.abs(ours.values() - exact).max()}
    errors |= {name: np.abs(run() - exact).max() for name, run in peers.items()}
    turns: dict[str, Callable[[], object]] = {"ours": ours, "the floor": floor(side)}
    turns |= {name: lambda run=run: (run() > THRESHOLD).astype(np.uint8) for name, run in peers.items()}
    found: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(rounds + 1):  # the first one warms up
        for name, run in turns.items():
            began_s = time.perf_counter()
            run()
            if number:
                found[name].append(time.perf_counter() - began_s)
    print(f"# Tiling and stitching {side}³ in tiles of {TILE}³, half overlap, to a mask: {rounds} rounds\n")
    print("| who | seconds, median (range) | times ours | largest error |\n|---|---|---|---|")
    median = {name: float(np.median(seconds)) for name, seconds in found.items()}
    for name, seconds in found.items():
        error = f"{errors[name]:.1e}" if name in errors else ""
        print(f"| {name} | {spread(seconds)} | {median[name] / median['ours']:.2f} | {error} |")
    median["MONAI, the fastest"] = min(seconds for name, seconds in median.items() if name.startswith("MONAI"))
    told = ", ".join(f"{name} {median[name] / median['ours']:.2f} (≥ {wanted})" for name, wanted in WANTED.items())
    print(f"\nTimes ours, and what was wanted: {told}. Machine: {described()}.")


if __name__ == "__main__":
    main()
