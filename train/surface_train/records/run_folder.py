"""A run's folder: its settings, where it came from, a table of its epochs, pictures and weights."""

import csv
import io
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surface_kernel import disk
from surface_train.data.folds import Split
from surface_train.loss_weights import LossWeights
from surface_train.records import events
from surface_train.records.by_products import by_product
from surface_train.records.environment import environment, origin

if TYPE_CHECKING:  # it imports torch, which who only reads a folder does not need
    from surface_train.checks.validate import Predicted

LOCK = ".lock"
# What a new run writes before its first step, beside its state.
_BEGUN = ("settings.toml", "split.json", "environment.json", "plan.json")
log = logging.getLogger("surface_train")


class RunFolderError(ValueError):
    """A run's folder or log that must not be written to."""


@dataclass(frozen=True)
class RunFolder:
    """A run's folder and the names in it."""

    folder: Path

    @property
    def state(self) -> Path:
        """The training's state, for --resume."""
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
    def logits(self) -> Path:
        """The folder of the fold's logits, where they were asked for."""
        return self.folder / "logits"

    @property
    def _settings(self) -> Path:
        return self.folder / "settings.toml"

    @property
    def _table(self) -> Path:
        return self.folder / "log.csv"

    @property
    def _events(self) -> Path:
        return self.folder / "events"

    def begin(self, settings_file: Path, split: Split, *, resume: bool, init: Path | None = None) -> bool:
        """Make the folder, or check that its run can be resumed.

        A run that was killed before its first state was saved starts from scratch.

        Args:
            settings_file: copied into the folder to the byte.
            split: whose cases are listed in split.json.
            resume: whether the folder holds a run already.
            init: the weights that the run starts from.

        Returns:
            Whether there is a state to resume from.

        Raises:
            RunFolderError: when there is no run to resume, or a folder in the way of a new one.
        """
        self.refuse_others(resume=resume)
        self._remove_partials()
        if resume and self.state.is_file():
            return True
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write(self._settings.name, settings_file.read_bytes())
        sides = {"training": split.training, "validation": split.validation}
        listed = {side: [case.name for case in cases] for side, cases in sides.items()}
        self._write_json("split.json", listed | {"sha256": split.digest})
        self._write_json("environment.json", environment() | {"init": origin(init)})
        self._table.unlink(missing_ok=True)
        events.forget_after(self._events, 0)
        return False

    @contextmanager
    def held(self, *, resume: bool) -> Iterator[None]:
        """Keep the folder for this process: no other one may train in it meanwhile.

        Raises:
            RunFolderError: as `begin` does, and where another process has the folder.
        """
        self.refuse_others(resume=resume)
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = disk.lock(self.folder / LOCK)
        except BlockingIOError as error:
            raise RunFolderError(
                f"{self.folder}: expected a run that nobody else continues, got one that another process is training; "
                "wait for its end, or stop it"
            ) from error
        if lock is None:
            log.warning("%s has no locks: nothing keeps another process from training in it too", self.folder)
        with lock or nullcontext():
            yield

    def discard(self) -> None:
        """Remove a run that never trained: what `begin` wrote and its first state, and the folder if that was all."""
        for name in (*_BEGUN, self.state.name, LOCK):
            (self.folder / name).unlink(missing_ok=True)
        self._remove_partials()
        with suppress(OSError):  # not empty
            self.folder.rmdir()

    def refuse_others(self, *, resume: bool) -> None:
        """Raise RunFolderError as `begin` does; nothing is written."""
        if resume and not self._settings.is_file():
            raise RunFolderError(f"{self._settings}: no such file; expected the folder of a run to resume")
        if not resume and self.folder.exists() and not self._is_free():
            raise RunFolderError(
                f"{self.folder}: expected a new or empty folder, got one with files; use --resume to continue its run"
            )

    def _is_free(self) -> bool:
        return all(path.suffix == disk.PARTIAL or path.name == LOCK for path in self.folder.iterdir())

    def write_plan(self, entries: Mapping[str, Any]) -> None:
        """Write plan.json: what was measured, and the steps that it came to."""
        self._write_json("plan.json", entries)

    def rows(self) -> list[dict[str, str]]:
        """Return the rows of log.csv; a last line that a killed run left unfinished is not one."""
        return list(csv.DictReader(io.StringIO(self._complete_lines(), newline="")))

    def log(self, row: Mapping[str, Any]) -> None:
        """Append a row to log.csv, under a header of the columns' names.

        Raises:
            RunFolderError: when the row has other columns than those before it.
        """
        names = self._columns()
        if not names:
            self._write(self._table.name, _csv(list(row), [row]))
        elif names != list(row):
            raise RunFolderError(f"{self._table}: expected columns {', '.join(names)}, got {', '.join(row)}")
        else:
            # Appended, not replaced: a cut line is dropped by whoever reads, and the lines before it are safe.
            with disk.named(self._table), self._table.open("ab") as file:
                file.write(_csv(names, [row], header=False))

    def show(self, row: Mapping[str, Any], loss: LossWeights, picture: Path | None = None) -> None:
        """Draw curves.png from log.csv, and write the row for TensorBoard, with a PNG where there is one.

        Earlier epochs of the log whose events are missing are written too: a run that moved to another machine leaves
        its folders behind.
        """
        from surface_train.records import curves

        rows = self.rows()
        with by_product("curves.png"):
            curves.draw(rows, self.folder / "curves.png", loss)
        with by_product("events for TensorBoard"):
            if not events.can_write():
                return
            for earlier in rows[:-1]:
                if not events.written(self._events, int(earlier["epoch"])):
                    drawn = self.folder / f"epoch_{earlier['epoch']}.png"
                    events.write(self._events, earlier, drawn if drawn.is_file() else None)
            events.write(self._events, row, picture if picture and picture.is_file() else None)

    def forget_after(self, epoch: int) -> None:
        """Drop the rows of log.csv, and the events, that a killed run wrote after its last saved state."""
        events.forget_after(self._events, epoch)
        if names := self._columns():
            kept = [row for row in self.rows() if int(row["epoch"]) <= epoch]
            self._write(self._table.name, _csv(names, kept))
        else:
            self._table.unlink(missing_ok=True)

    def picture(self, predicted: "Predicted", threshold: float, name: str) -> Path:
        """Draw CT, truth and prediction of a case in three planes into `name`.png, and return its path."""
        from surface_train.records.picture import draw

        path = self.folder / f"{name}.png"
        draw(
            path,
            image=predicted.image,
            label=predicted.label,
            mask=predicted.mask(threshold),
            title=f"case {predicted.case.name}, {name}",
        )
        return path

    def _remove_partials(self) -> None:
        """Remove what killed processes were writing: each left the file under a name of its own."""
        for path in self.folder.glob(f"*{disk.PARTIAL}"):
            path.unlink(missing_ok=True)

    def _complete_lines(self) -> str:
        """Return log.csv up to its last line's end: what follows was being written when the run was killed."""
        if not self._table.exists():
            return ""
        content = self._table.read_bytes()
        return content[: content.rfind(b"\n") + 1].decode()

    def _columns(self) -> list[str]:
        return next(csv.reader(io.StringIO(self._complete_lines(), newline="")), [])

    def _write_json(self, name: str, entries: Mapping[str, Any]) -> None:
        self._write(name, (json.dumps(entries, indent=2) + "\n").encode())

    def _write(self, name: str, content: bytes) -> None:
        disk.put(self.folder / name, content)


def _csv(names: Sequence[str], rows: Iterable[Mapping[str, Any]], header: bool = True) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names)
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
