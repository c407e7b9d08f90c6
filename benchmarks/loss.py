"""The cost of the loss: python benchmarks/loss.py [--side N] [--batch N] [--repeats N] [--device D] [--threads N]

Prints three tables in Markdown. First, forward and backward of each term alone and of all seven together, beside one
training step of the Unet with a resnet18 in the device's precision, and the bytes that PyTorch's operations read and
write for a voxel. Then what the loader's threads spend on the maps of a patch. Then how clDice at half resolution, as
the loss has it, and at full resolution agree on wavy sheets: values, and the cosine between their gradients, as they
are and averaged over 2×2×2 voxels. Whatever is timed takes turns; what is printed are medians.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "kernel"), str(ROOT / "train")]

import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from surface_kernel.networks.architecture import Architecture  # noqa: E402
from surface_kernel.networks.device import Device  # noqa: E402
from surface_kernel.networks.network import build  # noqa: E402
from surface_kernel.networks.placing import autocast, choose, place, share_threads  # noqa: E402
from surface_train.data.truth import Truth  # noqa: E402
from surface_train.loss_weights import LossWeights  # noqa: E402
from surface_train.losses import loss  # noqa: E402
from surface_train.losses.compared import Compared  # noqa: E402
from surface_train.losses.morphology import soft_skeleton  # noqa: E402
from surface_train.losses.terms import TERMS, cldice, label_maps  # noqa: E402

WEIGHTS = LossWeights()
ITERATIONS = WEIGHTS.cldice_iterations
MAPS = label_maps(WEIGHTS)
Label = npt.NDArray[np.uint8]


def sheets(side: int, seed: int) -> Label:
    """Make wavy sheets, three to four voxels thick, every 14 voxels, in a shell without labels."""
    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*(np.arange(side),) * 3, indexing="ij")
    wave = 5 * np.sin(y / 13 + rng.uniform(0, 6)) + 4 * np.sin(x / 17 + rng.uniform(0, 6))
    label = ((z + wave) % 14 < 3.5).astype(np.uint8)
    edge = max(1, side // 20)
    shell = np.full(label.shape, 2, np.uint8)
    shell[edge:-edge, edge:-edge, edge:-edge] = label[edge:-edge, edge:-edge, edge:-edge]
    return shell


def guess(labels: Tensor, noise: float, gap: int = 0) -> Tensor:
    """Make logits as a network in training gives them: smooth, noisy; `gap` voxels of every 32 along x are missing."""
    wanted = (labels == 1).float()
    if gap:
        wanted = wanted * (torch.arange(wanted.shape[-1]) % 32 >= gap)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(wanted.shape, generator=generator)
    soft = functional.avg_pool3d(8 * wanted - 4 + 3 * noise * drawn, 3, 1, 1)
    return soft[:, None]


class Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of tensors that operations read and write; views are free."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        returns = func._schema.returns
        view = bool(returns) and returns[0].alias_info is not None and not returns[0].alias_info.is_write
        if not view:
            flat, _ = torch.utils._pytree.tree_flatten((args, kwargs, result))
            self.bytes += sum(
                min(item.numel() * item.element_size(), item.untyped_storage().nbytes())
                for item in flat
                if isinstance(item, Tensor)
            )
        return result


class Bench:
    """One batch, ready for every term, and a network with its step."""

    def __init__(self, side: int, batch: int, device: Device) -> None:
        self.device = device
        self.numpy = [sheets(side, seed) for seed in range(batch)]
        labels = torch.from_numpy(np.stack(self.numpy))
        self.logits = guess(labels, 1.0).to(device.name)
        self.labels = labels.to(device.name)
        self.maps = {
            kind.name: torch.from_numpy(np.stack([kind.make(sample) for sample in self.numpy])).to(device.name)
            for kind in MAPS
        }
        self.centre = soft_skeleton(self.truth().surface, 2 * ITERATIONS)
        self.network = place(build(Architecture("Unet", "resnet18")), device).train()
        self.optimiser = torch.optim.AdamW(self.network.parameters())
        self.images = torch.randn(self.logits.shape, device=device.name)

    def truth(self) -> Truth:
        """Return the truth as a step gets it: the loader's maps, nothing else made yet."""
        return Truth(self.labels, self.maps)

    def jobs(self) -> dict[str, Callable[[], object]]:
        """Return what is timed, by name."""
        alone = {
            name: LossWeights.from_preset("rebalanced", {f"{other}_weight": float(other == name) for other in TERMS})
            for name in TERMS
        }
        weighed = alone | {"all seven": WEIGHTS, "calibrated": LossWeights.from_preset("calibrated", {})}
        jobs: dict[str, Callable[[], object]] = {
            name: lambda weights=weights: self._loss(weights)  # type: ignore[misc]
            for name, weights in weighed.items()
        }
        jobs["cldice, full resolution"] = self._full_cldice
        jobs["training step without loss"] = self._step
        return jobs

    def _loss(self, weights: LossWeights) -> None:
        leaf = self.logits.detach().requires_grad_(True)
        loss.total(leaf, self.truth(), weights)[0].backward()  # type: ignore[no-untyped-call]

    def _full_cldice(self) -> None:
        leaf = self.logits.detach().requires_grad_(True)
        full_cldice(leaf[:, 0], self.truth(), self.centre).mean().backward()  # type: ignore[no-untyped-call]

    def _step(self) -> None:
        self.optimiser.zero_grad(set_to_none=True)
        with autocast(self.device):
            logits = self.network(self.images)
        logits.float().mean().backward()
        self.optimiser.step()


