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
import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from surface_kernel import disk
from surface_kernel.runs.worker import Done, Failed, Load, Loaded, Ready, Unit, one_line, stand_back, work

UNITS_AHEAD = 3  # blended, predicted and decoded at a time
FINISHING = 4
RESTARTS = 12  # of all workers together: three for each of a few volumes that are the death of any worker
SILENCE_S = (
    300.0  # a ready worker that has work and says nothing for so long, or for so many times as it ever did, hangs
)
LOADING_SILENCE_S = 1800.0  # a first import from a slow disk, a compiler
_SILENCES = 20
_POLL_S = 0.5
_DYING_S = 10.0
_PRELOADED = [
    "surface_kernel.inference.engine",
    "torch.fx.experimental.symbolic_shapes",
]  # the latter for `cost`: a second
Finished = TypeVar("Finished")


class WorkerError(RuntimeError):
    """Workers that cannot begin, or all of which died."""


class _Worker:
    """A process, the units that it has, and the way to it.

    since_s: when it began with the first of its units. heard_s: when it last said anything; longest_s: its longest
    silence while it worked.
    """

    def __init__(self, load: Load, device_name: str | None, threads: int | None) -> None:
        self.device_name = device_name
        self.units: deque[Unit] = deque()
        self.loaded = self.told = self.ready = False
        self.since_s = self.heard_s = time.monotonic()
        self.longest_s = 0.0
        self.hangs = ""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=work, args=(theirs, load, device_name, threads), daemon=True)
        self.process.start()
        theirs.close()

    def give(self, unit: Unit) -> None:
        """Note that it has one more unit."""
        if not self.units:
            self.since_s = self.heard_s = time.monotonic()
        self.units.append(unit)

    def heard(self) -> None:
        """Note that it said something."""
        now_s = time.monotonic()
        if self.ready:
            self.longest_s = max(self.longest_s, now_s - self.heard_s)
        self.heard_s = now_s

    def took_s(self) -> float:
        """Give what the unit that just ended took: since the one before ended, or since it was given."""
        began_s, self.since_s = self.since_s, time.monotonic()
        return self.since_s - began_s

    def end_if_silent(self) -> None:
        """Kill it if it has said nothing for so long that it must hang."""
        limit_s = max(SILENCE_S, _SILENCES * self.longest_s) if self.ready else LOADING_SILENCE_S
        if (self.units or not self.loaded) and time.monotonic() - self.heard_s > limit_s:
            self.hangs = f"no sign of life for {limit_s:.0f} s"
            self.process.kill()

    def end(self, at_once: bool) -> None:
        """Let it end by itself when it has nothing to do; else kill it."""
        self.connection.close()
        if at_once:
            self.process.kill()
        self.process.join()

    def clear(self) -> None:
        """Remove the pieces of files that it left when it died."""
        for unit in self.units:
            for path in (unit.mask, unit.sums, unit.earlier and unit.earlier[0], unit.record):
                if path:
                    disk.partial_of(path, self.process.pid).unlink(missing_ok=True)

    @property
    def death(self) -> str:
        """Say how it died."""
        self.process.join(_DYING_S)
        code = self.process.exitcode or 0
        return self.hangs or (signal.Signals(-code).name if -code in set(signal.Signals) else f"exit code {code}")


