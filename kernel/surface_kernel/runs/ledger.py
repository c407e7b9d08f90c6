"""What a run has done, kept on the scratch disk: whoever starts it again goes on where it was.

    run.json              what it is a run of (digests of weights, settings, code; versions), and how networks run
    CASE.STAGE.json       on record: this unit is predicted. Written by the worker, after the files it speaks of
    CASE.STAGE.mask       its raw mask, until the submission's is made of it
    CASE.STAGE.sums       its raw float32 sums of logits, until the next stage is on record
    CASE.STAGE.tif, CASE.kept.json    the case's best mask as the submission holds it, and its digest

Every file appears under its name complete or not at all, and what no record speaks of is removed by the next start. So
there is no moment at which a run can be killed and leave something behind that is not as it seems. A record that
belongs to other inputs than today's is never used.
"""

import fcntl
import hashlib
import importlib.metadata
import json
import platform
import re
import shutil
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import surface_kernel
from surface_kernel import disk
from surface_kernel.inference.settings import to_json
from surface_kernel.runs.mounts import Bundle

FORMAT = "surface-ledger/1"
CODE = Path(surface_kernel.__file__).parent
_LIBRARIES = ("torch", "numpy", "numba", "connected-components-3d", "tifffile", "pillow")  # masks depend on these
_HASHING = 4  # images at a time: reading them may wait for a slow disk
_MOST_RECORD_BYTES = 1 << 20


class LedgerError(ValueError):
    """A ledger that cannot be used; the message says what was found and what was wanted."""


@dataclass(frozen=True)
class Record:
    """A unit that is predicted, and of what image.

    sums_crc32: of the file of its sums; None where it left none. The rest is as in `worker.Done`.
    """

    case: str
    stage: int
    image_sha256: str
    sums_crc32: int | None
    seconds: float
    variance: float
    incidents: tuple[str, ...]

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Read what `to_bytes` wrote. Raises LedgerError for anything else."""
        entries = _entries(content, cls)
        incidents = entries["incidents"]
        right = (
            isinstance(entries["case"], str)
            and _is_whole(entries["stage"])
            and _is_digest(entries["image_sha256"])
            and (entries["sums_crc32"] is None or _is_whole(entries["sums_crc32"]))
            and _is_number(entries["seconds"])
            and _is_number(entries["variance"])
            and isinstance(incidents, list)
            and all(isinstance(incident, str) for incident in incidents)
        )
        if not right:
            raise LedgerError(f"found the entries {str(entries)[:200]}, wanted those of a record")
        return cls(**{**entries, "incidents": tuple(incidents)})

    def to_bytes(self) -> bytes:
        """Write it as JSON."""
        return json.dumps(asdict(self), indent=1).encode() + b"\n"


@dataclass(frozen=True)
class Kept:
    """A case's mask in the submission: of which stage, the digest of its TIFF, the share of its foreground."""

    stage: int
    sha256: str
    foreground: float

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Read what `to_bytes` wrote. Raises LedgerError for anything else."""
        entries = _entries(content, cls)
        if not (_is_whole(entries["stage"]) and _is_digest(entries["sha256"]) and _is_number(entries["foreground"])):
            raise LedgerError(f"found the entries {str(entries)[:200]}, wanted those of a mask that is kept")
        return cls(**entries)

    def to_bytes(self) -> bytes:
        """Write it as JSON."""
        return json.dumps(asdict(self), indent=1).encode() + b"\n"


def identity(bundle: Bundle) -> dict[str, Any]:
    """Give all that masks depend on beside the images and the device: where it differs, nothing is gone on with."""
    versions = {"python": platform.python_version(), "zlib": zlib.ZLIB_RUNTIME_VERSION}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "unknown"
    return {
        "weights": [bundle.digests[path.name] for path in bundle.weights],
        "settings": hashlib.sha256(to_json(bundle.settings).encode()).hexdigest(),
        "code": digest_of_code(CODE),
        "versions": versions,
    }


def digest_of_code(package: Path) -> str:
    """Return the sha256 of all modules of a package, in sub-packages too: of their places in it and their bytes."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


