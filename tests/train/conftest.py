"""Worlds to learn from that are small enough to look at: a bright sheet, its face labelled, its margin not."""

import csv
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from surface_kernel.volumes.image_files import write_lzw
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


@dataclass(frozen=True)
class World:
    """A data folder as the competition lays it out, a settings file, and requests for a run."""

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
    """Return a function that writes an image and its label under a folder."""

    def write(data: Path, name: str, scroll: str, image: Grey, label: Grey) -> Case:
        for kind, content in (("train_images", image), ("train_labels", label)):
            (data / kind).mkdir(parents=True, exist_ok=True)
            write_lzw(data / kind / f"{name}.tif", content)
        files = {part: data / f"train_{part}s" / f"{name}.tif" for part in ("image", "label")}
        return Case(name=name, scroll=scroll, **files)

    return write


@pytest.fixture(scope="session")
def write_table() -> Callable[[Path, Sequence[tuple[str, str]]], None]:
    """Return a function that writes train.csv."""

    def write(data: Path, rows: Sequence[tuple[str, str]]) -> None:
        data.mkdir(parents=True, exist_ok=True)
        with (data / "train.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("id", "scroll_id"), *rows])

    return write


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, write_case: Callable, write_table: Callable) -> World:
    """Four cases of two scrolls, and a row without files. Read-only."""
    folder = tmp_path_factory.mktemp("world")
    scrolls = {"11": "100", "12": "100", "21": "200", "22": "200"}
    for seed, (name, scroll) in enumerate(scrolls.items()):
        write_case(folder / "data", name, scroll, *sheet(seed))
    write_table(folder / "data", [*scrolls.items(), ("99", "200")])
    (folder / "tiny.toml").write_text(TINY)
    return World(folder / "data", folder / "tiny.toml")


@pytest.fixture(scope="session")
def make_sheet() -> Callable[..., tuple[Grey, Grey]]:
    """Return `sheet`."""
    return sheet


@pytest.fixture
def real_network() -> None:
    """Ask for the library's network where small ones are the rule."""


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what checks of cases find out of the user's cache."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Undo what a command line does to the root logger."""
    root, train = logging.getLogger(), logging.getLogger("surface_train")
    handlers, levels = list(root.handlers), (root.level, train.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    train.setLevel(levels[1])
