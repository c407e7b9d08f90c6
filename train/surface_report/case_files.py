"""Where the CT of a case is, and many cases at once."""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from surface_kernel.machine import cores
from surface_report.inputs import Inputs

_CASES_A_PROCESS = 8  # starting one takes as long as a few cases

Asked = TypeVar("Asked")
Made = TypeVar("Made")


def image_of(inputs: Inputs, id_: str) -> Path | None:
    """Return the CT of a case: of --images, else of the data folder; None where there is none."""
    if inputs.images is not None and inputs.images.is_file():
        return inputs.images if inputs.images.name.split(".")[0] == id_ else None
    folders = [] if inputs.images is None else [inputs.images]
    if inputs.data is not None:
        folders += [inputs.data / "test_images", inputs.data / "train_images"]
    return next((path for folder in folders if (path := folder / f"{id_}.tif").is_file()), None)


def of_each(work: Callable[[Asked], Made], asked: Sequence[Asked], name: str) -> list[Made]:
    """Return what a function makes of each item, in their order, with a bar; many are shared among processes."""
    workers = min(cores(), len(asked) // _CASES_A_PROCESS)
    if workers <= 1:
        return list(tqdm(map(work, asked), name, len(asked), disable=None))
    # spawn: a fork would copy the locks of threads that libraries have started.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        return list(tqdm(pool.map(work, asked), name, len(asked), disable=None))
