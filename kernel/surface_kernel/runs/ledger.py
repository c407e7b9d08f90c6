"""What a run has done, kept on the scratch disk: started again, it resumes there.

    run.json              what it is a run of (digests of weights, settings, code; versions), and how networks run
    CASE.STAGE.json       record: this unit is done. Written by the worker, after the files that it speaks of
    CASE.STAGE.mask       its raw mask, until the submission's is made of it
    CASE.STAGE.sums       its raw float32 sums of logits, until the next stage has a record
    CASE.STAGE.tif, CASE.kept.json    the case's best mask as the submission holds it, and its digest

Every file appears under its name complete or not at all, and what no record speaks of is removed by the next start. So
a run can be killed at any moment and leaves nothing that is not what it seems. A record of other inputs than today's is
never used.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Self

from surface_kernel import disk
from surface_kernel.runs.records import KeptMask, RecordError, RunConditions, UnitRecord, file_digest

FORMAT = "surface-ledger/1"
_HASHING = 4  # images at a time: reading them may wait for a slow disk
_MOST_RECORD_BYTES = 1 << 20


class LedgerError(ValueError):
    """A ledger that cannot be used."""


class UnitFiles(NamedTuple):
    """Where the files of a unit lie."""

    mask: Path
    sums: Path
    scanned: Path
    record: Path


class Ledger:
    """What is done of a run. Only one process at a time may have it: close it, or use it in `with`.

    conditions: how its networks run, once that is known. notes: what a person should know of what was on the disk.
    interrupted: cases whose unit was under way when an earlier start ended. The rest is known after
    `load_records`. records: of every case its stages from 0 on, without a gap. kept: a case's best mask and its TIFF's
    bytes, of one of these stages.
    """

    def __init__(self, folder: Path, of: Mapping[str, Any]) -> None:
        """Open the ledger of a folder, or begin one; that of another run is thrown away.

        Args:
            folder: is made where it does not exist.
            of: the run's `identity`.

        Raises:
            LedgerError: where another process has it.
            OSError: where the disk fails.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._of = folder, json.loads(json.dumps(dict(of)))
        self.notes: list[str] = []
        try:
            self._lock = disk.lock(folder / "lock")
        except BlockingIOError as error:
            raise LedgerError(f"{folder}: in use by another run; stop that one, or name another --scratch") from error
        if self._lock is None:
            self.notes.append(f"{folder} has no locks: nothing keeps another run from using it too")
        self.conditions: RunConditions | None = None
        self.records: dict[str, list[UnitRecord]] = {}
        self.kept: dict[str, tuple[KeptMask, bytes]] = {}
        self.interrupted = {
            case for case, stage, end in map(_parts, self._names()) if stage is not None and end.endswith(disk.PARTIAL)
        }
        self._read_run()

    def load_records(self, images: Mapping[str, Path], stages: int) -> None:
        """Read what earlier starts have done of these images in as many stages, and remove what cannot be used."""
        by_case: dict[str, dict[int, UnitRecord]] = {}
        for name in self._names() if self.conditions else ():  # or nobody knows how what is here was made
            case, stage, end = _parts(name)
            if end == "json" and stage is not None and case in images and stage < stages:
                record = self._read_record(name)
                if record and (record.case, record.stage) == (case, stage):
                    by_case.setdefault(case, {})[stage] = record
        with ThreadPoolExecutor(_HASHING) as pool:
            digests = dict(zip(by_case, pool.map(lambda case: file_digest(images[case]), by_case), strict=True))
        for case, by_stage in by_case.items():
            if changed := [record for record in by_stage.values() if record.image_sha256 != digests[case]]:
                self.notes.append(f"{case}: image changed since stage {changed[0].stage} was predicted; starting over")
                continue
            records = [by_stage[stage] for stage in range(max(by_stage) + 1) if stage in by_stage]
            if len(records) == max(by_stage) + 1:
                self._adopt(case, records)
        self._remove_unused()

    def _adopt(self, case: str, records: list[UnitRecord]) -> None:
        """Use a case's records up to the last one whose mask is there, raw or as the submission has it."""
        kept = self._read_kept(case)
        while records:
            stage = records[-1].stage
            if (kept and kept[0].stage == stage) or self.files(case, stage).mask.is_file():
                self.records[case] = records
                if kept and kept[0].stage <= stage:
                    self.kept[case] = kept
                return
            records = records[:-1]

    @property
    def unfinished(self) -> list[UnitRecord]:
        """Return the records whose raw mask has not become the submission's."""
        return [
            records[-1]
            for case, records in self.records.items()
            if case not in self.kept or self.kept[case][0].stage < records[-1].stage
        ]

    def set_conditions(self, conditions: RunConditions) -> None:
        """Keep how the networks run. Raises OSError."""
        self.conditions = conditions
        self._write_run()

    def files(self, case: str, stage: int) -> UnitFiles:
        """Return where a unit's files lie."""
        return UnitFiles(
            mask=self._file(case, stage, "mask"),
            sums=self._file(case, stage, "sums"),
            scanned=self._file(case, stage, "scanned"),
            record=self._file(case, stage, "json"),
        )

    def keep(self, case: str, kept: KeptMask, tiff: bytes) -> None:
        """Keep a case's mask, in place of an earlier stage's. Raises OSError; then the earlier one is kept."""
        disk.put(self._file(case, kept.stage, "tif"), tiff)
        disk.put(self.folder / f"{case}.kept.json", kept.to_bytes())
        files = self.files(case, kept.stage)
        for path in (files.mask, files.scanned):  # in this order: a raw mask that waits to be finished has its bits
            path.unlink(missing_ok=True)
        if kept.stage > 0:
            self.forget(case, kept.stage - 1, "tif")

    def forget(self, case: str, last: int, kind: str) -> None:
        """Remove the files of a kind ("sums", "mask", "scanned", "tif") of a case's stages up to the last."""
        for stage in range(last + 1):
            self._file(case, stage, kind).unlink(missing_ok=True)

    def sums_bytes(self) -> int:
        """Return what the sums on disk take."""
        return sum(path.stat().st_size for path in self.folder.glob("*.sums"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let another process have it."""
        if self._lock is not None:
            self._lock.close()

    def remove(self) -> None:
        """Remove it, when there is nothing left to resume."""
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- reading what an earlier start left -----------------------------------------------------------------------

    def _read_run(self) -> None:
        """Read run.json; throw everything away where it is of another run."""
        path = self.folder / "run.json"
        try:
            entries = json.loads(_content(path)) if path.exists() else None
        except (OSError, ValueError, RecursionError):
            entries = {}
        if not isinstance(entries, dict) or entries.get("format") != FORMAT or entries.get("of") != self._of:
            if isinstance(entries, dict):
                self.notes.append(f"{self.folder}: {self._difference(entries.get('of'))}; starting from scratch")
            self._reset()
            self._write_run()
        elif entries.get("how"):
            try:
                self.conditions = RunConditions.from_mapping(entries["how"])
            except RecordError as error:
                self.notes.append(f"{path.name}: {error}; starting from scratch")

    def _difference(self, other: Any) -> str:
        if not isinstance(other, dict):
            return "ledger is not readable"
        differing = [name for name in self._of if other.get(name) != self._of[name]]
        return f"ledger belongs to a run with different {' and '.join(differing) or 'entries'}"

    def _write_run(self) -> None:
        how = self.conditions.to_mapping() if self.conditions else {}
        entries = {"format": FORMAT, "of": self._of, "how": how}
        disk.put(self.folder / "run.json", json.dumps(entries, indent=1).encode() + b"\n")

    def _reset(self) -> None:
        self.interrupted.clear()
        for name in self._names():
            (self.folder / name).unlink(missing_ok=True)

    def _remove_unused(self) -> None:
        """Remove what no record that is used speaks of."""
        used = {"run.json"}
        for case, records in self.records.items():
            used |= {self.files(case, record.stage).record.name for record in records}
            last = self.files(case, records[-1].stage)
            used |= {last.mask.name, last.sums.name, last.scanned.name}
            if case in self.kept:
                used |= {f"{case}.kept.json", self._file(case, self.kept[case][0].stage, "tif").name}
        for name in set(self._names()) - used:
            (self.folder / name).unlink(missing_ok=True)

    def _read_record(self, name: str) -> UnitRecord | None:
        try:
            return UnitRecord.from_bytes(_content(self.folder / name))
        except (OSError, RecordError) as error:
            self.notes.append(f"{name}: {error}; ignored")
            return None

    def _read_kept(self, case: str) -> tuple[KeptMask, bytes] | None:
        path = self.folder / f"{case}.kept.json"
        try:
            kept = KeptMask.from_bytes(_content(path)) if path.exists() else None
            if kept is None:
                return None
            tiff = self._file(case, kept.stage, "tif").read_bytes()
        except (OSError, RecordError) as error:
            self.notes.append(f"{path.name}: {error}; ignored")
            return None
        if (digest := hashlib.sha256(tiff).hexdigest()) != kept.sha256:
            self.notes.append(f"{path.name}: expected a mask of sha256 {kept.sha256}, got {digest}; ignored")
            return None
        return kept, tiff

    def _names(self) -> Sequence[str]:
        return sorted(path.name for path in self.folder.iterdir() if path.is_file() and path.name != "lock")

    def _file(self, case: str, stage: int, kind: str) -> Path:
        return self.folder / f"{case}.{stage}.{kind}"


def _parts(name: str) -> tuple[str, int | None, str]:
    """Cut a file's name into case, stage and the rest; no stage where there is none."""
    match = re.fullmatch(r"([^.]+)\.(\d{1,9})\.(.+)", name)
    return (match[1], int(match[2]), match[3]) if match else (name, None, name.partition(".")[2])


def _content(path: Path) -> bytes:
    size = path.stat().st_size
    if size > _MOST_RECORD_BYTES:
        raise RecordError(f"expected at most {_MOST_RECORD_BYTES} bytes, got {size}")
    return path.read_bytes()
