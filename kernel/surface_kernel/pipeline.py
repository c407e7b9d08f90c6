"""Volumes through worker processes, one a GPU, nobody waiting for anybody.

    this process   hands out units ......................................... dust, TIFF, reading back
    a worker         decodes the volume after next | predicts the next one | blends the last planes of this one

A worker is given UNITS_AHEAD units, so that the next volume is there by the time it is wanted; what it made lies in
files that the finishing threads here pick up. Labelling components holds Python's lock for a tenth of a second at a
time: here it keeps no network waiting. At most FINISHING finished units are waited for at a time.

torch is imported in the workers only. They are forked from a server process that has imported it and done nothing
else, so a further worker, or one in place of one that died, stands in a moment.
"""

import contextlib
import math
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from surface_kernel import volume
from surface_kernel.architecture import DIVISOR
from surface_kernel.settings import Settings
from surface_kernel.tiles import Grid, plan

if TYPE_CHECKING:
    from surface_kernel.engine import Engine

UNITS_AHEAD = 3  # blended, predicted and decoded at a time
FINISHING = 4
RESTARTS = 3
_TELL_EVERY_S = 0.2
_NICE = 10
_SWITCH_S = 0.0005  # a network's thread that wants Python's lock gets it sooner than after the usual 5 ms
_PRELOADED = ["surface_kernel.engine", "torch.fx.experimental.symbolic_shapes"]  # the latter for `cost`: a second
Finished = TypeVar("Finished")
Load = Callable[[str | None, int | None], "Engine"]


class WorkerError(RuntimeError):
    """Workers that cannot begin, or all of which died."""


@dataclass(frozen=True)
class Unit:
    """Some stages on one volume: the piece of work that is handed out.

    stages: consecutive; None means all. mask, sums: files to be made or, for the sums of a later stage, changed: the
    volume's raw uint8 and float32 voxels. None where they are not wanted.
    """

    case: str
    path: Path
    shape_zyx: tuple[int, int, int]
    mask: Path | None = None
    sums: Path | None = None
    stages: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Done:
    """What became of a unit. error: why nothing did; else the variance of the probabilities, and what is to be told."""

    unit: Unit
    seconds: float = 0.0
    variance: float = 0.0
    incidents: tuple[str, ...] = ()
    error: str = ""


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
        limits = self.device["tile_voxels"], self.device["kept_bytes"]
        return plan(shape_zyx, self.trained_zyx, self.overlap, DIVISOR, *limits)

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
        from surface_kernel.engine import Engine

        return Engine.load(self.files, self.settings, device_name, threads=threads)


@dataclass(frozen=True)
class _Loaded:
    gpus: int


@dataclass(frozen=True)
class _Failed:
    message: str


# --- in a worker -------------------------------------------------------------------------------------------------


