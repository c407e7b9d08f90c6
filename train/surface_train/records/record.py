"""What a run leaves behind: its settings, where it came from, a table of its epochs, pictures and weights."""

import csv
import hashlib
import io
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from surface_kernel import disk
from surface_train.checks.validate import Predicted
from surface_train.data.folds import Split
from surface_train.loss_weights import LossWeights
from surface_train.records import events

_LIBRARIES = (
    *("torch", "numpy", "numba", "segmentation-models-pytorch-3d", "dynamic-network-architectures"),
    *("safetensors", "tifffile", "pillow"),
)


class RecordError(ValueError):
    """A run's folder or log that must not be written to."""


@dataclass(frozen=True)
class Record:
    """A run's folder and the names in it."""

    folder: Path

    @property
    def state(self) -> Path:
        """Where the training's state lies, for --resume."""
        return self.folder / "state.safetensors"

    @property
    def best(self) -> Path:
        """The single best weights by validation."""
        return self.folder / "best.safetensors"

    @property
    def last(self) -> Path:
        """The weights of the last epoch."""
        return self.folder / "last.safetensors"

    @property
    def averaged(self) -> Path:
        """The averaged weights."""
        return self.folder / "swa.safetensors"

    @property
    def weights(self) -> Path:
        """The weights to ship."""
        return self.folder / "weights.safetensors"

    @property
    def _table(self) -> Path:
        return self.folder / "log.csv"

    @property
    def _events(self) -> Path:
        return self.folder / "events"

    def begin(self, settings_file: Path, split: Split, resume: bool, init: Path | None = None) -> bool:
        """Make the folder, or check that it can be continued; say whether there is a state to go on from.

        init: the weights that the run starts from. A run that was killed before its first state was saved begins anew.
        Raises RecordError.
        """
        own = self.folder / "settings.toml"
        if resume and not own.is_file():
            raise RecordError(f"{self.folder}: found no {own.name}, wanted a run to resume")
        if resume and self.state.is_file():
            return True
        if not resume and self.folder.exists() and any(path.suffix != disk.PARTIAL for path in self.folder.iterdir()):
            raise RecordError(
                f"{self.folder}: found a folder with files, wanted a new one, or --resume to go on with it"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write(own.name, settings_file.read_bytes())
        sides = {"training": split.training, "validation": split.validation}
        listed = {side: [case.name for case in cases] for side, cases in sides.items()}
        self._json("split.json", listed | {"sha256": split.digest})
        self._json("environment.json", environment() | {"init": origin(init)})
        self._table.unlink(missing_ok=True)
        events.forget_after(self._events, 0)
        return False

    def rows(self) -> list[dict[str, str]]:
        """Give the lines of log.csv, a dictionary each; a last line that a killed run left unfinished is none."""
        return list(csv.DictReader(io.StringIO(self._whole_lines(), newline="")))

    def log(self, row: Mapping[str, Any]) -> None:
        """Add a line to log.csv, which begins with the columns' names.

        Raises RecordError when the row has other columns than the lines before it.
        """
        names = self._columns()
        if not names:
            self._write(self._table.name, _csv(list(row), [row]))
        elif names != list(row):
            raise RecordError(f"{self._table}: found columns {', '.join(names)}, wanted {', '.join(row)}")
        else:
            with self._table.open("ab") as file:
                file.write(_csv(names, [row], header=False))

    def show(self, row: Mapping[str, Any], loss: LossWeights, picture: Path | None = None) -> None:
        """Draw curves.png from log.csv, and write the row, with a PNG where there is one, for TensorBoard.

        So are the log's earlier epochs whose events are not there: a run that travelled leaves them behind.
        """
        from surface_train.records import curves

        rows = self.rows()
        curves.draw(rows, self.folder / "curves.png", loss)
        if not events.can_write():
            return
        for earlier in rows[:-1]:
            if not events.written(self._events, int(earlier["epoch"])):
                drawn = self.folder / f"epoch_{earlier['epoch']}.png"
                events.write(self._events, earlier, drawn if drawn.is_file() else None)
        events.write(self._events, row, picture)

    def forget_after(self, epoch: int) -> None:
        """Drop the lines of log.csv, and the events, that a killed run wrote after its last saved state."""
        events.forget_after(self._events, epoch)
        if names := self._columns():
            kept = [row for row in self.rows() if int(row["epoch"]) <= epoch]
            self._write(self._table.name, _csv(names, kept))
        else:
            self._table.unlink(missing_ok=True)

    def picture(self, predicted: Predicted, threshold: float, name: str) -> Path:
        """Draw CT, truth and prediction of a case in three planes; give the PNG."""
        from surface_train.records.picture import draw

        path, mask = self.folder / f"{name}.png", predicted.mask(threshold)
        draw(path, predicted.image, predicted.label, mask, f"case {predicted.case.name}, {name}")
        return path

    def _whole_lines(self) -> str:
        """Give log.csv up to its last line's end: what follows was being written when the run was killed."""
        if not self._table.exists():
            return ""
        content = self._table.read_bytes()
        return content[: content.rfind(b"\n") + 1].decode()

    def _columns(self) -> list[str]:
        return next(csv.reader(io.StringIO(self._whole_lines(), newline="")), [])

    def _json(self, name: str, entries: Mapping[str, Any]) -> None:
        self._write(name, (json.dumps(entries, indent=2) + "\n").encode())

    def _write(self, name: str, content: bytes) -> None:
        """Write a file so that it appears complete under its name or not at all."""
        disk.put(self.folder / name, content)


def _csv(names: Sequence[str], rows: Iterable[Mapping[str, Any]], header: bool = True) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names)
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def environment() -> dict[str, Any]:
    """Describe what the run depends on beside its settings: sources, libraries, and the kind of machine.

    Names of hosts, users and folders are left out: the file is meant to be passed on.
    """
    return {
        "commit": commit(),
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
        "cuda": torch.version.cuda,
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "machine": platform.machine(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "torch_threads": torch.get_num_threads(),
    }


def origin(weights: Path | None) -> dict[str, str] | None:
    """Say which weights a run starts from, by name and sha256; None when it starts from none."""
    if weights is None:
        return None
    with weights.open("rb") as file:
        return {"name": weights.name, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def commit() -> str | None:
    """Give the commit of this source tree, marked when files were changed since; None outside a git checkout.

    Where the code was installed from wheels, whoever made them may say their commit in SURFACE_COMMIT.
    """
    if told := os.environ.get("SURFACE_COMMIT"):
        return told
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude", "*"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu() -> str | None:
    """Give the processor's name, where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)
