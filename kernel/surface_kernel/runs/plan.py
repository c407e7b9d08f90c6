"""What is to be done next, and what there is no time or room for.

A unit is one stage on one volume. Every volume gets stage 0 before any gets stage 1, so a whole submission stands
early; then it improves, stage by stage, until the clock says stop. A unit that would not end in time, or for which
there is no room on the disk, is not begun. Of a volume that goes wrong the best stage so far stands.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from surface_kernel.runs.clock import Clock
from surface_kernel.runs.ledger import Ledger, Record
from surface_kernel.runs.pipeline import FINISHING, UNITS_AHEAD
from surface_kernel.runs.report import VolumeReport
from surface_kernel.runs.worker import Done, Unit

PREDICT, FINISH, WRITE = "predict", "finish", "write"  # kinds of work, as the clock knows them
_SUMS_BYTES, _MASK_BYTES = 4, 1  # a voxel
_SPARE_BYTES = 64 << 20  # of the scratch disk, for masks, records and whatever else
_DISK_SHARE = 0.9  # of what is free, at the most: others may use it too
_FINISH_S, _WRITE_S = 5e-7, 0.2  # a voxel, a volume: before they were ever measured here, several times the usual
_SLACK_S = 10.0
_SMALL = 0.1  # of the budget: nothing that is not known is taken to be longer


@dataclass
class Standing:
    """How far a volume is.

    predicted, written: stages whose units are on record, and that its mask in the submission is made of. closed: why
    it gets no further stage; empty while it may. tries: failures of its next unit. late: it comes last of its stage,
    and alone, since it may be what a worker or a run died of. seconds: that its networks took. foreground: of its mask.
    full: why the disk has no room for its next unit, if so.
    """

    case: str
    path: Path
    shape_zyx: tuple[int, int, int]
    predicted: int = 0
    written: int = 0
    closed: str = ""
    under_way: bool = False
    tries: int = 0
    late: bool = False
    image_sha256: str | None = None
    sums_crc32: int | None = None
    seconds: float = 0.0
    variance: float = 0.0
    foreground: float = 0.0
    full: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def voxels(self) -> int:
        """Count its voxels."""
        return math.prod(self.shape_zyx)


class Plan:
    """Hands out units, and keeps count of how far every volume is.

    passes: of every stage, how often its networks see a voxel. free_bytes: asks for the room on the scratch disk.
    workers: how many share the work.
    """

    def __init__(
        self,
        volumes: Sequence[Standing],
        passes: Sequence[int],
        ledger: Ledger,
        clock: Clock,
        free_bytes: Callable[[], int],
    ) -> None:
        self.volumes = {volume.case: volume for volume in volumes}
        self.stages, self.workers = len(passes), 1
        self._passes, self._ledger, self._clock, self._free_bytes = list(passes), ledger, clock, free_bytes
        self._largest = max((volume.voxels for volume in volumes), default=0)
        # Sums are copied by every stage that adds to them, so some room is kept for copies.
        under_way = self._largest * ((UNITS_AHEAD + FINISHING) * _MASK_BYTES + UNITS_AHEAD * _SUMS_BYTES)
        held = ledger.sums_bytes()
        self.quota_bytes = max(0, int((free_bytes() + held) * _DISK_SHARE) - under_way - _SPARE_BYTES)
        self._sums_bytes = held
        self.ended = "no time was left"  # why what was not begun never was

    # --- what an earlier start left -------------------------------------------------------------------------------

    def resume(self, records: Mapping[str, Sequence[Record]], begun: set[str]) -> None:
        """Take over what is on record. begun: volumes that were under way when a start ended: they come last now.

        One of them may have been the end of it.
        """
        for case in begun & set(self.volumes):
            self.volumes[case].late = True
        for case, done in records.items():
            volume, last = self.volumes[case], done[-1]
            volume.predicted, volume.image_sha256, volume.sums_crc32 = len(done), last.image_sha256, last.sums_crc32
            volume.seconds = sum(record.seconds for record in done)
            volume.variance = last.variance
            volume.notes += [incident for record in done for incident in record.incidents]
            for record in done:
                self._clock.learn(PREDICT, volume.voxels * self._passes[record.stage], record.seconds)
            sums = self._ledger.files(case, last.stage)[1]
            whole = sums.is_file() and sums.stat().st_size == volume.voxels * _SUMS_BYTES
            if volume.predicted < self.stages and not (whole and last.sums_crc32 is not None):
                volume.closed = "the sums of its stages are not on the disk"

    # --- handing out ----------------------------------------------------------------------------------------------

    def take(self, before: Sequence[Unit]) -> Unit | None:
        """Give the next unit for a worker that has the units `before` still to do; None when there is none for it."""
        backlog_s = sum(self._unit_s(self.volumes[unit.case], stage_of(unit)) for unit in before)
        if before and not self._clock.knows(PREDICT):  # nobody can say yet whether a second one would end in time
            return None
        if any(self.volumes[unit.case].late for unit in before):
            return None
        for volume in self._in_order():
            if volume.late and before:  # it runs alone: if it is the end of a worker, no other pays for it
                return None
            if self._clock.left_s < backlog_s + self._whole_s(volume, volume.predicted):
                continue
            unit = self._unit(volume)
            if unit:
                volume.under_way = True
                return unit
        return None

    def _in_order(self) -> Iterator[Standing]:
        """Yield the volumes whose next unit can be begun: by stage, those last that went wrong once."""
        waiting = [volume for volume in self.open if not volume.under_way]
        yield from sorted(waiting, key=lambda volume: (volume.predicted, volume.late))

    def _unit(self, volume: Standing) -> Unit | None:
        """Make a volume's next unit if the disk has room for it; a first stage may do without sums."""
        stage = volume.predicted
        mask, sums, record = self._ledger.files(volume.case, stage)
        earlier = (self._ledger.files(volume.case, stage - 1)[1], volume.sums_crc32 or 0) if stage else None
        wanted = volume.voxels * _SUMS_BYTES
        goes_on = stage + 1 < self.stages
        free_bytes = self._free_bytes() - volume.voxels * _MASK_BYTES - _SPARE_BYTES
        if goes_on and stage == 0 and (self._sums_bytes + wanted > self.quota_bytes or free_bytes < wanted):
            goes_on = False
        if free_bytes < (wanted if goes_on or stage else 0):
            volume.full = f"there was no room on the scratch disk: {max(0, free_bytes) / 1e9:.2f} GB to spare"
            return None
        volume.full = ""
        if goes_on and stage == 0:
            self._sums_bytes += wanted
        return Unit(
            *(volume.case, volume.path, volume.shape_zyx, mask, sums if goes_on else None, (stage,), earlier),
            *(volume.image_sha256, record),
        )

    # --- what became of it ----------------------------------------------------------------------------------------

    def received(self, done: Done) -> bool:
        """Take note of what became of a unit; say whether there is a mask to be finished."""
        volume, stage = self.volumes[done.unit.case], stage_of(done.unit)
        volume.under_way = False
        if done.error:
            volume.tries += 1
            if stage == 0 and done.unit.sums:
                self._sums_bytes -= volume.voxels * _SUMS_BYTES
            if done.again and volume.tries == 1:
                volume.late = True
                volume.notes.append(f"stage {stage} was tried again: {done.error}")
            else:
                volume.closed = done.error
            return False
        if done.took_s:
            self._clock.learn(PREDICT, volume.voxels * self._passes[stage], done.took_s)
        volume.predicted, volume.tries = stage + 1, 0
        volume.image_sha256, volume.sums_crc32 = done.image_sha256, done.sums_crc32
        volume.seconds += done.seconds
        volume.variance = done.variance
        volume.notes += done.incidents
        self._ledger.forget(volume.case, stage - 1, "sums")
        if done.unit.sums is None and volume.predicted < self.stages:
            volume.closed = "there was no room on the scratch disk for its sums"
        if done.unit.sums is None and stage:
            self._sums_bytes -= volume.voxels * _SUMS_BYTES
        return True

    def wrote(self, case: str, stage: int, foreground: float) -> None:
        """Take note that the submission has a volume's mask of this stage."""
        self.volumes[case].written, self.volumes[case].foreground = stage + 1, foreground

    @property
    def open(self) -> list[Standing]:
        """Give the volumes that may get a further stage."""
        return [volume for volume in self.volumes.values() if not volume.closed and volume.predicted < self.stages]

    @property
    def worth_going_on(self) -> bool:
        """Say whether another start would have something to do, and something to go on with."""
        return bool(self.open) and any(volume.predicted for volume in self.volumes.values())

    def units_left(self) -> Counter[tuple[int, int, int]]:
        """Count the units that may be done still, by the shapes of their volumes."""
        left: Counter[tuple[int, int, int]] = Counter()
        for volume in self.open:
            left[volume.shape_zyx] += self.stages - volume.predicted
        return left

    def reports(self) -> list[VolumeReport]:
        """Give every volume's outcome, in the order in which they were given."""
        return [self.report(volume, volume.closed or self._why(volume)) for volume in self.volumes.values()]

    def report(self, volume: Standing, reason: str = "") -> VolumeReport:
        """Give a volume's outcome so far. reason: why it has not all of its stages, if so."""
        return VolumeReport(
            *(volume.case, volume.shape_zyx, volume.written, self.stages, volume.seconds, volume.foreground),
            *(volume.variance, reason if volume.written < self.stages else "", tuple(volume.notes)),
        )

    def _why(self, volume: Standing) -> str:
        if volume.under_way:
            return "it was under way when the run had to end"
        return volume.full or self.ended

    # --- time -----------------------------------------------------------------------------------------------------

    @property
    def closing_s(self) -> float:
        """Give what the end of the run takes: masks that wait to be finished, the zip, the report."""
        small_s, volumes = _SMALL * self._clock.budget_s, len(self.volumes)
        finishing_s = self._clock.expect_s(FINISH, self._largest) or min(_FINISH_S * self._largest, small_s)
        writing_s = self._clock.expect_s(WRITE, volumes) or min(_WRITE_S * volumes, small_s)
        return finishing_s * (FINISHING // 2 + 1) + writing_s * 2 + min(_SLACK_S, small_s)

    def may_go_on(self) -> bool:
        """Say whether there is time for more than ending the run: what is under way when there is not, is left."""
        return self._clock.left_s >= self.closing_s

    def _unit_s(self, volume: Standing, stage: int) -> float:
        return self._clock.expect_s(PREDICT, volume.voxels * self._passes[stage])

    def _whole_s(self, volume: Standing, stage: int) -> float:
        return self._unit_s(volume, stage) + self.closing_s

    def line(self) -> str:
        """Say in a line what is done and left, when it will end, and what will be dropped for want of time."""
        done = sum(volume.predicted for volume in self.volumes.values())
        left = [
            (stage, late, volume)
            for volume in self.open
            for stage in range(volume.predicted, self.stages)
            for late in [volume.late and stage == volume.predicted]
        ]
        left.sort(key=lambda unit: unit[:2])
        end_s, dropped, kept = self._clock.elapsed_s + self.closing_s, dict[int, int](), 0
        for stage, _, volume in left:
            work_s = self._unit_s(volume, stage) / max(1, self.workers)
            if end_s + work_s > self._clock.budget_s:
                dropped[stage] = dropped.get(stage, 0) + 1
            else:
                end_s += work_s
                kept += 1
        what = ", ".join(f"{count} × stage {stage}" for stage, count in dropped.items())
        expected = f"expected end {_time(end_s)} of {_time(self._clock.budget_s)}"
        if left and not self._clock.knows(PREDICT):
            expected = f"{_time(self._clock.left_s)} to go"
        return f"plan: {done} units done, {kept} left, {expected}; {f'no time for {what}' if what else 'time for all'}"


def stage_of(unit: Unit) -> int:
    """Give the stage of a planned unit."""
    assert unit.stages is not None  # a planned unit is of one stage
    return unit.stages[-1]


def _time(seconds: float) -> str:
    hours, rest = divmod(int(max(0.0, seconds)), 3600)
    return f"{hours} h {rest // 60:02d} min" if hours else f"{rest // 60} min {rest % 60:02d} s"