class Pipeline:
    """Workers that predict, and threads that finish what they made.

    load: gives the engine, in a worker; it must be picklable. It is called with a device's name (None: the fastest
    there is; then every GPU gets a worker) and a number of threads. workers: how many at the least. device: one that
    an earlier run found, as a mapping; without it the first worker tests what there is on the first volume, and the
    others take over what it found. on_ready, on_tiles, on_trouble: told how networks run, how many tiles are done, and
    in a line each what became of workers. given_up: whether no worker is left because they died.
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
        on_trouble: Callable[[str], object] = lambda line: None,
    ) -> None:
        self._load, self._device_name, self._threads = load, device_name, threads
        self._on_ready, self._on_tiles, self._on_trouble, self._device = on_ready, on_tiles, on_trouble, device
        self._restarts, self._agreed, self._never_loaded = RESTARTS, False, 0
        self.given_up = False
        self._left_over: deque[Unit] = deque()  # of workers that died
        self._workers = [self._start(device_name) for _ in range(workers)]

    def __enter__(self) -> "Pipeline":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._end(at_once=kind is not None)

    def _end(self, at_once: bool) -> None:
        for worker in self._workers:
            worker.end(at_once or bool(worker.units))
        self._workers.clear()

    @property
    def workers(self) -> int:
        """Count the workers."""
        return len(self._workers)

    def run(
        self,
        take: Callable[[Sequence[Unit]], Unit | None],
        finish: Callable[[Done], Finished],
        received: Callable[[Done], bool] = lambda done: True,
        go_on: Callable[[], bool] = lambda: True,
    ) -> Iterator[Finished]:
        """Yield what `finish` makes of every unit, about in the order in which they end.

        take: gives the next unit for a worker that has these still to do, or None when there is none for it now.
        received: told what became of a unit as soon as that is known; says whether it is to be finished. finish: called
        in a thread with that; what it raises, it is called again with as the unit's error. go_on: called twice a second
        at least; when it says no, the workers are killed, and what they were at is left undone. Raises WorkerError when
        no worker can begin; when all have died more often than is bearable, the rest is left undone too.
        """
        finishing: deque[Future[Finished]] = deque()
        with ThreadPoolExecutor(max_workers=2, thread_name_prefix="finish", initializer=stand_back) as pool:
            while True:
                while finishing and (finishing[0].done() or len(finishing) >= FINISHING):
                    yield finishing.popleft().result()
                if not go_on():
                    self._end(at_once=True)
                    break
                self._hand_out(take)
                if not any(worker.units for worker in self._workers):
                    break
                for done in self._receive(0.05 if finishing else _POLL_S):
                    if received(done):
                        finishing.append(pool.submit(finished, finish, done))
                if not self._workers:
                    break
            while finishing:
                yield finishing.popleft().result()

    def _start(self, device_name: str | None) -> _Worker:
        worker = _Worker(self._load, device_name, self._threads)
        if self._device is not None:  # before any unit, or it would test the device on the first one
            self._tell_device(worker)
        return worker

    def _hand_out(self, take: Callable[[Sequence[Unit]], Unit | None]) -> None:
        """Give every worker what it may have, the least busy one first.

        Until the first worker is ready it alone is given units. One that still loads decodes meanwhile.
        """
        eligible = self._workers if self._device is not None else self._workers[:1]
        for ahead in range(UNITS_AHEAD):
            for worker in eligible:
                if len(worker.units) > ahead:
                    continue
                unit = self._left_over.popleft() if self._left_over else take(tuple(worker.units))
                if unit is not None:
                    worker.give(unit)
                    self._send(worker, unit)

    def _send(self, worker: _Worker, message: Any) -> None:
        with contextlib.suppress(OSError):  # it died, which is noticed where its messages are received
            worker.connection.send(message)

    def _receive(self, timeout_s: float) -> Iterator[Done]:
        ready = wait([worker.connection for worker in self._workers], timeout_s)
        for worker in list(self._workers):
            if worker.connection not in ready:
                worker.end_if_silent()
                continue
            try:
                message = worker.connection.recv()
            except (EOFError, OSError):
                yield from self._bury(worker, "")
                continue
            worker.heard()
            match message:
                case int():
                    self._on_tiles(message)
                case Done():
                    worker.units.remove(message.unit)
                    yield replace(message, took_s=worker.took_s())
                case Loaded():
                    self._welcome(worker, message.gpus)
                case Ready():
                    worker.ready = True
                    worker.took_s()  # what it did before was no unit's affair
                    self._agree(message)
                case Failed():
                    yield from self._bury(worker, message.message)

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

    def _bury(self, worker: _Worker, fault: str) -> Iterator[Done]:
        """Take leave of a worker that died, or that said with what fault it cannot go on; start another in its place.

        What it was at is lost, the rest is done by others.
        """
        self._workers.remove(worker)
        death = fault or worker.death
        worker.end(at_once=True)
        worker.clear()
        if not worker.loaded and not self._agreed:
            self._never_loaded += 1
        hopeless = fault or self._never_loaded > 1  # one may have died of the volume that it was decoding
        if hopeless and not self._agreed and not self._workers:
            raise WorkerError(fault or f"found a worker that died while it loaded ({death}), wanted it to predict")
        if worker.units:
            yield Done(worker.units.popleft(), error=f"the worker died: {death}", again=True)
        self._left_over.extend(worker.units)
        self._on_trouble(f"a worker died: {death}")
        if self._restarts and not fault:
            self._restarts -= 1
            self._workers.append(self._start(worker.device_name))
        if not self._workers:
            self.given_up = True
            self._on_trouble(f"no worker is left, {RESTARTS - self._restarts} having been started in place of others")


def finished(finish: Callable[[Done], Finished], done: Done) -> Finished:
    """Give what `finish` makes of a unit; what it raises, it is called again with as the unit's error."""
    try:
        return finish(done)
    except Exception as error:  # the disk, most likely; the other volumes go on
        return finish(replace(done, error=one_line(error)))