def _work(connection: Connection, load: Load, device_name: str | None, threads: int | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started us ends us
    sys.setswitchinterval(_SWITCH_S)
    decoded: queue.Queue[Any] = queue.Queue(maxsize=1)
    threading.Thread(target=_decode, args=(connection, decoded), daemon=True).start()
    try:
        engine = load(device_name, threads)
    except Exception as error:
        connection.send(_Failed(_one_line(error)))
        return
    with engine:
        _serve(connection, decoded, engine, device_name)


def _serve(connection: Connection, decoded: "queue.Queue[Any]", engine: "Engine", device_name: str | None) -> None:
    import torch

    from surface_kernel.device import Device
    from surface_kernel.engine import LANES

    send = _Sender(connection)
    send(_Loaded(torch.cuda.device_count() if engine.device.is_gpu else 0))
    tuned, under_way = False, threading.Semaphore(LANES)

    def predict(unit: Unit, voxels: volume.Volume) -> None:
        try:
            send(_predict(engine, unit, voxels, _Teller(send)))
        finally:
            under_way.release()

    with ThreadPoolExecutor(LANES, "predict") as lanes:
        while (message := decoded.get()) is not None:
            if isinstance(message, dict):
                engine.take(Device.from_mapping(message))
                send(_ready(engine, []))
                tuned = True
                continue
            unit, voxels = message
            if isinstance(voxels, Exception):
                send(Done(unit, error=_one_line(voxels)))
                continue
            if not tuned:
                try:
                    send(_tune(engine, voxels, device_name))
                except Exception as error:
                    send(_Failed(_one_line(error)))
                    return
                tuned = True
            under_way.acquire()  # or volumes would pile up that are decoded and not begun
            lanes.submit(predict, unit, voxels)


def _stand_back() -> None:
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
    _stand_back()
    while True:
        try:
            message = connection.recv()
        except EOFError:
            message = None
        if not isinstance(message, Unit):
            decoded.put(message)
            if message is None:
                return
            continue
        try:
            decoded.put((message, volume.open_volume(message.path)))
        except Exception as error:
            decoded.put((message, error))


def _tune(engine: "Engine", voxels: volume.Volume, device_name: str | None) -> Ready:
    from surface_kernel.device import DeviceError, choose

    try:
        trials = [str(trial) for trial in engine.tune(voxels)]
    except DeviceError as error:
        if device_name is not None or not engine.device.is_gpu:
            raise
        refused = _one_line(error)
        engine.take(choose("cpu").within(engine.cost))
        trials = [refused, *(str(trial) for trial in engine.tune(voxels))]
    return _ready(engine, trials)


def _ready(engine: "Engine", trials: Sequence[str]) -> Ready:
    first = engine.told[0]
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


def _predict(engine: "Engine", unit: Unit, voxels: volume.Volume, teller: _Teller) -> Done:
    try:
        if voxels.shape != unit.shape_zyx:
            raise volume.VolumeError(f"{unit.path}: found {voxels.shape}, wanted {unit.shape_zyx} as its header says")
        mask = None if unit.mask is None else _mapped(unit.mask, "uint8", unit.shape_zyx, new=True)
        first = unit.stages is None or unit.stages[0] == 0
        sums = None if unit.sums is None else _mapped(unit.sums, "float32", unit.shape_zyx, new=first)
        spread = engine.predict(voxels, mask, sums, unit.stages, teller)
    except Exception as error:  # whatever one volume brings about, the others must not pay for it
        return Done(unit, error=_one_line(error))
    finally:
        teller.tell()
    return Done(unit, spread.seconds, spread.variance, spread.incidents)


def _mapped(path: Path, dtype: str, shape_zyx: tuple[int, int, int], new: bool) -> Any:
    import numpy as np

    return np.memmap(path, dtype, "w+" if new else "r+", shape=shape_zyx)


# --- in the process that hands out -------------------------------------------------------------------------------


class _Worker:
    """A process, the units that it has, and the way to it."""

    def __init__(self, load: Load, device_name: str | None, threads: int | None) -> None:
        self.device_name = device_name
        self.units: deque[Unit] = deque()
        self.loaded = self.told = False
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(
            target=_work, args=(theirs, load, device_name, threads), daemon=True
        )
        self.process.start()
        theirs.close()

    def end(self, at_once: bool) -> None:
        """Let it end by itself when it has nothing to do; else kill it."""
        self.connection.close()
        if at_once:
            self.process.kill()
        self.process.join()

    @property
    def death(self) -> str:
        """Say how it died."""
        self.process.join()
        code = self.process.exitcode or 0
        return signal.Signals(-code).name if -code in set(signal.Signals) else f"exit code {code}"


class Pipeline:
    """Workers that predict, and threads that finish what they made.

    load: gives the engine, in a worker; it must be picklable. It is called with a device's name (None: the fastest
    there is; then every GPU gets a worker) and a number of threads. workers: how many at the least. device: one that
    an earlier run found, as a mapping; without it the first worker tests what there is on the first volume, and the
    others take over what it found.
    """

    def __init__(
        self,
        load: Load,
        device_name: str | None = None,
        workers: int = 1,
        threads: int | None = None,
        device: Mapping[str, Any] | None = None,
        on_ready: Callable[[Ready], object] = lambda ready: None,
        on_tiles: Callable[[int], object] = lambda count: None,
    ) -> None:
        self._load, self._device_name, self._threads = load, device_name, threads
        self._on_ready, self._on_tiles, self._device = on_ready, on_tiles, device
        self._restarts, self._agreed = RESTARTS, False
        self._left_over: deque[Unit] = deque()  # of workers that died
        self._workers = [self._start(device_name) for _ in range(workers)]

    def __enter__(self) -> "Pipeline":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        for worker in self._workers:
            worker.end(at_once=kind is not None or bool(worker.units))
        self._workers.clear()

    def run(
        self, take: Callable[[Sequence[Unit]], Unit | None], finish: Callable[[Done], Finished]
    ) -> Iterator[Finished]:
        """Yield what `finish` makes of every unit, about in the order in which they end.

        take: gives the next unit for a worker that has these still to do, or None when there is none for it. finish: is
        called in a thread with what became of a unit; what it raises, it is called again with as the unit's error.
        Raises WorkerError when a worker cannot begin, or all have died more often than is bearable.
        """
        finishing: deque[Future[Finished]] = deque()
        with ThreadPoolExecutor(max_workers=2, thread_name_prefix="finish", initializer=_stand_back) as pool:
            while True:
                while finishing and (finishing[0].done() or len(finishing) >= FINISHING):
                    yield finishing.popleft().result()
                if not self._hand_out(take) and not any(worker.units for worker in self._workers):
                    break
                for done in self._receive(0.05 if finishing else None):
                    finishing.append(pool.submit(_finished, finish, done))
            while finishing:
                yield finishing.popleft().result()

    def _start(self, device_name: str | None) -> _Worker:
        worker = _Worker(self._load, device_name, self._threads)
        if self._device is not None:  # before any unit, or it would test the device on the first one
            self._tell_device(worker)
        return worker

    def _hand_out(self, take: Callable[[Sequence[Unit]], Unit | None]) -> bool:
        """Give every worker what it may have, the least busy one first; say whether there may be more.

        Until the first worker is ready it alone is given units. One that still loads decodes meanwhile.
        """
        eligible = self._workers if self._device is not None else self._workers[:1]
        for ahead in range(UNITS_AHEAD):
            for worker in eligible:
                if len(worker.units) > ahead:
                    continue
                unit = self._left_over.popleft() if self._left_over else take(tuple(worker.units))
                if unit is None:
                    return False
                worker.units.append(unit)
                self._send(worker, unit)
        return True

    def _send(self, worker: _Worker, message: Any) -> None:
        with contextlib.suppress(OSError):  # it died, which is noticed where its messages are received
            worker.connection.send(message)

    def _receive(self, timeout_s: float | None) -> Iterator[Done]:
        ready = wait([worker.connection for worker in self._workers], timeout_s)
        for worker in [worker for worker in self._workers if worker.connection in ready]:
            try:
                message = worker.connection.recv()
            except (EOFError, OSError):
                yield from self._bury(worker)
                continue
            match message:
                case int():
                    self._on_tiles(message)
                case Done():
                    worker.units.remove(message.unit)
                    yield message
                case _Loaded():
                    self._welcome(worker, message.gpus)
                case Ready():
                    self._agree(message)
                case _Failed():
                    raise WorkerError(message.message)

    def _welcome(self, worker: _Worker, gpus: int) -> None:
        """Let a loaded worker take part; where the first one found several GPUs, start one worker for each."""
        worker.loaded = True
        if worker is self._workers[0] and self._device_name is None and len(self._workers) < gpus:
            self._workers += [self._start(f"cuda:{number}") for number in range(len(self._workers), gpus)]

    def _agree(self, ready: Ready) -> None:
        """Take over what the first worker found or was told; the others say it once more."""
        if self._agreed:
            return
        self._agreed, self._device = True, ready.device
        for worker in self._workers[1:]:
            self._tell_device(worker)
        self._on_ready(ready)

    def _tell_device(self, worker: _Worker) -> None:
        assert self._device is not None  # it was found before anybody is told
        if worker.told:
            return
        worker.told = True
        name = worker.device_name or self._device["name"]
        self._send(worker, {**self._device, "name": name})

    def _bury(self, worker: _Worker) -> Iterator[Done]:
        """Start another worker in place of a dead one; what it was at is lost, the rest is done by others."""
        self._workers.remove(worker)
        death = worker.death
        if not worker.loaded:
            raise WorkerError(f"found a worker that died while it loaded ({death}), wanted it to predict")
        if worker.units:
            yield Done(worker.units.popleft(), error=f"the worker died: {death}")
        self._left_over.extend(worker.units)
        if self._restarts:
            self._restarts -= 1
            self._workers.append(self._start(worker.device_name))
        while not self._workers and self._left_over:
            yield Done(self._left_over.popleft(), error=f"the worker died: {death}, and so did {RESTARTS} more")
        if not self._workers:
            raise WorkerError(f"found all workers dead, the last one by {death}, wanted one at least")


def _finished(finish: Callable[[Done], Finished], done: Done) -> Finished:
    try:
        return finish(done)
    except Exception as error:  # the disk, most likely; the other volumes go on
        return finish(Done(done.unit, done.seconds, incidents=done.incidents, error=_one_line(error)))


def _one_line(error: BaseException) -> str:
    """Give an error's message; before it the error's kind, unless it is of ours and says all that is to be said."""
    ours = type(error).__module__.startswith("surface_kernel")
    return " ".join((str(error) if ours else f"{type(error).__name__}: {error}").split())
