"""What a worker process does: decode, predict, send back what became of it.

It is given units through a pipe, and keeps three at a time: one is decoded, one predicted, of one the last planes are
blended. What it makes lies in the files that its units name.
"""

import contextlib
import math
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surface_kernel import disk
from surface_kernel.inference.settings import Settings
from surface_kernel.inference.tiles import Grid, plan
from surface_kernel.networks.architecture import DIVISOR
from surface_kernel.runs.ledger import Record, digest_of
from surface_kernel.volumes import volume

if TYPE_CHECKING:
    from surface_kernel.inference.engine import Engine

Load = Callable[[str | None, int | None], "Engine"]
_TELL_EVERY_S = 0.2
_NICE = 10
_ENDING_S = 5.0
_SWITCH_S = 0.0005  # a network's thread that wants Python's lock gets it sooner than after the usual 5 ms


class SumsError(ValueError):
    """Sums of earlier stages that are not what was put on record."""


@dataclass(frozen=True)
class Unit:
    """Some stages on one volume: the piece of work that is handed out.

    stages: consecutive; None means all. mask, sums: files to be made, the volume's raw uint8 and float32 voxels; None
    where they are not wanted. earlier: the sums that the stages before left, and their CRC-32; they are not changed.
    record: where to put on record that it is done, and of which image; None where nobody will ask.
    """

    case: str
    path: Path
    shape_zyx: tuple[int, int, int]
    mask: Path | None = None
    sums: Path | None = None
    stages: tuple[int, ...] | None = None
    earlier: tuple[Path, int] | None = None
    image_sha256: str | None = None
    record: Path | None = None

    @property
    def voxels(self) -> int:
        """Count the volume's voxels."""
        return math.prod(self.shape_zyx)


@dataclass(frozen=True)
class Done:
    """What became of a unit.

    error: why nothing did; again: whether it may be otherwise the next time. Else the variance of the probabilities,
    what is to be told, and of which image it is. sums_crc32: of the file of its sums, where it was put on record with
    one. seconds: that its networks took; took_s: that it took its worker, waiting included.
    """

    unit: Unit
    seconds: float = 0.0
    variance: float = 0.0
    incidents: tuple[str, ...] = ()
    error: str = ""
    again: bool = False
    image_sha256: str = ""
    sums_crc32: int | None = None
    took_s: float = 0.0


@dataclass(frozen=True)
class Ready:
    """How the networks run from here on.

    device: `Device.to_mapping`, for whoever is to run them in the same way; described: in words. trials: what the
    start-up test found, a line each. tile_s: what a tile of the trained size takes; 0 where no test was made. flop: of
    a network, a voxel.
    members, stages, passes: how many networks, stages, and (member, view) pairs of all stages. The rest is what
    `tiles.plan` wants.
    """

    device: Mapping[str, Any]
    described: str
    trials: tuple[str, ...]
    tile_s: float
    flop: float
    members: int
    stages: int
    passes: int
    trained_zyx: tuple[int, int, int]
    overlap: float
    threshold: float

    def grid(self, shape_zyx: tuple[int, int, int]) -> Grid:
        """Plan a volume's tiles as the workers do."""
        return plan(
            shape_zyx,
            trained_zyx=self.trained_zyx,
            overlap=self.overlap,
            step=DIVISOR,
            most_voxels=self.device["tile_voxels"],
            most_kept_bytes=self.device["kept_bytes"],
        )

    def seconds(self, grid: Grid) -> float:
        """Give what a volume is expected to take one worker, all stages."""
        return self.passes * self.tile_s * grid.tiles * math.prod(grid.tile_zyx) / math.prod(self.trained_zyx)


@dataclass(frozen=True)
class LoadEngine:
    """Loads weights files into an engine, in whichever process it is called."""

    files: tuple[Path, ...]
    settings: Settings

    def __call__(self, device_name: str | None, threads: int | None) -> "Engine":
        """Load. Raises as `Engine.load`."""
        from surface_kernel.inference.engine import Engine

        return Engine.load(self.files, self.settings, device_name=device_name, threads=threads)


