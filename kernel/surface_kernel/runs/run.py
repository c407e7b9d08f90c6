"""One run: what a unit becomes, what is saved when, and how a start goes on where another ended.

Raw masks become the submission's: dust is dropped, the TIFF is made and read back, and goes into the submission and
the ledger. The disk may fail at any of this; the run goes on as far as it can without, and says so.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock

from surface_kernel import disk
from surface_kernel.runs.clock import Clock
from surface_kernel.runs.ledger import Kept, Ledger
from surface_kernel.runs.pipeline import finished
from surface_kernel.runs.plan import FINISH, PREDICT, WRITE, Plan, Standing, stage_of
from surface_kernel.runs.submission import Submission
from surface_kernel.runs.worker import Done, Ready, Unit
from surface_kernel.volumes.volume import mask_bytes

SAVE_EVERY_S = 60.0
TRIES = 3  # to write what a run cannot do without


class Run:
    """The plan, the ledger, the submission and the clock of a run.

    passes: of every stage, how often its networks see a voxel. say: is told, a line each, what a person should know;
    what went wrong with the run as a whole is in `trouble` too.
    """

    def __init__(
        self,
        volumes: Sequence[Standing],
        passes: Sequence[int],
        ledger: Ledger,
        submission: Submission,
        clock: Clock,
        dust_voxels: int,
        say: Callable[[str], object],
    ) -> None:
        self.plan = Plan(volumes, passes, ledger, clock, lambda: disk.free_bytes(ledger.folder))
        self.trouble: list[str] = []
        self._ledger, self._submission, self._clock, self._say = ledger, submission, clock, say
        self._dust_voxels, self._lock, self._saved_s = dust_voxels, Lock(), clock.elapsed_s

    def tell(self, line: str) -> None:
        """Say what went wrong with the run as a whole."""
        self.trouble.append(line)
        self._say(line)

    def resume(self) -> None:
        """Take over what earlier starts have done, and finish the masks that wait for it."""
        ledger, plan = self._ledger, self.plan
        ledger.take_over({volume.case: volume.path for volume in plan.open}, plan.stages)
        for note in ledger.notes:
            self.tell(note)
        plan.resume(ledger.records, ledger.begun)
        for case, (kept, tiff) in ledger.kept.items():
            self._submission.put(case, tiff)
            plan.wrote(case, kept.stage, kept.foreground)
        for record in ledger.unfinished:
            volume = plan.volumes[record.case]
            mask = ledger.files(record.case, record.stage)[0]
            unit = Unit(record.case, volume.path, volume.shape_zyx, mask, stages=(record.stage,))
            finished(self.finish, Done(unit))
        if ledger.records:
            self._say(f"gone on with {ledger.folder}: {sum(map(len, ledger.records.values()))} units were done")
            self.save()

    def begin(self, ready: Ready, how: dict[str, object]) -> None:
        """Take note of how the networks run: whoever goes on with this run does it in the same way."""
        if self._ledger.how:
            return
        if self.plan.open:
            volume = self.plan.open[0]
            expected_s = ready.seconds(ready.grid(volume.shape_zyx))
            self._clock.learn(PREDICT, volume.voxels * ready.passes, expected_s)
        with self._without("how networks run is not on record: a start after this one would begin anew"):
            self._ledger.agree(how)

    def go_on(self) -> bool:
        """Save what there is, once a minute; say whether there is time for more than ending the run."""
        if self._clock.elapsed_s - self._saved_s > SAVE_EVERY_S:
            self.save()
            self._say(self.plan.line())
            self._saved_s = self._clock.elapsed_s
        return self.plan.may_go_on()

    def finish(self, done: Done) -> str:
        """Take a unit's mask into the submission, in place of an earlier stage's; say what came of its volume.

        Several threads may call it at a time. Where the unit has an error, which was raised here, the mask before
        stands. Raises whatever goes wrong.
        """
        unit, volume = done.unit, self.plan.volumes[done.unit.case]
        if done.error:
            volume.closed = volume.closed or f"its mask could not be finished: {done.error}"
            return self.plan.report(volume, volume.closed).line()
        import numpy as np

        from surface_kernel.postprocess.drop_small_components import drop_small_components

        assert unit.mask is not None  # a planned unit has one
        began_s, stage = self._clock.elapsed_s, stage_of(unit)
        mask = np.fromfile(unit.mask, np.uint8).reshape(unit.shape_zyx)
        try:
            drop_small_components(mask, self._dust_voxels, connectivity=26)
        except MemoryError:
            volume.notes.append("its dust was kept: memory did not suffice")
        tiff, foreground = mask_bytes(mask), float(mask.mean())
        with self._lock:
            if stage < volume.written:  # a later stage overtook it
                self._ledger.forget(volume.case, stage, "mask")
                return self.plan.report(volume).line()
            self._submission.put(volume.case, tiff)
            self.plan.wrote(volume.case, stage, foreground)
            try:
                self._ledger.keep(volume.case, Kept(stage, hashlib.sha256(tiff).hexdigest(), foreground), tiff)
            except OSError as error:  # a later start would have to make it again, no more
                volume.notes.append(f"its mask is not in the ledger: {error}")
        self._clock.learn(FINISH, unit.voxels, self._clock.elapsed_s - began_s)
        return self.plan.report(volume).line()

    def save(self) -> None:
        """Write the zip if there is anything new to be in it; if that fails the one before stands."""
        with self._without("the zip could not be written: the one before stands"):
            self._write()

    def end(self) -> None:
        """Write the zip and read it back. Raises OSError, SubmissionError."""
        try:
            disk.insist(self._write, TRIES)
        except OSError as error:
            self.tell(f"the zip could not be written ({error}): the sums of all stages make room for it")
            for volume in self.plan.volumes.values():
                self._ledger.forget(volume.case, self.plan.stages, "sums")
            time.sleep(1)
            disk.insist(self._write, TRIES)
        self._submission.check()

    def _write(self) -> None:
        if self._submission.changed:
            began_s = self._clock.elapsed_s
            self._submission.write()
            self._clock.learn(WRITE, len(self.plan.volumes), self._clock.elapsed_s - began_s)

    @contextmanager
    def _without(self, what: str) -> Iterator[None]:
        """Say what the disk could not do, and go on without it."""
        try:
            yield
        except OSError as error:
            self.tell(f"{what} ({error})")
