"""Worlds to learn from that are small enough to look at: a bright sheet, its face labelled, its margin not."""

import csv
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from surface_kernel.networks import network
from surface_kernel.volumes.volume import write_lzw
from surface_train import settings
from surface_train.data.cases import Case
from surface_train.loop.fit import Request

Grey = npt.NDArray[np.uint8]
SHAPE = (32, 40, 36)

TINY = """
epochs = 4
steps_per_epoch = 2
fold_count = 2
overlap = 0.25

[network]
decoder = "Linknet"
encoder = "efficientnet-b0"

[patches]
shape_zyx = [32, 32, 32]
batch = 2
workers = 2

[optimiser]
learning_rate = 2e-3
warmup_steps = 2

[average]
start_epoch = 3
batchnorm_steps = 2

[validation]
every_epochs = 2
cases = 1
"""


def sheet(seed: int, shape_zyx: tuple[int, int, int] = SHAPE) -> tuple[Grey, Grey]:
    """Make a CT with one bright sheet across z, and its label: 1 on three voxels of the sheet, 2 in a 3-voxel shell."""
    rng = np.random.default_rng(seed)
    image = rng.normal(90, 12, shape_zyx)
    middle = shape_zyx[0] // 2 + seed % 3
    image[middle : middle + 5] += 60
    label = np.full(shape_zyx, 2, np.uint8)
    label[3:-3, 3:-3, 3:-3] = 0
    label[middle : middle + 3][label[middle : middle + 3] == 0] = 1
    return image.clip(1, 255).astype(np.uint8), label


class SmallNetwork(nn.Module):
    """Two layers in place of a library's network: BatchNorm, and a part that draws while it trains."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv3d(1, channels, 3, padding=1), nn.BatchNorm3d(channels)
        self.last = nn.Conv3d(channels, 1, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        found = torch.relu(self.norm(self.first(images)))
        kept = torch.rand(len(images), 1, 1, 1, 1) < 0.8 if self.training else True
        result: Tensor = self.last(found * kept)
        return result


def small_library() -> SimpleNamespace:
    """Stand in for segmentation-models-pytorch-3d, whose smallest network takes a second a step."""
    return SimpleNamespace(create_model=lambda name, **_: SmallNetwork(4 if name == "linknet" else 5))


@dataclass(frozen=True)
class World:
    """A data folder as the competition lays it out, a settings file, and a way to ask for a run."""

    data: Path
    settings_file: Path

    def request(self, out: Path, **changes: object) -> Request:
        chosen = settings.read(self.settings_file)
        asked = Request(
            settings_file=self.settings_file, settings=chosen, data=self.data, fold="0", out=out, device="cpu"
        )
        return replace(asked, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def write_case() -> Callable[..., Case]:
    """Give a function that writes an image and its label under a folder."""

    def write(data: Path, name: str, scroll: str, image: Grey, label: Grey) -> Case:
        for kind, content in (("train_images", image), ("train_labels", label)):
            (data / kind).mkdir(parents=True, exist_ok=True)
            write_lzw(data / kind / f"{name}.tif", content)
        return Case(name, scroll, data / "train_images" / f"{name}.tif", data / "train_labels" / f"{name}.tif")

    return write


@pytest.fixture(scope="session")
def write_table() -> Callable[[Path, Sequence[tuple[str, str]]], None]:
    """Give a function that writes train.csv."""

    def write(data: Path, rows: Sequence[tuple[str, str]]) -> None:
        data.mkdir(parents=True, exist_ok=True)
        with (data / "train.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("id", "scroll_id"), *rows])

    return write


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, write_case: Callable, write_table: Callable) -> World:
    """Four cases of two scrolls, and a row without files. Nobody writes into it."""
    folder = tmp_path_factory.mktemp("world")
    scrolls = {"11": "100", "12": "100", "21": "200", "22": "200"}
    for seed, (name, scroll) in enumerate(scrolls.items()):
        write_case(folder / "data", name, scroll, *sheet(seed))
    write_table(folder / "data", [*scrolls.items(), ("99", "200")])
    (folder / "tiny.toml").write_text(TINY)
    return World(folder / "data", folder / "tiny.toml")


@pytest.fixture(scope="session")
def make_sheet() -> Callable[..., tuple[Grey, Grey]]:
    """Give `sheet`."""
    return sheet


@pytest.fixture
def real_network() -> None:
    """Ask for the library's network where small ones are the rule."""


@pytest.fixture(scope="session")
def with_small_networks() -> Callable[[pytest.MonkeyPatch], None]:
    """Give a function that puts `SmallNetwork` into the kernel."""
    return lambda patched: patched.setattr(network, "_library", small_library)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Compute with one thread: on arrays this small, several only wait for one another on a busy machine."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "sched_getaffinity", lambda pid: {0})
        patched.setattr(os, "process_cpu_count", lambda: 1, raising=False)
        torch.set_num_threads(1)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Undo what a command line does to the root logger."""
    root, train = logging.getLogger(), logging.getLogger("surface_train")
    handlers, levels = list(root.handlers), (root.level, train.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    train.setLevel(levels[1])
