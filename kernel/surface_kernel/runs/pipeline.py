"""Volumes through worker processes, one a GPU; decoding, inference and finishing overlap.

    this process     hands out units ................................. small components, TIFF, reading back
    a worker         decodes the volume after next | predicts the next one | blends the last planes of this one

A worker has up to UNITS_AHEAD units, so that the next volume is there when it is wanted; what it made lies in files
that the finishing threads here read. Labelling components holds Python's lock for a tenth of a second at a time: here
it keeps no network waiting. At most FINISHING finished units are waited for at a time. torch is imported in the workers
only.
"""

import signal
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.connection import wait
from typing import Generic, Protocol, Self, TypeVar

from surface_kernel.machine import killed_for_memory
from surface_kernel.networks.device import DeviceRequest
from surface_kernel.runs.messages import (
    FINISHING,
    UNITS_AHEAD,
    DeviceLost,
    Done,
    Failed,
    Load,
    Loaded,
    Ready,
    TileLimit,
    TilesDone,
    Unit,
    error_text,
)
from surface_kernel.runs.worker import lower_priority
from surface_kernel.runs.worker_process import WorkerProcess

RESTARTS = 12  # of all workers together: three for each of a few volumes that crash every worker
GPU_RESTARTS = 2  # of a GPU that broke: after another time it is left alone
_POLL_S, _FINISHING_POLL_S = 0.5, 0.05
Finished = TypeVar("Finished")
FinishedOnly = TypeVar("FinishedOnly", covariant=True)


class WorkerError(RuntimeError):
    """Workers that cannot begin."""


class UnitHandler(Protocol[FinishedOnly]):
    """What a pipeline asks and tells whoever has the units; all but `finish` in the thread that runs it.

    A subclass may leave out those that return nothing: their `return` keeps mypy from calling them abstract.
    """

    def next_unit(self, queued: Sequence[Unit]) -> Unit | None:
        """Return the next unit for a worker that has the queued ones still to do; None: there is none for it now."""

    def on_done(self, done: Done) -> bool:
        """Take note of what became of a unit; return whether it is to be finished."""

    def finish(self, done: Done) -> FinishedOnly:
        """Make the result of a unit. Several threads call it; what it raises is handed to it as the unit's error."""

    def may_continue(self) -> bool:
        """Return whether to go on; asked twice a second at least. If not, workers are killed."""

    def on_workers(self, count: int) -> None:
        """Take note of how many workers there are from here on."""
        return

    def on_ready(self, ready: Ready) -> None:
        """Take note of how networks run; once, before the first unit is predicted."""
        return

    def on_tiles(self, count: int) -> None:
        """Take note that so many more tiles are done."""
        return

    def on_trouble(self, line: str) -> None:
        """Take note of what happened to a worker."""
        return


