"""Runs in simulated time: the engine's own plan, clock, ledger and submission, with workers that take as
long as they are meant to. A day passes in a second.
"""

import math
from collections import deque
from contextlib import contextmanager
from functools import partial
from unittest import mock

import numpy as np
from engines import CPU

from surface_kernel import disk
from surface_kernel.runs import competition, messages, submission_run
from surface_kernel.runs.clock import Clock
from surface_kernel.runs.messages import Done, Ready
from surface_kernel.runs.records import UnitRecord
from surface_kernel.runs.submission import Submission
from surface_kernel.volumes.scanned import bits_shape

STEP_S = 0.25


class Time:
    """What goes by.

    unit_s: seconds for a voxel and pass, as a function of the time. load_s: until a worker is ready; finish_s: for a
    voxel; write_s: for a zip.
    """

    def __init__(self, unit_s, load_s=0.0, finish_s=0.0, write_s=0.0):
        self.unit_s, self.load_s, self.finish_s, self.write_s = unit_s, load_s, finish_s, write_s
        self.now_s = 0.0
        self.begun, self.ended, self.writes = [], [], []

    def __call__(self):
        return self.now_s


class Workers:
    """Stands in for `Pipeline`: as many workers as are wanted, in simulated time."""

    def __init__(self, time, workers, load, handler, *, device):
        self.time, self.workers, self.passes = time, workers, [len(s) for s in load.settings.stages(len(load.files))]
        self.handler, self.given_up = handler, False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def run(self):
        time, handler = self.time, self.handler
        handler.on_workers(self.workers)
        queues = [deque() for _ in range(self.workers)]
        left = [0.0] * self.workers
        ready_s = time.now_s + time.load_s
        while handler.may_continue():
            if ready_s is not None and time.now_s >= ready_s:
                handler.on_ready(self._ready())
                ready_s = None
            for queue in queues:
                while len(queue) < messages.UNITS_AHEAD:
                    unit = handler.next_unit(tuple(queue))
                    if unit is None:
                        break
                    queue.append(unit)
                    time.begun.append((time.now_s, unit.case, unit.stages[0]))
            if not any(queues):
                break
            time.now_s += STEP_S
            for number, queue in enumerate(queues):
                if ready_s is None and queue:
                    left[number] += STEP_S / time.unit_s(time.now_s)  # voxels and passes that were done
                    work = queue[0].voxels * self.passes[queue[0].stages[0]]
                    if left[number] >= work:
                        left[number] -= work
                        took_s = work * time.unit_s(time.now_s)
                        done = self._done(queue.popleft(), took_s)
                        if handler.on_done(done):
                            yield handler.finish(done)

    def _ready(self):
        return Ready(
            device=CPU,
            trials=(),
            tile_s=0.0,
            flop=1.0,
            members=1,
            stages=len(self.passes),
            passes=sum(self.passes),
            trained_zyx=(32, 32, 32),
            overlap=0.0,
        )

    def _done(self, unit, took_s):
        """Leaves what a worker leaves."""
        unit.mask.write_bytes(np.full(unit.shape_zyx, unit.stages[0] % 2, np.uint8).tobytes())
        if unit.sums:
            unit.sums.write_bytes(bytes(4 * unit.voxels))
        unit.scanned.write_bytes(b"\xff" * math.prod(bits_shape(unit.shape_zyx)))
        done = Done(
            unit=unit,
            seconds=took_s,
            variance=0.1,
            image_sha256="0" * 64,
            sums_crc32=7 if unit.sums else None,
            took_s=took_s,
        )
        disk.put(unit.record, UnitRecord.of(done).to_bytes())
        self.time.ended.append((self.time.now_s, unit.case, unit.stages[0]))
        return done


@contextmanager
def simulated(time, workers=1):
    """Lets the engine run in this time."""
    mask_bytes, write = submission_run.mask_bytes, Submission.write

    def slow_mask_bytes(mask):
        time.now_s += time.finish_s * mask.size
        return mask_bytes(mask)

    def slow_write(submission):
        time.now_s += time.write_s
        write(submission)
        time.writes.append(time.now_s)

    with (
        mock.patch.object(competition, "Clock", lambda budget_s: Clock(budget_s, time)),
        mock.patch.object(competition, "Pipeline", partial(Workers, time, workers)),
        mock.patch.object(submission_run, "mask_bytes", slow_mask_bytes),
        mock.patch.object(Submission, "write", slow_write),
    ):
        yield