def full_cldice(logits: Tensor, truth: Truth, centre: Tensor) -> Tensor:
    """Return the loss's clDice at full resolution, where as thick a sheet needs twice the iterations: (batch,)."""
    probability = torch.sigmoid(logits) * truth.labelled
    thinned = soft_skeleton(probability, 2 * ITERATIONS)
    precision = (thinned * truth.surface).sum((1, 2, 3)) / thinned.sum((1, 2, 3))
    sensitivity = (centre * probability).sum((1, 2, 3)) / centre.sum((1, 2, 3))
    return 1 - 2 * precision * sensitivity / (precision + sensitivity)


def medians_s(jobs: Mapping[str, Callable[[], object]], repeats: int, device: str) -> dict[str, float]:
    """Time jobs in turns, after one round that is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(repeats + 1):
        for name, job in jobs.items():
            _finish(device)
            start = time.perf_counter()
            job()
            _finish(device)
            if turn:
                taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in taken.items()}


def _finish(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def bytes_a_voxel(job: Callable[[], object], voxels: int) -> float:
    """Count what a job's operations read and write."""
    with Traffic() as traffic:
        job()
    return float(traffic.bytes / voxels)


def cldice_agreement(side: int) -> list[tuple[str, float, float, float, float]]:
    """Compare clDice at half and at full resolution: what is predicted, both values, both cosines of gradients."""
    labels = torch.from_numpy(sheets(side, 7))[None]
    truth = Truth(labels)
    centre = soft_skeleton(truth.surface, 2 * ITERATIONS)
    rows = []
    worlds = {"little noise": (0.5, 0), "much noise": (2.0, 0), "a quarter of each sheet missing": (0.5, 8)}
    for name, (noise, gap) in worlds.items():
        leaf = guess(labels, noise, gap).requires_grad_(True)
        half = cldice(Compared(leaf[:, 0], truth), WEIGHTS).mean()
        full = full_cldice(leaf[:, 0], truth, centre).mean()
        slopes = [torch.autograd.grad(value, leaf)[0] for value in (half, full)]
        blocks = [functional.avg_pool3d(slope, 2, 2) for slope in slopes]
        rows.append((name, half.item(), full.item(), _cosine(*slopes), _cosine(*blocks)))
    return rows


def _cosine(first: Tensor, second: Tensor) -> float:
    return functional.cosine_similarity(first.flatten(), second.flatten(), dim=0).item()


def machine(device: Device) -> str:
    """Describe what this ran on."""
    if device.name.startswith("cuda"):
        chip = torch.cuda.get_device_name(device.name)
    else:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        chip = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown CPU")
    return f"{chip}, {device.threads} CPU threads, torch {torch.__version__}, network in {device.dtype}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Time the loss, term by term.")
    parser.add_argument(
        "--side", type=int, help="voxels of a patch along each axis; default: 64 on a CPU, 128 on a GPU"
    )
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device")
    parser.add_argument("--threads", type=int, help="CPU threads; default: all")
    asked = parser.parse_args()
    device = choose(asked.device)
    device = replace(device, threads=asked.threads or device.threads)
    share_threads(device)
    side = asked.side or (128 if device.name.startswith("cuda") else 64)
    bench = Bench(side, asked.batch, device)
    print(f"{machine(device)}; {asked.batch} patches of {side}³, {asked.repeats} repeats\n")
    _print_costs(bench, asked.repeats, asked.batch * side**3)
    _print_maps(bench, asked.repeats)
    print("\n| clDice of sheets, predicted with | half | full | cosine | cosine of 2³ means |\n|---|---|---|---|---|")
    for name, *numbers in cldice_agreement(min(side, 64)):
        print(f"| {name} | " + " | ".join(f"{number:.3f}" for number in numbers) + " |")


def _print_costs(bench: Bench, repeats: int, voxels: int) -> None:
    jobs = bench.jobs()
    taken = medians_s(jobs, repeats, bench.device.name)
    step_s = taken["training step without loss"]
    print("| forward and backward | ms | % of the step | bytes a voxel |\n|---|---|---|---|")
    for name, seconds in taken.items():
        traffic = bytes_a_voxel(jobs[name], voxels)
        print(f"| {name} | {1e3 * seconds:.1f} | {100 * seconds / step_s:.2f} | {traffic:.0f} |")


def _print_maps(bench: Bench, repeats: int) -> None:
    label = bench.numpy[0]
    jobs: dict[str, Callable[[], object]] = {
        kind.name: lambda kind=kind: kind.make(label)  # type: ignore[misc]
        for kind in MAPS
    }
    taken = medians_s(jobs, repeats, "cpu")
    print("\n| loader, one patch, one thread | ms |\n|---|---|")
    for name, seconds in taken.items():
        print(f"| {name} | {1e3 * seconds:.1f} |")


if __name__ == "__main__":
    main()
