"""A worker as the first process sees it: a process, the units that it has, and the way to it."""

import contextlib
import multiprocessing
import signal
import time
from collections import deque
from multiprocessing.process import BaseProcess

from surface_kernel import disk
from surface_kernel.networks.device import Device
from surface_kernel.runs.messages import Load, TileLimit, Unit
from surface_kernel.runs.worker import work

SILENCE_S = 300.0  # a ready worker with work hangs after so long without a message, or after its longest silence times
_SILENCES = 20
LOADING_SILENCE_S = 1800.0  # a first import from a slow disk, a compiler
_DYING_S, _ENDING_S = 10.0, 30.0
_PRELOADED = ["surface_kernel.inference.engine", "torch.fx.experimental.symbolic_shapes"]  # the latter for `cost`: 1 s


class WorkerProcess:
    """A process forked from a server that has imported torch and done nothing else, so that it starts in a moment.

    loaded, ready: whether its engine is loaded, and runs on its device. device: that it was sent, if any.
    units: that it has, the oldest first.
    """

    def __init__(self, load: Load, device_name: str | None, *, threads: int | None, or_cpu: bool) -> None:
        """Start it. or_cpu: whether it may take the CPU where the GPU that it tests cannot be used."""
        self.device_name = device_name
        self.units: deque[Unit] = deque()
        self.loaded = self.ready = False
        self.device: Device | None = None
        self._hang = ""
        self._since_s = self._heard_s = time.monotonic()
        self._longest_s = 0.0  # silence, while it worked
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)
        self.connection, theirs = context.Pipe()
        arguments = {"device_name": device_name, "threads": threads, "or_cpu": or_cpu}
        self.process: BaseProcess = context.Process(target=work, args=(theirs, load), kwargs=arguments, daemon=True)
        self.process.start()
        theirs.close()

    def give(self, unit: Unit) -> None:
        """Let it predict one more unit."""
        if not self.units:
            self._since_s = self._heard_s = time.monotonic()
        self.units.append(unit)
        self._send(unit)

    def set_device(self, device: Device) -> None:
        """Let it run on a device, unless it was sent one before."""
        if self.device is None:
            self.device = device
            self._send(device)

    def limit_tiles(self, limit: TileLimit) -> None:
        """Let it plan no larger tiles."""
        self._send(limit)

    def _send(self, message: Unit | Device | TileLimit) -> None:
        with contextlib.suppress(OSError):  # it died, which is noticed where its messages are received
            self.connection.send(message)

    def on_message(self) -> None:
        """Note that it sent something."""
        now_s = time.monotonic()
        if self.ready:
            self._longest_s = max(self._longest_s, now_s - self._heard_s)
        self._heard_s = now_s

    def on_ready(self) -> None:
        """Note that its networks run; what it did before counts for no unit."""
        self.ready = True
        self.lap_s()

    def lap_s(self) -> float:
        """Return what the unit that just ended took: since the one before ended, or since it was given."""
        began_s, self._since_s = self._since_s, time.monotonic()
        return self._since_s - began_s

    def kill_if_silent(self) -> None:
        """Kill it if it has sent nothing for so long that it must hang."""
        limit_s = max(SILENCE_S, _SILENCES * self._longest_s) if self.ready else LOADING_SILENCE_S
        if (self.units or not self.loaded) and time.monotonic() - self._heard_s > limit_s:
            self._hang = f"no message for {limit_s:.0f} s"
            self.process.kill()

    def end(self, at_once: bool) -> None:
        """Let it end by itself when it has nothing to do, or kill it."""
        self.connection.close()
        if not at_once:
            self.process.join(_ENDING_S)
        self.process.kill()
        self.process.join(_DYING_S)  # one that hangs in a driver cannot be killed: it is left behind

    def remove_partial_files(self) -> None:
        """Remove what it was writing when it died."""
        for unit in self.units:
            for path in (unit.mask, unit.sums, unit.scanned, unit.earlier and unit.earlier.path, unit.record):
                if path:
                    disk.partial_of(path, self.process.pid).unlink(missing_ok=True)

    @property
    def death(self) -> str:
        """Return how it died."""
        self.process.join(_DYING_S)
        code = self.process.exitcode or 0
        return self._hang or (signal.Signals(-code).name if -code in set(signal.Signals) else f"exit code {code}")
