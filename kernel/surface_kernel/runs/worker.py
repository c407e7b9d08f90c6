"""What a worker process does: decode, predict, send back what became of it.

It is given units through a pipe, and keeps UNITS_AHEAD of them: one is decoded, one predicted, of one the last planes
are blended. What it makes lies in the files that its units name.
"""

import contextlib
import math
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surface_kernel import disk
from surface_kernel.networks.device import Device, DeviceError
from surface_kernel.runs.messages import (
    DeviceLost,
    Done,
    Failed,
    Load,
    Loaded,
    Message,
    Ready,
    StoredSums,
    TileLimit,
    TilesDone,
    Unit,
    error_text,
)
from surface_kernel.runs.records import UnitRecord, file_digest
from surface_kernel.volumes import volume
from surface_kernel.volumes.header import VolumeError

if TYPE_CHECKING:
    from surface_kernel.inference.engine import Engine

_COUNT_EVERY_S = 0.2
_NICE = 10
_ENDING_S = 5.0
_SWITCH_S = 0.0005  # a network's thread that wants Python's lock gets it sooner than after the usual 5 ms


class SumsError(ValueError):
    """Sums of earlier stages that are not those of their record."""


@dataclass(frozen=True, kw_only=True)
class _Decoded:
    """A unit whose volume is decoded."""

    unit: Unit
    voxels: volume.Volume
    scanned: volume.Volume | None
    """Which voxels were scanned, in the file that will be the unit's."""
    image_sha256: str


# Done: the volume could not be decoded; None: the end
Queue = queue.Queue[Device | TileLimit | _Decoded | Done | None]


def work(
    connection: Connection, load: Load, *, device_name: str | None, threads: int | None, or_cpu: bool = False
) -> None:
    """Load an engine and predict units until the connection is closed; the first volume is decoded while it loads.

    Args:
        connection: to the first process.
        load: returns the engine.
        device_name: as `placing.choose` takes it.
        threads: for torch; None: as many as there are cores.
        or_cpu: whether the CPU is taken where a GPU cannot be used: where nobody asked for that GPU.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one ends it
    sys.setswitchinterval(_SWITCH_S)
    decoded: Queue = queue.Queue(maxsize=1)
    threading.Thread(target=_decode, args=(connection, decoded), daemon=True).start()
    send = _Sender(connection)
    try:
        engine, refused = _load(load, device_name=device_name, threads=threads, or_cpu=or_cpu)
    except Exception as error:
        send(Failed(error=error_text(error)))
        return
    with engine:
        _serve(engine, refused=refused, or_cpu=or_cpu, decoded=decoded, send=send)


def _load(
    load: Load, *, device_name: str | None, threads: int | None, or_cpu: bool
) -> tuple["Engine", tuple[str, ...]]:
    """Load the engine, on the CPU where a GPU's driver fails already here; return it and why, where that is so."""
    from surface_kernel.networks.device_errors import device_broken, out_of_memory

    try:
        return load(device_name, threads), ()
    except Exception as error:
        if not (or_cpu and device_name != "cpu" and (device_broken(error) or out_of_memory(error))):
            raise
        refused = error_text(error)
    return load("cpu", threads), (f"the GPU is not used: {refused}",)


def _serve(engine: "Engine", *, refused: tuple[str, ...], or_cpu: bool, decoded: Queue, send: "_Sender") -> None:
    import torch

    from surface_kernel.inference.engine import LANES

    send(Loaded(gpus=torch.cuda.device_count() if engine.device.is_gpu else 0))
    ready, trusted, under_way = False, False, threading.Semaphore(LANES)

    def predict(item: _Decoded) -> None:
        try:
            before = engine.device.tile_voxels
            send(_predict(engine, item, count=_TileCounter(send), send=send))
            if engine.device.tile_voxels < before:
                send(TileLimit(engine.device.tile_voxels))
        finally:
            under_way.release()

    with ThreadPoolExecutor(LANES, "predict") as lanes:
        while (item := decoded.get()) is not None:
            if isinstance(item, Done):
                send(item)
                continue
            if isinstance(item, TileLimit):
                engine.limit_tiles(item.voxels)
                continue
            if isinstance(item, Device) or not ready:
                settled = _settle(engine, item, refused=refused, or_cpu=or_cpu)
                send(settled)
                if isinstance(settled, Failed):
                    return
                ready, trusted = True, not isinstance(item, Device)
            if isinstance(item, _Decoded):
                if not trusted:
                    _check(engine, item, send)
                    trusted = True
                under_way.acquire()  # or volumes would pile up that are decoded and not begun
                lanes.submit(predict, item)


