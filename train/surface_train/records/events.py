"""A run's epochs as TensorBoard reads them: one file of events per epoch, complete or absent.

The library names its files after the machine and appends to them for hours. Here each epoch's file is written aside,
then put in place under a name of its own, so that a killed run leaves no half event and a resumed one no duplicate.
"""

import logging
import warnings
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from surface_kernel import disk

_PREFIX = "events.out.tfevents."  # TensorBoard takes any file with "tfevents" in its name, in the names' order
_WHOLE_RUN = ("learning_rate", "seconds")
log = logging.getLogger("surface_train")


@cache
def can_write() -> bool:
    """Whether TensorBoard's library is installed; where it is not, the log says so, once."""
    installed = find_spec("tensorboard") is not None
    if not installed:
        log.info("TensorBoard is not installed: no events are written; a resumed run makes up for them from log.csv")
    return installed


def written(folder: Path, epoch: int) -> bool:
    """Whether an epoch's events are in the folder."""
    return _file(folder, epoch).is_file()


def write(folder: Path, row: Mapping[str, Any], picture: Path | None = None) -> None:
    """Write a row of the log, and a PNG where there is one, as the events of epoch `row["epoch"]`.

    Entries that are not numbers, such as those of an epoch without validation, are left out. What was written for
    this epoch before is replaced.
    """
    epoch = int(row["epoch"])
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as aside, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the library's own making, and not a reason to stop a training
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(aside) as writer:
            for name, value in scalars(row).items():
                writer.add_scalar(name, value, epoch)
            if picture is not None:
                writer.add_image("val/picture", _pixels(picture), epoch, dataformats="HWC")
        (made,) = Path(aside).iterdir()
        disk.put(_file(folder, epoch), made.read_bytes())


def forget_after(folder: Path, epoch: int) -> None:
    """Remove the events of epochs after `epoch`; a missing folder has none."""
    for path in folder.glob(f"{_PREFIX}*"):
        number = path.name.removeprefix(_PREFIX)
        half_written = path.suffix == disk.PARTIAL  # by a process that was killed; TensorBoard would read it
        if half_written or (number.isdecimal() and int(number) > epoch):
            path.unlink()


def scalars(row: Mapping[str, Any]) -> dict[str, float]:
    """Return a row's numbers under TensorBoard's names: train/…, val/…, and those of the whole run without a group."""
    return {
        _tag(name): value for name, entry in row.items() if name != "epoch" and (value := _number(entry)) is not None
    }


def _file(folder: Path, epoch: int) -> Path:
    return folder / f"{_PREFIX}{epoch:06}"


def _tag(name: str) -> str:
    if name in _WHOLE_RUN:
        return name
    return "val/" + name.removeprefix("val_") if name.startswith("val_") else "train/" + name


def _number(entry: Any) -> float | None:
    try:
        return float(entry)
    except (TypeError, ValueError):
        return None


def _pixels(picture: Path) -> Any:
    import numpy as np
    from PIL import Image

    with Image.open(picture) as opened:
        return np.asarray(opened.convert("RGB"))