class Ledger:
    """What is done of a run. Only one process at a time may have it: close it, or use it in `with`.

    how: how its networks run, once that is known; what `agree` was given. notes: what was found on opening that a
    person should know.
    """

    def __init__(self, folder: Path, of: Mapping[str, Any]) -> None:
        """Open the ledger of a folder, or begin one. of: the run's `identity`. Raises LedgerError, OSError.

        A ledger of another run is thrown away. So is everything that no record speaks of.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.notes, self._of = folder, list[str](), json.loads(json.dumps(dict(of)))
        self._lock = (folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise LedgerError(
                f"{folder}: found another run at work here, wanted none: name another --scratch"
            ) from error
        self.how: dict[str, Any] = {}
        self.records: dict[str, list[Record]] = {}
        self.kept: dict[str, tuple[Kept, bytes]] = {}
        self.begun = {
            case for case, stage, end in map(_parts, self._names()) if stage is not None and end.endswith(disk.PARTIAL)
        }
        self._read()

    def take_over(self, images: Mapping[str, Path], stages: int) -> None:
        """Look at what is on record of these images: `records` and `kept` are what can be gone on with.

        records: of every case its stages from 0 on, without a gap. kept: its best mask and the TIFF's bytes, of one of
        these stages. begun: the cases whose unit was under way when an earlier start ended.
        """
        found: dict[str, dict[int, Record]] = {}
        for name in self._names() if self.how else ():  # or nobody knows how what is on record was made
            case, stage, end = _parts(name)
            if end == "json" and stage is not None and case in images and stage < stages:
                record = self._record(name)
                if record and (record.case, record.stage) == (case, stage):
                    found.setdefault(case, {})[stage] = record
        with ThreadPoolExecutor(_HASHING) as pool:
            digests = dict(zip(found, pool.map(lambda case: digest_of(images[case]), found), strict=True))
        for case, by_stage in found.items():
            if changed := [record for record in by_stage.values() if record.image_sha256 != digests[case]]:
                self.notes.append(
                    f"{case}: found another image than stage {changed[0].stage} was predicted from: it is begun anew"
                )
                continue
            whole = [by_stage[stage] for stage in range(max(by_stage) + 1) if stage in by_stage]
            if len(whole) == max(by_stage) + 1:
                self._adopt(case, whole)
        self._clear()

    def _adopt(self, case: str, records: list[Record]) -> None:
        """Take a case's records up to the last one whose mask is there, as it was left or as the submission has it."""
        kept = self._kept(case)
        while records:
            stage = records[-1].stage
            if (kept and kept[0].stage == stage) or self._file(case, stage, "mask").is_file():
                self.records[case] = records
                if kept and kept[0].stage <= stage:
                    self.kept[case] = kept
                return
            records = records[:-1]

    @property
    def unfinished(self) -> list[Record]:
        """Give the records whose raw mask has not become the submission's."""
        return [
            records[-1]
            for case, records in self.records.items()
            if case not in self.kept or self.kept[case][0].stage < records[-1].stage
        ]

    def agree(self, how: Mapping[str, Any]) -> None:
        """Put on record how the networks run. Raises OSError."""
        self.how = dict(how)
        self._write_run()

    def files(self, case: str, stage: int) -> tuple[Path, Path, Path]:
        """Give where a unit's raw mask, its sums and its record lie."""
        return self._file(case, stage, "mask"), self._file(case, stage, "sums"), self._file(case, stage, "json")

    def keep(self, case: str, kept: Kept, tiff: bytes) -> None:
        """Keep a case's mask, in place of an earlier stage's. Raises OSError; then the earlier one is kept."""
        disk.put(self._file(case, kept.stage, "tif"), tiff)
        disk.put(self.folder / f"{case}.kept.json", kept.to_bytes())
        self._file(case, kept.stage, "mask").unlink(missing_ok=True)
        if kept.stage > 0:
            self.forget(case, kept.stage - 1, "tif")

    def forget(self, case: str, last: int, kind: str) -> None:
        """Remove the files of a kind ("sums", "mask", "tif") of a case's stages up to the last."""
        for stage in range(last + 1):
            self._file(case, stage, kind).unlink(missing_ok=True)

    def sums_bytes(self) -> int:
        """Give what the sums on disk take."""
        return sum(path.stat().st_size for path in self.folder.glob("*.sums"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let another process have it."""
        self._lock.close()

    def remove(self) -> None:
        """Remove it, when there is nothing left to go on with."""
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- reading what an earlier start left -----------------------------------------------------------------------

    def _read(self) -> None:
        """Read run.json; throw everything away where it is of another run."""
        path = self.folder / "run.json"
        try:
            entries = json.loads(_content(path)) if path.exists() else None
        except (OSError, ValueError, RecursionError):
            entries = {}
        if not isinstance(entries, dict) or entries.get("format") != FORMAT or entries.get("of") != self._of:
            if isinstance(entries, dict):
                self.notes.append(f"{self.folder}: {self._difference(entries.get('of'))}: begun anew, nothing is mixed")
            self._throw_away()
            self._write_run()
            return
        match entries:
            case {"how": {"device": {"name": str()}}}:
                self.how = dict(entries["how"])

    def _difference(self, found: Any) -> str:
        if not isinstance(found, dict):
            return "found a ledger that cannot be read"
        differing = [name for name in self._of if found.get(name) != self._of[name]]
        return f"found a run with other {' and '.join(differing) or 'entries'}"

    def _write_run(self) -> None:
        entries = {"format": FORMAT, "of": self._of, "how": self.how}
        disk.put(self.folder / "run.json", json.dumps(entries, indent=1).encode() + b"\n")

    def _throw_away(self) -> None:
        self.begun.clear()
        for name in self._names():
            (self.folder / name).unlink(missing_ok=True)

    def _clear(self) -> None:
        """Remove what no record that is used speaks of."""
        wanted = {"run.json"}
        for case, records in self.records.items():
            wanted |= {self._file(case, record.stage, "json").name for record in records}
            wanted |= {self._file(case, records[-1].stage, kind).name for kind in ("sums", "mask")}
            if case in self.kept:
                wanted |= {f"{case}.kept.json", self._file(case, self.kept[case][0].stage, "tif").name}
        for name in set(self._names()) - wanted:
            (self.folder / name).unlink(missing_ok=True)

    def _record(self, name: str) -> Record | None:
        try:
            return Record.from_bytes(_content(self.folder / name))
        except (OSError, LedgerError) as error:
            self.notes.append(f"{name}: {error}: not used")
            return None

    def _kept(self, case: str) -> tuple[Kept, bytes] | None:
        path = self.folder / f"{case}.kept.json"
        try:
            kept = Kept.from_bytes(_content(path)) if path.exists() else None
            if kept is None:
                return None
            tiff = self._file(case, kept.stage, "tif").read_bytes()
        except (OSError, LedgerError) as error:
            self.notes.append(f"{path.name}: {error}: not used")
            return None
        if hashlib.sha256(tiff).hexdigest() != kept.sha256:
            self.notes.append(f"{path.name}: found other bytes in its mask than were kept: not used")
            return None
        return kept, tiff

    def _names(self) -> Sequence[str]:
        return sorted(path.name for path in self.folder.iterdir() if path.is_file() and path.name != "lock")

    def _file(self, case: str, stage: int, kind: str) -> Path:
        return self.folder / f"{case}.{stage}.{kind}"


def digest_of(path: Path) -> str:
    """Give the sha256 of a file; of one that cannot be read, that of nothing."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return hashlib.sha256().hexdigest()


def _parts(name: str) -> tuple[str, int | None, str]:
    """Cut a file's name into case, stage and the rest; no stage where there is none."""
    found = re.fullmatch(r"([^.]+)\.(\d{1,9})\.(.+)", name)
    return (found[1], int(found[2]), found[3]) if found else (name, None, name.partition(".")[2])


def _content(path: Path) -> bytes:
    size = path.stat().st_size
    if size > _MOST_RECORD_BYTES:
        raise LedgerError(f"found {size} bytes, wanted {_MOST_RECORD_BYTES} at most")
    return path.read_bytes()


def _entries(content: bytes, kind: type[Record] | type[Kept]) -> dict[str, Any]:
    try:
        entries = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise LedgerError(f"found no readable JSON ({error}), wanted a {kind.__name__.lower()}") from error
    wanted = {field.name for field in fields(kind)}
    if not isinstance(entries, dict) or set(entries) != wanted:
        raise LedgerError(f"found {str(entries)[:200]}, wanted the entries {', '.join(sorted(wanted))}")
    return entries


def _is_whole(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 32


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value < 1e12  # type: ignore[operator]  # and no NaN


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) is not None