@dataclass(frozen=True)
class Loaded:
    """Its engine is loaded. gpus: of the machine, where it runs on one."""

    gpus: int


@dataclass(frozen=True)
class Failed:
    """It cannot go on at all."""

    message: str


def work(connection: Connection, load: Load, device_name: str | None, threads: int | None) -> None:
    """Load an engine and predict units until the connection is closed; the first volume is decoded while it loads."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started us ends us
    sys.setswitchinterval(_SWITCH_S)
    decoded: queue.Queue[Any] = queue.Queue(maxsize=1)
    threading.Thread(target=_decode, args=(connection, decoded), daemon=True).start()
    try:
        engine = load(device_name, threads)
    except Exception as error:
        connection.send(Failed(one_line(error)))
        return
    with engine:
        _serve(connection, decoded, engine, device_name)


def _serve(connection: Connection, decoded: "queue.Queue[Any]", engine: "Engine", device_name: str | None) -> None:
    import torch

    from surface_kernel.inference.engine import LANES
    from surface_kernel.networks.device import Device

    send = _Sender(connection)
    send(Loaded(torch.cuda.device_count() if engine.device.is_gpu else 0))
    tuned, under_way = False, threading.Semaphore(LANES)

    def predict(unit: Unit, voxels: volume.Volume, image_sha256: str) -> None:
        try:
            send(_predict(engine, unit, voxels, image_sha256, _Teller(send)))
        finally:
            under_way.release()

    with ThreadPoolExecutor(LANES, "predict") as lanes:
        while (message := decoded.get()) is not None:
            if isinstance(message, dict):
                try:
                    engine.take(Device.from_mapping(message))
                except Exception as error:  # a device that is not there any more
                    send(Failed(f"found no way to run as told, {message} ({one_line(error)}), wanted the same device"))
                    return
                send(_ready(engine, []))
                tuned = True
                continue
            unit, voxels, image_sha256 = message
            if isinstance(voxels, Exception):
                send(Done(unit, error=one_line(voxels), again=_may_pass(voxels)))
                continue
            if not tuned:
                try:
                    send(_tune(engine, voxels, device_name))
                except Exception as error:
                    send(Failed(one_line(error)))
                    return
                tuned = True
            under_way.acquire()  # or volumes would pile up that are decoded and not begun
            lanes.submit(predict, unit, voxels, image_sha256)


def stand_back() -> None:
    """Let this thread work when threads that a network waits for do not."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


