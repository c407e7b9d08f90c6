"""Runs in simulated time: the engine's own plan, clock, ledger and submission, with workers that take what they are
told to take. A day passes in a second.
"""

from collections import deque
from contextlib import contextmanager
from functools import partial
from unittest import mock

import numpy as np
from engines import CPU

from surface_kernel import __main__ as story
from surface_kernel.runs import pipeline, run, worker
from surface_kernel.runs.clock import Clock
from surface_kernel.runs.submission import Submission
from surface_kernel.runs.worker import Done, Ready

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

    def __init__(self, time, count, load, named, workers, threads, device, on_ready, on_tiles, on_trouble):
        self.time, self.workers, self.passes = time, count, [len(s) for s in load.settings.stages(len(load.files))]
        self.on_ready, self.given_up = on_ready, False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def run(self, take, finish, received, go_on):
        time = self.time
        queues = [deque() for _ in range(self.workers)]
        left = [0.0] * self.workers
        ready_s = time.now_s + time.load_s
        while go_on():
            if ready_s is not None and time.now_s >= ready_s:
                self.on_ready(self._ready())
                ready_s = None
            for queue in queues:
                while len(queue) < pipeline.UNITS_AHEAD:
                    unit = take(tuple(queue))
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
                        if received(self._done(queue.popleft(), took_s)):
                            yield finish(self._last)

    def _ready(self):
        described = CPU.to_mapping(), "simulated", (), 0.0, 1.0
        return Ready(*described, 1, len(self.passes), sum(self.passes), (32, 32, 32), 0.0, 0.5)

    def _done(self, unit, took_s):
        """Leaves what a worker leaves."""
        unit.mask.write_bytes(np.full(unit.shape_zyx, unit.stages[0] % 2, np.uint8).tobytes())
        if unit.sums:
            unit.sums.write_bytes(bytes(4 * unit.voxels))
        self._last = Done(unit, took_s, 0.1, (), "", False, "0" * 64, 7 if unit.sums else None, took_s)
        worker._put_on_record(unit.record, self._last)
        self.time.ended.append((self.time.now_s, unit.case, unit.stages[0]))
        return self._last


@contextmanager
def simulated(time, workers=1):
    """Lets the engine run in this time."""
    mask_bytes, write = run.mask_bytes, Submission.write

    def slow_mask_bytes(mask):
        time.now_s += time.finish_s * mask.size
        return mask_bytes(mask)

    def slow_write(submission):
        time.now_s += time.write_s
        write(submission)
        time.writes.append(time.now_s)

    with (
        mock.patch.object(story, "Clock", lambda budget_s: Clock(budget_s, time)),
        mock.patch.object(story, "Pipeline", partial(Workers, time, workers)),
        mock.patch.object(run, "mask_bytes", slow_mask_bytes),
        mock.patch.object(Submission, "write", slow_write),
    ):
        yield
