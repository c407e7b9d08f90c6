"""What a ledger's files say: which run it is, how its networks run, which units are done, which masks are kept."""

import hashlib
import importlib.metadata
import json
import platform
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

import surface_kernel
from surface_kernel.inference.settings import to_json
from surface_kernel.inference.tiles import Shape
from surface_kernel.message import shown
from surface_kernel.networks.device import Device, DeviceError
from surface_kernel.runs.messages import Done, Ready, sides
from surface_kernel.runs.mounts import Bundle

CODE = Path(surface_kernel.__file__).parent
_LIBRARIES = ("torch", "numpy", "numba", "connected-components-3d", "tifffile", "pillow")  # masks depend on these


class RecordError(ValueError):
    """Bytes that are not the record they should be; the message says what was expected."""


@dataclass(frozen=True, kw_only=True)
class RunConditions:
    """How the networks of a run compute: a later start, or another run, can do the same. In reports it is `how`."""

    device: Device
    trials: tuple[str, ...] = ()
    """Results of the start-up test, one line each."""
    tiles: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """The tile (z, y, x) for every shape of volumes, written z×y×x."""

    @classmethod
    def of(cls, ready: Ready, shapes_zyx: Iterable[Shape]) -> Self:
        """Return the conditions of networks that are ready, and their tiles for volumes of these shapes."""
        tiles = {sides(shape_zyx): ready.grid(shape_zyx).tile_zyx for shape_zyx in shapes_zyx}
        return cls(device=ready.device, trials=ready.trials, tiles=tiles)

    @classmethod
    def from_mapping(cls, entries: object) -> Self:
        """Read what `to_mapping` returned, out of a ledger or a run report. Raises RecordError."""
        if not isinstance(entries, dict):
            raise RecordError(f"expected an entry 'device', got {shown(entries)}")
        trials, tiles = entries.get("trials", []), entries.get("tiles", {})
        if not isinstance(trials, list) or not isinstance(tiles, dict) or not all(map(_is_shape, tiles.values())):
            raise RecordError(f"expected lists of trials and a table of tiles, got {shown(entries)}")
        return cls(
            device=_device(entries.get("device")),
            trials=tuple(map(str, trials)),
            tiles={str(name): tuple(tile) for name, tile in tiles.items()},
        )

    @classmethod
    def from_report(cls, path: Path) -> Self:
        """Read those of an earlier run out of its run_report.json. Raises RecordError."""
        try:
            return cls.from_mapping(json.loads(path.read_text(encoding="utf-8-sig"))["how"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise RecordError(f"{path}: expected a run_report.json that names a device, got {error!r}") from error

    def to_mapping(self) -> dict[str, Any]:
        """Return the entries that `from_mapping` reads."""
        tiles = {name: list(tile) for name, tile in self.tiles.items()}
        return {"device": self.device.to_mapping(), "trials": list(self.trials), "tiles": tiles}


def _device(entries: object) -> Device:
    """Read a device whose every entry is there, of its type."""
    if not isinstance(entries, dict) or any(type(entries.get(each.name)) is not each.type for each in fields(Device)):
        raise RecordError(f"device: expected all of its entries, got {shown(entries)}")
    try:
        return Device.from_mapping(entries)
    except DeviceError as error:
        raise RecordError(str(error)) from error


@dataclass(frozen=True, kw_only=True)
class UnitRecord:
    """A unit that is done, and of which image."""

    case: str
    stage: int
    image_sha256: str
    sums_crc32: int | None
    """Of the file of its sums; None where it left none."""
    seconds: float
    """That its networks took."""
    variance: float
    """Of the probabilities."""
    incidents: tuple[str, ...]
    """What went wrong and was mended."""

    @classmethod
    def of(cls, done: Done) -> Self:
        """Return the record of a unit of one stage."""
        return cls(
            case=done.unit.case,
            stage=done.unit.stage,
            image_sha256=done.image_sha256,
            sums_crc32=done.sums_crc32,
            seconds=done.seconds,
            variance=done.variance,
            incidents=done.incidents,
        )

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Read what `to_bytes` wrote. Raises RecordError for anything else."""
        entries = _entries(content, cls)
        incidents = entries["incidents"]
        valid = (
            isinstance(entries["case"], str)
            and _is_whole(entries["stage"])
            and _is_digest(entries["image_sha256"])
            and (entries["sums_crc32"] is None or _is_whole(entries["sums_crc32"]))
            and _is_number(entries["seconds"])
            and _is_number(entries["variance"])
            and isinstance(incidents, list)
            and all(isinstance(incident, str) for incident in incidents)
        )
        if not valid:
            raise RecordError(f"expected valid entries of a unit's record, got {shown(entries)}")
        return cls(**{**entries, "incidents": tuple(incidents)})

    def to_bytes(self) -> bytes:
        """Write it as JSON."""
        return json.dumps(asdict(self), indent=1).encode() + b"\n"


@dataclass(frozen=True, kw_only=True)
class KeptMask:
    """A case's mask as the submission holds it."""

    stage: int
    """The last one that it is made of."""
    sha256: str
    """Of its TIFF."""
    foreground: float
    """Share of the mask."""
    unscanned: float
    """Share of the predicted voxels that is gone, since nothing was scanned there."""

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Read what `to_bytes` wrote. Raises RecordError for anything else."""
        entries = _entries(content, cls)
        shares = entries["foreground"], entries["unscanned"]
        if not (_is_whole(entries["stage"]) and _is_digest(entries["sha256"]) and all(map(_is_number, shares))):
            raise RecordError(f"expected valid entries of a kept mask's record, got {shown(entries)}")
        return cls(**entries)

    def to_bytes(self) -> bytes:
        """Write it as JSON."""
        return json.dumps(asdict(self), indent=1).encode() + b"\n"


def _entries(content: bytes, kind: type[UnitRecord] | type[KeptMask]) -> dict[str, Any]:
    try:
        entries = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"expected a record in JSON, got something unreadable ({error})") from error
    expected = {each.name for each in fields(kind)}
    if not isinstance(entries, dict) or set(entries) != expected:
        raise RecordError(f"expected the entries {', '.join(sorted(expected))}, got {shown(entries)}")
    return entries


def _is_whole(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 32


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value < 1e12  # type: ignore[operator]  # and no NaN


def _is_shape(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_whole, value))


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) is not None


def identity(bundle: Bundle) -> dict[str, Any]:
    """Return all that masks depend on beside images and device: a run is only resumed where it is the same."""
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


def file_digest(path: Path) -> str:
    """Return the sha256 of a file; of one that cannot be read, that of nothing."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return hashlib.sha256().hexdigest()