def lower_priority() -> None:
    """Let this thread work when threads that a network waits for do not."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


class _Sender:
    """Sends messages of several threads."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._lock = connection, threading.Lock()

    def __call__(self, message: Message) -> None:
        with self._lock, contextlib.suppress(BrokenPipeError):  # the first process is gone, and this one ends too
            self._connection.send(message)


@dataclass
class _TileCounter:
    """Sends how many tiles are done, not too often."""

    send: _Sender
    tiles: int = 0
    sent_s: float = field(default_factory=time.monotonic)

    def __call__(self, tiles: int) -> None:
        self.tiles += tiles
        if time.monotonic() - self.sent_s > _COUNT_EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Send what was not sent yet."""
        self.send(TilesDone(count=self.tiles))
        self.tiles, self.sent_s = 0, time.monotonic()


# --- decoding --------------------------------------------------------------------------------------------------------


def _decode(connection: Connection, decoded: Queue) -> None:
    """Receive units and decode their volumes, one ahead of the one that is predicted."""
    lower_priority()
    while True:
        try:
            message: Unit | Device | TileLimit = connection.recv()
        except (EOFError, OSError):
            # There is no more work, and this process ends by itself; or the first process is gone, and nobody waits
            # for what this one is at.
            with contextlib.suppress(queue.Full):
                decoded.put(None, timeout=_ENDING_S)
            time.sleep(_ENDING_S)
            os._exit(0)
        decoded.put(_decode_unit(message) if isinstance(message, Unit) else message)


def _decode_unit(unit: Unit) -> _Decoded | Done:
    try:
        image_sha256 = file_digest(unit.path) if unit.record else ""
        if unit.image_sha256 not in (None, image_sha256):
            raise VolumeError(f"{unit.path}: expected the image of the stages before, got another")
        voxels = volume.open_volume(unit.path)
        scanned = _scan(voxels, unit.scanned) if unit.scanned else None
        return _Decoded(unit=unit, voxels=voxels, scanned=scanned, image_sha256=image_sha256)
    except Exception as error:
        return Done(unit=unit, error=error_text(error), again=_may_pass(error))


def _scan(voxels: volume.Volume, path: Path) -> volume.Volume:
    """Return which voxels were scanned, mapped from the file that becomes `path` when the unit is done."""
    import numpy as np

    from surface_kernel.volumes.scanned import bits_shape, scanned_bits

    shape, partial = bits_shape(voxels.shape), disk.partial_of(path)
    disk.allocate(partial, math.prod(shape))
    try:
        return scanned_bits(voxels, np.memmap(partial, np.uint8, "r+", shape=shape))
    except BaseException:
        partial.unlink()
        raise


# --- the device ------------------------------------------------------------------------------------------------------


def _settle(engine: "Engine", item: Device | _Decoded, *, refused: tuple[str, ...], or_cpu: bool) -> Ready | Failed:
    """Run the networks on the device that is given, or on what the start-up test on a volume finds fastest."""
    try:
        if isinstance(item, _Decoded):
            return _ready(engine, [*refused, *_tune(engine, item.voxels, or_cpu)])
        engine.take(item)
        return _ready(engine, [])
    except Exception as error:
        if isinstance(item, _Decoded):
            return Failed(error=error_text(error))
        advice = "make it available, or name another --scratch to start from scratch"
        return Failed(error=f"device: expected to run as agreed on {item}, got {error_text(error)}; {advice}")


def _tune(engine: "Engine", voxels: volume.Volume, or_cpu: bool) -> list[str]:
    """Test the device, and the CPU where it fails in whatever way and may be replaced; return the results in words."""
    from surface_kernel.inference.selftest import remarks
    from surface_kernel.networks.placing import choose, within_memory

    try:
        trials = engine.tune(voxels)
        return [*remarks(engine.device, trials), *(str(trial) for trial in trials)]
    except (DeviceError, RuntimeError, MemoryError) as error:
        if not or_cpu or not engine.device.is_gpu:
            raise
        refused = f"the GPU is not used: {error_text(error)}"
    cpu = choose("cpu", engine.device.threads)
    engine.take(within_memory(cpu, engine.cost) if engine.device.tile_voxels else cpu)
    return [refused, *(str(trial) for trial in engine.tune(voxels))]


def _check(engine: "Engine", item: _Decoded, send: "_Sender") -> None:
    """End this process where a GPU that another process agreed on computes something else than the CPU here."""
    if not engine.device.is_gpu:
        return
    try:
        error = engine.check(item.voxels)
    except Exception as raised:
        error = error_text(raised)
    if error:
        _lose(send, DeviceLost(error=f"not used, since it does not run as agreed: {error}", again=False))


def _lose(send: "_Sender", lost: DeviceLost) -> None:
    """Report that the GPU is lost to this process, and end it at once: nothing that others here compute may count."""
    send(lost)
    os._exit(1)


def _ready(engine: "Engine", trials: Sequence[str]) -> Ready:
    return Ready(
        device=engine.device,
        trials=tuple(trials),
        tile_s=engine.tile_s,
        flop=engine.cost.flop,
        members=len(engine.networks),
        stages=len(engine.stages),
        passes=sum(len(stage) for stage in engine.stages),
        trained_zyx=engine.metadata[0].tile_zyx,
        overlap=engine.metadata[0].overlap,
    )


# --- predicting ------------------------------------------------------------------------------------------------------


def _predict(engine: "Engine", item: _Decoded, *, count: _TileCounter, send: _Sender) -> Done:
    """Predict a unit into its files, which appear when all are complete; the record comes last."""
    from surface_kernel.networks.device_errors import device_broken

    unit = item.unit
    try:
        done = _fill(engine, item, count)
        if unit.record:
            disk.put(unit.record, UnitRecord.of(done).to_bytes())
        return done
    except Exception as error:  # whatever one volume brings about, the others must not pay for it
        if engine.device.is_gpu and device_broken(error):
            _lose(send, DeviceLost(error=error_text(error), again=True))
        return Done(unit=unit, error=error_text(error), again=_may_pass(error))
    finally:
        count.flush()


def _fill(engine: "Engine", item: _Decoded, count: _TileCounter) -> Done:
    unit = item.unit
    with contextlib.ExitStack() as files:
        if unit.scanned:
            files.enter_context(disk.replacing(unit.scanned))  # it was written when the volume was decoded
        if item.voxels.shape != unit.shape_zyx:
            expected = f"expected shape {unit.shape_zyx} as the header says, got {item.voxels.shape}"
            raise VolumeError(f"{unit.path}: {expected}")
        mask_file = files.enter_context(disk.replacing(unit.mask)) if unit.mask else None
        sums_file = files.enter_context(disk.replacing(unit.sums)) if unit.sums else None
        if unit.earlier and not sums_file:  # nobody adds to these any more
            sums_file = files.enter_context(disk.temporary(unit.earlier.path))
        mask = _mapped(mask_file, unit, "uint8") if mask_file else None
        sums = _mapped(sums_file, unit, "float32", earlier=unit.earlier) if sums_file else None
        statistics = engine.predict(
            item.voxels,
            mask=mask,
            sums=sums,
            stages=unit.stages,
            scanned=item.scanned,
            on_tiles=count,
            tile_voxels=0 if unit.trained_tile else None,
        )
        checksum = disk.checksum(sums_file) if sums_file and unit.sums and unit.record else None
    return Done(
        unit=unit,
        seconds=statistics.seconds,
        variance=statistics.variance,
        incidents=statistics.incidents,
        image_sha256=item.image_sha256,
        sums_crc32=checksum,
    )


def _mapped(path: Path, unit: Unit, dtype: str, *, earlier: StoredSums | None = None) -> Any:
    """Make a file of a volume's size and map it, its room taken; it begins as zeros or as what `earlier` holds."""
    import numpy as np

    if earlier is None:
        disk.allocate(path, unit.voxels * np.dtype(dtype).itemsize)
    elif (crc32 := disk.copy(earlier.path, path)) != earlier.crc32:
        raise SumsError(f"{earlier.path}: expected sums of CRC-32 {earlier.crc32} as recorded, got {crc32}")
    return np.memmap(path, dtype, "r+", shape=unit.shape_zyx)


def _may_pass(error: BaseException) -> bool:
    """Whether what went wrong may go right the next time: a disk or a memory that was full, and the like."""
    from surface_kernel.networks.device_errors import out_of_memory

    return isinstance(error, OSError) or out_of_memory(error)