class Pipeline(Generic[Finished]):
    """Workers that predict, and threads that finish what they made.

    given_up: whether no worker is left because they died.
    """

    def __init__(
        self,
        load: Load,
        handler: UnitHandler[Finished],
        *,
        device: DeviceRequest | None = None,
        workers: int = 1,
        threads: int | None = None,
    ) -> None:
        """Start workers.

        Args:
            load: returns the engine, in a worker.
            handler: has the units.
            device: without a name, or with "cuda", every GPU gets a worker; without any the CPU takes over where no
                GPU can be used. Without an agreed one the first worker tests what there is on the first volume; the
                others run as it does, once they have computed a tile as it should be.
            workers: at least.
            threads: of a worker, for torch; None: as many as there are cores.
        """
        request = device or DeviceRequest()
        self._load, self._handler, self._threads = load, handler, threads
        self._device_name, self._device = request.name, request.agreed
        self._restarts, self._ready, self._never_loaded = RESTARTS, False, 0
        self._lost: Counter[str] = Counter()  # how often the GPU of a worker broke, by its name
        self.given_up = False
        self._killed_for_memory = killed_for_memory()
        self._left_over: deque[Unit] = deque()  # of workers that died
        self._workers = [self._start(request.name) for _ in range(workers)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._end(at_once=kind is not None)

    def _end(self, at_once: bool) -> None:
        for worker in self._workers:
            worker.end(at_once or bool(worker.units))
            worker.remove_partial_files()
        self._workers.clear()

    def run(self) -> Iterator[Finished]:
        """Yield what the handler's `finish` makes of every unit, about in the order in which they end.

        Where the handler says not to go on, and where workers have died too often, what is left stays undone.

        Raises:
            WorkerError: where no worker can begin.
        """
        finishing: deque[Future[Finished]] = deque()
        self._handler.on_workers(len(self._workers))
        with ThreadPoolExecutor(max_workers=2, thread_name_prefix="finish", initializer=lower_priority) as pool:
            while True:
                while finishing and (finishing[0].done() or len(finishing) >= FINISHING):
                    yield finishing.popleft().result()
                if not self._handler.may_continue():
                    self._end(at_once=True)
                    self._handler.on_workers(0)
                    break
                self._hand_out()
                if not any(worker.units for worker in self._workers):
                    break
                for done in self._receive(_FINISHING_POLL_S if finishing else _POLL_S):
                    if self._handler.on_done(done):
                        finishing.append(pool.submit(finished, self._handler, done))
                if not self._workers:
                    break
            while finishing:
                yield finishing.popleft().result()

    def _start(self, device_name: str | None) -> WorkerProcess:
        worker = WorkerProcess(self._load, device_name, threads=self._threads, or_cpu=self._device_name is None)
        self._set_device(worker)  # before any unit, or it would test the device on the first one
        return worker

    def _set_device(self, worker: WorkerProcess) -> None:
        if self._device is not None:
            name = worker.device_name if self._device.is_gpu else None
            worker.set_device(replace(self._device, name=name or self._device.name))

    def _hand_out(self) -> None:
        """Hand every worker what it may have, the least busy one first.

        Until the first worker is ready it alone is given units. One that still loads decodes meanwhile.
        """
        eligible = self._workers if self._device is not None else self._workers[:1]
        for ahead in range(UNITS_AHEAD):
            for worker in eligible:
                if len(worker.units) > ahead:
                    continue
                unit = self._left_over.popleft() if self._left_over else self._handler.next_unit(tuple(worker.units))
                if unit is not None:
                    worker.give(unit)

    def _receive(self, timeout_s: float) -> Iterator[Done]:
        ready = wait([worker.connection for worker in self._workers], timeout_s)
        for worker in list(self._workers):
            if worker.connection not in ready:
                worker.kill_if_silent()
                continue
            try:
                message = worker.connection.recv()
            except (EOFError, OSError):
                yield from self._replace_worker(worker)
                continue
            worker.on_message()
            match message:
                case TilesDone():
                    self._handler.on_tiles(message.count)
                case Done():
                    worker.units.remove(message.unit)
                    yield replace(message, took_s=worker.lap_s())
                case Loaded():
                    self._on_loaded(worker, message.gpus)
                case Ready():
                    worker.on_ready()
                    self._on_ready(worker, message)
                case TileLimit():
                    self._on_limit(worker, message)
                case Failed():
                    if not self._ready:
                        yield from self._replace_worker(worker, message.error)
                    else:  # one that was to run as the first does
                        self._on_lost(worker, DeviceLost(error=message.error, again=False))
                case DeviceLost():
                    self._on_lost(worker, message)

    def _on_loaded(self, worker: WorkerProcess, gpus: int) -> None:
        """Start a worker for each of several GPUs, where the first worker sees them."""
        worker.loaded = True
        if self._device is not None and not self._device.is_gpu:
            return
        if worker is self._workers[0] and self._device_name in (None, "cuda") and len(self._workers) < gpus:
            self._workers += [self._start(f"cuda:{number}") for number in range(len(self._workers), gpus)]
            self._handler.on_workers(len(self._workers))

    def _on_ready(self, first: WorkerProcess, ready: Ready) -> None:
        """Let all workers run as the first one does; the others are ready later."""
        if self._ready:
            return
        self._ready, self._device = True, ready.device
        if not ready.device.is_gpu:  # the GPUs are no better than the one that was tested and refused
            on_gpus = [worker for worker in self._workers if (worker.device_name or "cpu") != "cpu"]
            for worker in on_gpus:
                if worker is not first:
                    self._let_go(worker)
            if on_gpus:
                self._handler.on_workers(len(self._workers))
        for worker in self._workers:
            if worker is not first:
                self._set_device(worker)
        self._handler.on_ready(ready)

    def _memory(self) -> str:
        """Return how a killed worker's memory may have been the reason; empty where it was not."""
        killed, self._killed_for_memory = self._killed_for_memory, killed_for_memory()
        if killed is None or self._killed_for_memory is None:
            return "perhaps for its memory"
        return "for its memory" if self._killed_for_memory > killed else ""

    def _on_limit(self, worker: WorkerProcess, limit: TileLimit) -> None:
        """Let all workers, later ones too, plan tiles that are no larger than what one of them had memory for."""
        if self._device is not None:
            self._device = replace(self._device, tile_voxels=min(self._device.tile_voxels, limit.voxels))
        for other in self._workers:
            if other is not worker and other.device is not None:
                other.limit_tiles(limit)

    def _let_go(self, worker: WorkerProcess) -> None:
        """End a worker; others do what it had."""
        self._workers.remove(worker)
        worker.end(at_once=True)
        worker.remove_partial_files()
        self._left_over.extend(worker.units)

    def _on_lost(self, worker: WorkerProcess, lost: DeviceLost) -> None:
        """Go on without a worker whose GPU is lost to it: with another on that GPU, with the others, with the CPU."""
        name = worker.device_name or (self._device.name if self._device else "the GPU")
        self._let_go(worker)
        self._lost[name] += 1
        self._handler.on_trouble(f"{name}: {lost.error}")
        if lost.again and self._lost[name] <= GPU_RESTARTS:
            self._workers.append(self._start(worker.device_name))
        else:
            self._handler.on_trouble(f"{name} is left alone from here on")
        if not self._workers and self._device_name is None:
            self._handler.on_trouble("no GPU is left: the CPU goes on")
            self._ready, self._device = False, None  # it tests itself on the next volume
            self._workers.append(self._start("cpu"))
        self._handler.on_workers(len(self._workers))
        if not self._workers:
            self.given_up = True

    def _replace_worker(self, worker: WorkerProcess, fault: str = "") -> Iterator[Done]:
        """Start another worker in place of one that died, or that cannot go on at all, for the given fault.

        The unit that it was at has failed; the others that it had are done by other workers.
        """
        self._workers.remove(worker)
        death = fault or worker.death
        worker.end(at_once=True)
        worker.remove_partial_files()
        if not worker.loaded and not self._ready:
            self._never_loaded += 1
        hopeless = fault or self._never_loaded > 1  # one may have died of the volume that it was decoding
        if hopeless and not self._ready and not self._workers:
            raise WorkerError(fault or f"workers: expected one to load its engine, got {death} each time")
        if worker.units:
            unit = worker.units.popleft()
            if death == signal.SIGKILL.name and (why := self._memory()):  # the same again would end the same way
                death, unit = f"{death}, {why}", replace(unit, trained_tile=True)
            yield Done(unit=unit, error=f"the worker died: {death}", again=True)
        self._left_over.extend(worker.units)
        self._handler.on_trouble(f"a worker died: {death}")
        if self._restarts and not fault:
            self._restarts -= 1
            self._workers.append(self._start(worker.device_name))
        self._handler.on_workers(len(self._workers))
        if not self._workers:
            self.given_up = True
            self._handler.on_trouble(f"no worker is left after {RESTARTS - self._restarts} restarts")


def finished(handler: UnitHandler[Finished], done: Done) -> Finished:
    """Return what a handler makes of a unit; what it raises is handed to it as the unit's error."""
    try:
        return handler.finish(done)
    except Exception as error:  # the disk, most likely; the other volumes go on
        return handler.finish(replace(done, error=error_text(error)))
