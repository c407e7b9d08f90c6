"""One run of a submission: what a unit becomes, what is saved when, and how a start resumes an earlier one.

Raw masks are finished, written as TIFF and read back, and go into the submission and the ledger. The disk may fail at
any of this; the run continues as far as it can without, and says so.
"""

import hashlib
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock

from surface_kernel import disk
from surface_kernel.postprocess.mask_settings import MaskSettings
from surface_kernel.runs.clock import Clock
from surface_kernel.runs.ledger import Ledger
from surface_kernel.runs.messages import Done, Ready, Unit
from surface_kernel.runs.pipeline import UnitHandler, finished
from surface_kernel.runs.plan import FINISH, PREDICT, WRITE, Plan
from surface_kernel.runs.progress import ProgressBar
from surface_kernel.runs.records import KeptMask, RunConditions
from surface_kernel.runs.report import RunReport, VolumeProgress
from surface_kernel.runs.submission import Submission
from surface_kernel.volumes.mask_files import mask_bytes

SAVE_EVERY_S = 60.0
TRIES = 3  # to write what a run cannot do without


class SubmissionRun(UnitHandler[str]):
    """The plan, the ledger, the submission and the clock of a run, as a pipeline's handler.

    trouble: what went wrong with the run as a whole, one line each.
    """

    def __init__(
        self,
        volumes: Sequence[VolumeProgress],
        *,
        passes: Sequence[int],
        ledger: Ledger,
        submission: Submission,
        clock: Clock,
        mask: MaskSettings,
        progress: ProgressBar,
    ) -> None:
        """Plan a run.

        Args:
            volumes: in the order in which they are to be reported.
            passes: of every stage, how often its networks see a voxel.
            ledger: what is done.
            submission: zeros, or what an earlier start left.
            clock: has the time budget.
            mask: how masks are made; the threshold is the workers' affair.
            progress: a bar, and the log above it.
        """
        self.plan = Plan(
            volumes,
            passes=passes,
            ledger=ledger,
            clock=clock,
            free_bytes=lambda: disk.free_bytes(ledger.folder),
            clear_unscanned=mask.clear_unscanned,
        )
        self.trouble: list[str] = []
        self._ledger, self._submission, self._clock, self.progress = ledger, submission, clock, progress
        self._mask, self._lock, self._saved_s = mask, Lock(), clock.elapsed_s
        self._conditions: RunConditions | None = None  # of this start; the ledger has those of the first one

    # --- an earlier start -----------------------------------------------------------------------------------------

    def resume(self) -> None:
        """Use what earlier starts have done, and finish the masks that wait for it."""
        ledger, plan = self._ledger, self.plan
        ledger.load_records({volume.case: volume.path for volume in plan.open}, plan.stages)
        for note in ledger.notes:
            self.on_trouble(note)
        plan.resume(ledger.records, ledger.interrupted)
        for case, (kept, tiff) in ledger.kept.items():
            self._submission.put(case, tiff)
            plan.on_written(case, kept)
        for record in ledger.unfinished:
            volume = plan.volumes[record.case]
            files = ledger.files(record.case, record.stage)
            unit = Unit(
                case=record.case,
                path=volume.path,
                shape_zyx=volume.shape_zyx,
                mask=files.mask,
                scanned=files.scanned if self._mask.clear_unscanned else None,
                stages=(record.stage,),
            )
            finished(self, Done(unit=unit))
        if ledger.records:
            units = len(plan.volumes) * plan.stages
            self.progress.log(f"resumed from {ledger.folder}: {plan.units_done} of {units} units done")
            self.save()

    # --- what a pipeline asks and tells ---------------------------------------------------------------------------

    def next_unit(self, queued: Sequence[Unit]) -> Unit | None:
        """Return what the plan has next for a worker."""
        return self.plan.next_unit(queued)

    def on_done(self, done: Done) -> bool:
        """Count what became of a unit; return whether there is a mask to be finished."""
        return self.plan.on_done(done)

    def may_continue(self) -> bool:
        """Save what there is, once a minute; return whether there is time for more than ending the run."""
        if self._clock.elapsed_s - self._saved_s > SAVE_EVERY_S:
            self.save()
            self.progress.log(self.plan.line())
            self._saved_s = self._clock.elapsed_s
        return self.plan.may_continue()

    def on_workers(self, count: int) -> None:
        """Expect the run's end by as many workers."""
        self.plan.workers = count

    def on_ready(self, ready: Ready) -> None:
        """Log and keep how the networks run: a later start lets them run in the same way."""
        shapes_zyx = Counter(volume.shape_zyx for volume in self.plan.open)
        self.progress.begin(ready, shapes_zyx, self.plan.units_left())
        self._conditions = RunConditions.of(ready, shapes_zyx)
        if not self._ledger.conditions:
            if self.plan.open:
                volume = self.plan.open[0]
                expected_s = ready.expect_s(ready.grid(volume.shape_zyx))
                self._clock.learn(PREDICT, volume.voxels * ready.passes, expected_s)
            with self._despite_disk("how networks run was not kept: a later start cannot resume this run"):
                self._ledger.set_conditions(self._conditions)
        self.progress.log(self.plan.line())

    def on_tiles(self, count: int) -> None:
        """Move the progress bar."""
        self.progress.add(count)

    def on_trouble(self, line: str) -> None:
        """Log what went wrong with the run as a whole, and keep it for the report."""
        self.trouble.append(line)
        self.progress.log(line)

    def finish(self, done: Done) -> str:
        """Put a unit's mask into the submission, in place of an earlier stage's; return its volume's line.

        Where the unit has an error, which was raised here, the mask before stays. Raises whatever goes wrong.
        """
        unit, volume = done.unit, self.plan.volumes[done.unit.case]
        if done.error:
            volume.closed = volume.closed or f"its mask could not be finished: {done.error}"
            return volume.report(self.plan.stages, volume.closed).line()
        import numpy as np

        from surface_kernel.postprocess.mask import finish_mask
        from surface_kernel.volumes.scanned import bits_shape

        assert unit.mask is not None  # a planned unit has one
        began_s = self._clock.elapsed_s
        mask = np.fromfile(unit.mask, np.uint8).reshape(unit.shape_zyx)
        bits = np.fromfile(unit.scanned, np.uint8).reshape(bits_shape(unit.shape_zyx)) if unit.scanned else None
        unscanned = finish_mask(mask, bits, self._mask, on_failure=volume.notes.append)
        tiff = mask_bytes(mask)
        kept = KeptMask(
            stage=unit.stage,
            sha256=hashlib.sha256(tiff).hexdigest(),
            foreground=float(mask.mean()),
            unscanned=unscanned,
        )
        with self._lock:
            self._put(volume, kept, tiff)
        self._clock.learn(FINISH, unit.voxels, self._clock.elapsed_s - began_s)
        return volume.report(self.plan.stages).line()

    def _put(self, volume: VolumeProgress, kept: KeptMask, tiff: bytes) -> None:
        if kept.stage < volume.written:  # a later stage overtook it
            self._ledger.forget(volume.case, kept.stage, "mask")
            self._ledger.forget(volume.case, kept.stage, "scanned")
            return
        self._submission.put(volume.case, tiff)
        self.plan.on_written(volume.case, kept)
        try:
            self._ledger.keep(volume.case, kept, tiff)
        except OSError as error:  # a later start would have to make it again, no more
            volume.notes.append(f"its mask is not in the ledger: {error}")

    # --- what is saved --------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write the zip if there is anything new for it; if that fails the one before stays."""
        with self._despite_disk("submission.zip could not be written: the one before stays"):
            self._write()

    def end(self) -> None:
        """Write the zip and read it back. Raises OSError, SubmissionError."""
        try:
            disk.retry(self._write, TRIES)
        except OSError as error:
            self.on_trouble(f"submission.zip could not be written ({error}): the sums of all stages are removed for it")
            for volume in self.plan.volumes.values():
                self._ledger.forget(volume.case, self.plan.stages, "sums")
            time.sleep(1)
            disk.retry(self._write, TRIES)
        self._submission.check()

    def report(self) -> RunReport:
        """Return what became of the run."""
        first, current = self._ledger.conditions, self._conditions
        how = {
            **(first.to_mapping() if first else {}),
            **(current.to_mapping() if current else {}),
            "trials": list(first.trials) if first else [],
        }
        return RunReport(
            volumes=self.plan.reports(),
            device=str(current.device) if current else "no device",
            wall_s=self._clock.elapsed_s,
            budget_s=self._clock.budget_s,
            how=how,
            trouble=self.trouble,
        )

    def _write(self) -> None:
        if self._submission.changed:
            began_s = self._clock.elapsed_s
            self._submission.write()
            self._clock.learn(WRITE, len(self.plan.volumes), self._clock.elapsed_s - began_s)

    @contextmanager
    def _despite_disk(self, loss: str) -> Iterator[None]:
        """Report what the disk could not do, and go on without it."""
        try:
            yield
        except OSError as error:
            self.on_trouble(f"{loss} ({error})")
