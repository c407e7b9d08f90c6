"""What is to be done next, and what there is no time or room for.

A unit is one stage on one volume. Every volume gets stage 0 before any gets stage 1, so a whole submission exists
early; then it improves, stage by stage, until the time budget ends. A unit that would not end in time, or for which
there is no room on the disk, is not begun. Of a volume that goes wrong the best stage so far counts.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from surface_kernel.inference.tiles import Shape
from surface_kernel.runs.clock import Clock, duration
from surface_kernel.runs.ledger import Ledger
from surface_kernel.runs.messages import FINISHING, UNITS_AHEAD, Done, StoredSums, Unit
from surface_kernel.runs.records import KeptMask, UnitRecord
from surface_kernel.runs.report import VolumeProgress, VolumeReport

PREDICT, FINISH, WRITE = "predict", "finish", "write"  # kinds of work, as the clock knows them
_SUMS_BYTES, _MASK_BYTES = 4, 1.125  # a voxel; with the mask comes a bit that says whether it was scanned
_SPARE_BYTES = 64 << 20  # of the scratch disk, for masks, records and whatever else
_DISK_SHARE = 0.9  # of what is free, at most: others may use it too
_FINISH_S, _WRITE_S = 5e-7, 0.2  # a voxel, a volume: before they were ever measured here, several times the usual
_SLACK_S = 10.0
_SMALL = 0.1  # of the budget: nothing that is not known is taken to be longer


class Plan:
    """Hands out units, and keeps count of how far every volume is.

    ended: why units that could have been begun never were, in reports.
    """

    def __init__(
        self,
        volumes: Sequence[VolumeProgress],
        *,
        passes: Sequence[int],
        ledger: Ledger,
        clock: Clock,
        free_bytes: Callable[[], int],
        clear_unscanned: bool,
    ) -> None:
        """Plan stages for volumes.

        Args:
            volumes: in the order in which they are to be reported.
            passes: of every stage, how often its networks see a voxel.
            ledger: names the files of units.
            clock: has the time budget, and learns what units take.
            free_bytes: returns the room on the scratch disk.
            clear_unscanned: whether units are to say which voxels were scanned.
        """
        self.volumes = {volume.case: volume for volume in volumes}
        self.stages, self.workers = len(passes), 1
        self._passes, self._ledger, self._clock, self._free_bytes = list(passes), ledger, clock, free_bytes
        self._clear_unscanned = clear_unscanned
        self._largest = max((volume.voxels for volume in volumes), default=0)
        # Sums are copied by every stage that adds to them, so some room is kept for copies.
        under_way = self._largest * ((UNITS_AHEAD + FINISHING) * _MASK_BYTES + UNITS_AHEAD * _SUMS_BYTES)
        held = ledger.sums_bytes()
        self.quota_bytes = max(0, int((free_bytes() + held) * _DISK_SHARE) - int(under_way) - _SPARE_BYTES)
        self._sums_bytes = held
        self.ended = "time budget exhausted"

    # --- what an earlier start left -------------------------------------------------------------------------------

    def resume(self, records: Mapping[str, Sequence[UnitRecord]], interrupted: set[str]) -> None:
        """Count what is done already. interrupted: volumes that an earlier start was at when it ended.

        They come last: one of them may be what it died of.
        """
        for case in interrupted & set(self.volumes):
            self.volumes[case].late = True
        for case, done in records.items():
            volume, last = self.volumes[case], done[-1]
            volume.predicted, volume.image_sha256, volume.sums_crc32 = len(done), last.image_sha256, last.sums_crc32
            volume.seconds = sum(record.seconds for record in done)
            volume.variance = last.variance
            volume.notes += [incident for record in done for incident in record.incidents]
            for record in done:
                self._clock.learn(PREDICT, volume.voxels * self._passes[record.stage], record.seconds)
            sums = self._ledger.files(case, last.stage).sums
            complete = sums.is_file() and sums.stat().st_size == volume.voxels * _SUMS_BYTES
            if volume.predicted < self.stages and not (complete and last.sums_crc32 is not None):
                volume.closed = "the sums of its stages are not on the scratch disk"

    # --- handing out ----------------------------------------------------------------------------------------------

    def next_unit(self, queued: Sequence[Unit]) -> Unit | None:
        """Return the next unit for a worker that has the queued ones still to do; None where there is none for it."""
        backlog_s = sum(self._unit_s(self.volumes[unit.case], unit.stage) for unit in queued)
        if queued and not self._clock.knows(PREDICT):  # nobody can say yet whether a second one would end in time
            return None
        if any(self.volumes[unit.case].late for unit in queued):
            return None
        for volume in self._in_order():
            if volume.late and queued:  # it runs alone: if it kills a worker, no other volume pays for it
                return None
            if self._clock.left_s < backlog_s + self._unit_s(volume, volume.predicted) + self.closing_s:
                continue
            unit = self._unit(volume)
            if unit:
                volume.under_way = True
                return unit
        return None

    def _in_order(self) -> Iterator[VolumeProgress]:
        """Yield the volumes whose next unit can be begun: by stage, those last that went wrong once."""
        waiting = [volume for volume in self.open if not volume.under_way]
        yield from sorted(waiting, key=lambda volume: (volume.predicted, volume.late))

    def _unit(self, volume: VolumeProgress) -> Unit | None:
        """Return a volume's next unit if the disk has room for it; a first stage may do without sums."""
        stage, sums_bytes = volume.predicted, volume.voxels * _SUMS_BYTES
        with_sums = stage + 1 < self.stages
        free_bytes = self._free_bytes() - volume.voxels * _MASK_BYTES - _SPARE_BYTES
        if stage == 0 and (self._sums_bytes + sums_bytes > self.quota_bytes or free_bytes < sums_bytes):
            with_sums = False
        if free_bytes < (sums_bytes if with_sums or stage else 0):
            volume.no_room = f"no room on the scratch disk: {max(0, free_bytes) / 1e9:.2f} GB to spare"
            return None
        volume.no_room = ""
        if with_sums and stage == 0:
            self._sums_bytes += sums_bytes
        files, earlier = self._ledger.files(volume.case, stage), None
        if stage:
            earlier = StoredSums(path=self._ledger.files(volume.case, stage - 1).sums, crc32=volume.sums_crc32 or 0)
        return Unit(
            case=volume.case,
            path=volume.path,
            shape_zyx=volume.shape_zyx,
            mask=files.mask,
            sums=files.sums if with_sums else None,
            scanned=files.scanned if self._clear_unscanned else None,
            stages=(stage,),
            earlier=earlier,
            image_sha256=volume.image_sha256,
            record=files.record,
            trained_tile=volume.trained_tile,
        )

    # --- what became of it ----------------------------------------------------------------------------------------

    def on_done(self, done: Done) -> bool:
        """Count what became of a unit; return whether there is a mask to be finished."""
        volume, stage = self.volumes[done.unit.case], done.unit.stage
        volume.under_way = False
        if done.error:
            self._on_error(volume, done)
            return False
        if done.took_s:
            self._clock.learn(PREDICT, volume.voxels * self._passes[stage], done.took_s)
        volume.predicted, volume.failures = stage + 1, 0
        volume.image_sha256, volume.sums_crc32 = done.image_sha256, done.sums_crc32
        volume.seconds += done.seconds
        volume.variance = done.variance
        volume.notes += done.incidents
        self._ledger.forget(volume.case, stage - 1, "sums")
        if done.unit.sums is None and volume.predicted < self.stages:
            volume.closed = "no room on the scratch disk for its sums"
        if done.unit.sums is None and stage:
            self._sums_bytes -= volume.voxels * _SUMS_BYTES
        return True

    def _on_error(self, volume: VolumeProgress, done: Done) -> None:
        stage = done.unit.stage
        volume.failures += 1
        volume.trained_tile |= done.unit.trained_tile
        if stage == 0 and done.unit.sums:
            self._sums_bytes -= volume.voxels * _SUMS_BYTES
        if done.again and volume.failures == 1:
            volume.late = True
            volume.notes.append(f"stage {stage} was tried again: {done.error}")
        else:
            volume.closed = done.error

    def on_written(self, case: str, kept: KeptMask) -> None:
        """Count that the submission has a volume's mask of some stage."""
        volume = self.volumes[case]
        volume.written, volume.foreground, volume.unscanned = kept.stage + 1, kept.foreground, kept.unscanned

    @property
    def open(self) -> list[VolumeProgress]:
        """Return the volumes that may get a further stage."""
        return [volume for volume in self.volumes.values() if not volume.closed and volume.predicted < self.stages]

    @property
    def units_done(self) -> int:
        """Count the units that are done."""
        return sum(volume.predicted for volume in self.volumes.values())

    @property
    def resumable(self) -> bool:
        """Whether another start would have something to do, and something to resume from."""
        return bool(self.open) and self.units_done > 0

    def units_left(self) -> Counter[Shape]:
        """Count the units that may still be done, by the shapes of their volumes."""
        left: Counter[Shape] = Counter()
        for volume in self.open:
            left[volume.shape_zyx] += self.stages - volume.predicted
        return left

    def reports(self) -> list[VolumeReport]:
        """Return every volume's outcome, in the order in which they were given."""
        return [volume.report(self.stages, volume.closed or self._why(volume)) for volume in self.volumes.values()]

    def _why(self, volume: VolumeProgress) -> str:
        if volume.under_way:
            return "not finished before the time limit"
        return volume.no_room or self.ended

    # --- time -----------------------------------------------------------------------------------------------------

    @property
    def closing_s(self) -> float:
        """Return what the end of the run takes: masks that wait to be finished, the zip, the report."""
        small_s, volumes = _SMALL * self._clock.budget_s, len(self.volumes)
        finishing_s = self._clock.expect_s(FINISH, self._largest) or min(_FINISH_S * self._largest, small_s)
        writing_s = self._clock.expect_s(WRITE, volumes) or min(_WRITE_S * volumes, small_s)
        return finishing_s * (FINISHING // 2 + 1) + writing_s * 2 + min(_SLACK_S, small_s)

    def may_continue(self) -> bool:
        """Whether there is time for more than ending the run; where there is not, what is under way is abandoned."""
        return self._clock.left_s >= self.closing_s

    def _unit_s(self, volume: VolumeProgress, stage: int) -> float:
        return self._clock.expect_s(PREDICT, volume.voxels * self._passes[stage])

    def line(self) -> str:
        """Return in one line what is done and left, when it will end, and what will be skipped for want of time."""
        left = [
            (stage, volume.late and stage == volume.predicted, volume)
            for volume in self.open
            for stage in range(volume.predicted, self.stages)
        ]
        left.sort(key=lambda unit: unit[:2])
        end_s, skipped = self._clock.elapsed_s + self.closing_s, Counter[int]()
        for stage, _, volume in left:
            work_s = self._unit_s(volume, stage) / max(1, self.workers)
            if end_s + work_s > self._clock.budget_s:
                skipped[stage] += 1
            else:
                end_s += work_s
        what = ", ".join(f"{count} × stage {stage}" for stage, count in skipped.items())
        expected = f"expected end {duration(end_s)} of {duration(self._clock.budget_s)}"
        if left and not self._clock.knows(PREDICT):
            expected = f"{duration(self._clock.left_s)} to go"
        kept = len(left) - skipped.total()
        return (
            f"plan: {self.units_done} units done, {kept} left, {expected}; "
            f"{f'no time for {what}' if what else 'time for all'}"
        )