class _Sender:
    """Sends messages of several threads."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._lock = connection, threading.Lock()

    def __call__(self, message: Any) -> None:
        with self._lock, contextlib.suppress(BrokenPipeError):  # the process that started us is gone, and we end too
            self._connection.send(message)


def _decode(connection: Connection, decoded: "queue.Queue[Any]") -> None:
    """Receive units and decode their volumes, one ahead of the one that is predicted."""
    stand_back()
    while True:
        try:
            message = connection.recv()
        except (EOFError, OSError):
            # There is no more work, and this process ends by itself; or the one that started it is gone, and what this
            # one is at is nobody's any more.
            with contextlib.suppress(queue.Full):
                decoded.put(None, timeout=_ENDING_S)
            time.sleep(_ENDING_S)
            os._exit(0)
        if not isinstance(message, Unit):
            decoded.put(message)
            continue
        try:
            image_sha256 = digest_of(message.path) if message.record else ""
            if message.image_sha256 not in (None, image_sha256):
                raise volume.VolumeError(f"{message.path}: found another image than the stages before had, wanted that")
            decoded.put((message, volume.open_volume(message.path), image_sha256))
        except Exception as error:
            decoded.put((message, error, ""))


def _tune(engine: "Engine", voxels: volume.Volume, device_name: str | None) -> Ready:
    from surface_kernel.networks.device import DeviceError
    from surface_kernel.networks.placing import choose, within_memory

    try:
        trials = [str(trial) for trial in engine.tune(voxels)]
    except DeviceError as error:
        if device_name is not None or not engine.device.is_gpu:
            raise
        refused = one_line(error)
        engine.take(within_memory(choose("cpu"), engine.cost))
        trials = [refused, *(str(trial) for trial in engine.tune(voxels))]
    return _ready(engine, trials)


def _ready(engine: "Engine", trials: Sequence[str]) -> Ready:
    first = engine.metadata[0]
    return Ready(
        *(engine.device.to_mapping(), str(engine.device), tuple(trials), engine.tile_s, engine.cost.flop),
        *(len(engine.networks), len(engine.stages), sum(len(stage) for stage in engine.stages)),
        *(first.tile_zyx, first.overlap, engine.threshold),
    )


@dataclass
class _Teller:
    """Tells how many tiles are done, not too often."""

    send: _Sender
    tiles: int = 0
    told_s: float = field(default_factory=time.monotonic)

    def __call__(self, tiles: int) -> None:
        self.tiles += tiles
        if time.monotonic() - self.told_s > _TELL_EVERY_S:
            self.tell()

    def tell(self) -> None:
        self.send(self.tiles)
        self.tiles, self.told_s = 0, time.monotonic()


def _predict(engine: "Engine", unit: Unit, voxels: volume.Volume, image_sha256: str, teller: _Teller) -> Done:
    """Predict a unit into files that have other names until they are whole; the record comes last."""
    mask_file = disk.partial_of(unit.mask) if unit.mask else None
    lasting = unit.sums or (unit.earlier[0] if unit.earlier else None)
    sums_file = disk.partial_of(lasting) if lasting else None
    try:
        if voxels.shape != unit.shape_zyx:
            raise volume.VolumeError(f"{unit.path}: found {voxels.shape}, wanted {unit.shape_zyx} as its header says")
        mask = _room(mask_file, "uint8", unit)
        sums = _room(sums_file, "float32", unit, unit.earlier)
        spread = engine.predict(voxels, mask=mask, sums=sums, stages=unit.stages, on_tiles=teller)
        checksum = disk.checksum(sums_file) if sums_file and unit.sums and unit.record else None
        for path, partial in ((unit.sums, sums_file), (unit.mask, mask_file)):
            if path and partial:
                partial.replace(path)
        done = Done(unit, spread.seconds, spread.variance, spread.incidents, "", False, image_sha256, checksum)
        if unit.record:
            _put_on_record(unit.record, done)
        return done
    except Exception as error:  # whatever one volume brings about, the others must not pay for it
        return Done(unit, error=one_line(error), again=_may_pass(error))
    finally:
        teller.tell()
        for partial in filter(None, (mask_file, sums_file)):
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)


def _room(path: Path | None, dtype: str, unit: Unit, earlier: tuple[Path, int] | None = None) -> Any:
    """Make a file of a volume's size and map it, its room taken; it begins as zeros or as what `earlier` holds."""
    import numpy as np

    if path is None:
        return None
    if earlier is None:
        disk.allocate(path, unit.voxels * np.dtype(dtype).itemsize)
    elif disk.copy(earlier[0], path) != earlier[1]:
        raise SumsError(f"{earlier[0]}: found other sums than were put on record, wanted those")
    return np.memmap(path, dtype, "r+", shape=unit.shape_zyx)


def _put_on_record(path: Path, done: Done) -> None:
    assert done.unit.stages is not None  # a unit that is recorded is of one stage
    told = done.unit.case, done.unit.stages[-1], done.image_sha256, done.sums_crc32
    disk.put(path, Record(*told, done.seconds, done.variance, done.incidents).to_bytes())


def _may_pass(error: BaseException) -> bool:
    """Say whether what went wrong may not go wrong the next time: a disk or a memory that was full, and the like."""
    from surface_kernel.inference.forward import out_of_memory

    return isinstance(error, OSError) or out_of_memory(error)


def one_line(error: BaseException) -> str:
    """Give an error's message; before it the error's kind, unless it is of ours and says all that is to be said."""
    ours = type(error).__module__.startswith("surface_kernel")
    return " ".join((str(error) if ours else f"{type(error).__name__}: {error}").split())
