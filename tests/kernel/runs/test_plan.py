from pathlib import Path

import pytest
from engines import CPU
from scenes import names_in, run_python

from surface_kernel.runs.clock import Clock
from surface_kernel.runs.ledger import Ledger
from surface_kernel.runs.messages import Done, StoredSums
from surface_kernel.runs.plan import PREDICT, Plan
from surface_kernel.runs.records import KeptMask, RunConditions, UnitRecord
from surface_kernel.runs.report import VolumeProgress

SHAPE = (10, 10, 10)  # 1000 voxels: 4000 bytes of sums
PLENTY = 10**12


class World:
    """A plan over a ledger in a folder, a time that is set, and a disk with so much room."""

    def __init__(self, folder, cases="abc", passes=(1, 2), budget_s=1000.0):
        self.now_s, self.free_bytes = 0.0, PLENTY
        self.ledger = Ledger(folder, {})
        self.ledger.set_conditions(RunConditions(device=CPU))
        self.clock = Clock(budget_s, lambda: self.now_s)
        volumes = [VolumeProgress(case=case, path=Path(f"{case}.tif"), shape_zyx=SHAPE) for case in cases]
        self.plan = Plan(
            volumes,
            passes=passes,
            ledger=self.ledger,
            clock=self.clock,
            free_bytes=lambda: self.free_bytes,
            clear_unscanned=True,
        )
        self.known(0.001)

    def known(self, seconds):
        """Lets a volume and pass have taken so long."""
        self.clock.learn(PREDICT, 1000, seconds)

    def take(self, *before):
        return self.plan.next_unit(before)

    def done(self, unit, seconds=0.001, **changes):
        right = {"seconds": seconds, "variance": 0.1, "image_sha256": "0" * 64, "took_s": seconds}
        right["sums_crc32"] = 7 if unit.sums else None
        return self.plan.on_done(Done(unit=unit, **(changes or right)))


@pytest.fixture
def world(tmp_path):
    made = []

    def make(**named):
        made.append(World(tmp_path / f"scratch{len(made)}", **named))
        return made[-1]

    yield make
    for each in made:
        each.ledger.close()


def kept(stage):
    return KeptMask(stage=stage, sha256="0" * 64, foreground=0.25, unscanned=0.125)


def named(unit):
    return unit and (unit.case, unit.stages[0])


def all_in_order(world):
    """Does unit after unit until there is none."""
    found = []
    while unit := world.take():
        found.append(named(unit))
        world.done(unit)
        world.plan.on_written(unit.case, kept(unit.stages[0]))
    return found


def test_every_volume_gets_a_stage_before_any_gets_the_next(world):
    assert all_in_order(world(passes=(1, 2, 1))) == [(case, stage) for stage in range(3) for case in "abc"]


def test_a_stage_waits_for_the_one_before(world):
    scene = world(cases="a")
    first = scene.take()
    assert scene.take(first) is None
    scene.done(first)
    assert named(scene.take()) == ("a", 1)


def test_units_name_their_files(world):
    scene = world(cases="a")
    first = scene.take()
    folder = scene.ledger.folder
    kinds = "mask", "sums", "scanned", "json"
    assert (first.mask, first.sums, first.scanned, first.record) == tuple(folder / f"a.0.{kind}" for kind in kinds)
    assert (first.earlier, first.image_sha256) == (None, None)
    scene.done(first)
    last = scene.take()
    assert (last.mask, last.sums) == (folder / "a.1.mask", None)  # nobody adds to it any more
    assert (last.earlier, last.image_sha256) == (StoredSums(path=folder / "a.0.sums", crc32=7), "0" * 64)


def test_a_failure_that_may_pass_is_tried_again_last_and_alone(world):
    scene = world()
    first, second = scene.take(), scene.take()
    assert not scene.done(first, error="the worker died: SIGKILL", again=True)
    third = scene.take(second)
    assert named(third) == ("c", 0)
    assert scene.take(second, third) is None  # a is left of this stage, and may be the end of a worker
    scene.done(second)
    scene.done(third)
    again = scene.take()
    assert named(again) == ("a", 0)
    assert scene.take(again) is None
    assert named(scene.take()) == ("b", 1)  # another worker does not wait for it
    scene.done(again)
    assert scene.plan.volumes["a"].notes == ["stage 0 was tried again: the worker died: SIGKILL"]


def test_a_failure_that_comes_back_or_cannot_pass_closes_a_volume(world):
    scene = world(cases="ab")
    scene.done(scene.take(), error="page 3: expected it to be decodable")
    scene.done(scene.take(), error="no space", again=True)
    scene.done(scene.take(), error="no space", again=True)
    assert scene.take() is None
    reports = scene.plan.reports()
    assert [(report.status, report.reason) for report in reports] == [
        ("zeros", "page 3: expected it to be decodable"),
        ("zeros", "no space"),
    ]
    assert not scene.plan.resumable


def test_a_failure_of_a_later_stage_leaves_the_earlier_ones(world):
    scene = world(cases="a")
    assert scene.done(scene.take())
    scene.plan.on_written("a", kept(0))
    scene.done(scene.take(), error="bad")
    (report,) = scene.plan.reports()
    assert (report.status, report.stages, report.foreground, report.reason) == ("partly", 1, 0.25, "bad")


def test_what_would_not_end_in_time_is_not_begun(world):
    scene = world(budget_s=1000.0)
    for _ in range(8):
        scene.known(100.0)
    closing_s = scene.plan.closing_s
    scene.now_s = 1000 - closing_s - 126  # a unit is taken to need 125 s
    first = scene.take()
    assert named(first) == ("a", 0)
    assert scene.take(first) is None
    scene.now_s += 2
    assert scene.take() is None
    assert scene.plan.may_continue()
    scene.now_s = 1000 - closing_s + 0.1
    assert not scene.plan.may_continue()


def test_a_smaller_volume_may_fit_where_a_larger_one_does_not(world):
    scene = world(cases="ab")
    scene.plan.volumes["a"].shape_zyx = (100, 10, 10)
    for _ in range(8):
        scene.known(100.0)
    scene.now_s = 1000 - scene.plan.closing_s - 200
    assert named(scene.take()) == ("b", 0)


def test_until_costs_are_known_a_worker_gets_one_unit(world):
    scene = world()
    scene.clock = scene.plan._clock = Clock(1000.0, lambda: 0.0)
    first = scene.take()
    assert first
    assert scene.take(first) is None
    assert scene.take()  # another worker


def test_without_room_for_sums_a_volume_has_one_stage(world):
    scene = world(cases="ab")
    scene.plan.quota_bytes = 4000
    first, second = scene.take(), scene.take()
    assert (first.sums is None, second.sums is None) == (False, True)
    scene.done(first)
    scene.done(second)
    assert named(scene.take()) == ("a", 1)
    assert scene.take() is None
    assert scene.plan.reports()[1].reason == "no room on the scratch disk for its sums"


def test_room_is_given_back_by_the_last_stage_and_by_failures(world):
    scene = world(cases="ab")
    scene.plan.quota_bytes = 4000
    scene.done(scene.take(), error="bad")
    assert scene.take().sums is not None


def test_a_full_disk_keeps_units_from_being_begun(world):
    scene = world(cases="ab")
    scene.free_bytes = 0
    assert scene.take() is None
    assert "no room on the scratch disk: 0.00 GB to spare" in scene.plan.reports()[0].reason
    scene.free_bytes = PLENTY
    assert scene.take()


def test_the_quota_leaves_room_for_what_is_under_way(tmp_path):
    volumes = [VolumeProgress(case="a", path=Path("a.tif"), shape_zyx=(100, 100, 100))]
    with Ledger(tmp_path, {}) as ledger:
        (tmp_path / "b.0.sums").write_bytes(bytes(5000))
        plan = Plan(
            volumes, passes=[1, 1], ledger=ledger, clock=Clock(10), free_bytes=lambda: 10**9, clear_unscanned=True
        )
        # Seven masks, each with a bit a voxel beside it, and three copies of sums of a million voxels, and 64 MiB; of
        # the rest nine tenths. What earlier starts hold counts as theirs.
        assert plan.quota_bytes == int((10**9 + 5000) * 0.9) - 19_875_000 - (64 << 20)


def on_record(world, case, stages, sums=True):
    records = [
        UnitRecord(
            case=case,
            stage=stage,
            image_sha256="1" * 64,
            sums_crc32=9,
            seconds=2.0,
            variance=0.125,
            incidents=(f"{case}{stage}",),
        )
        for stage in range(stages)
    ]
    if sums:
        world.ledger.files(case, stages - 1)[1].write_bytes(bytes(4000))
    return records


def test_what_has_a_record_is_not_done_again(world):
    scene = world(passes=(1, 2, 1))
    records = {"a": on_record(scene, "a", 2), "b": on_record(scene, "b", 1)}
    scene.plan.resume(records, interrupted={"c"})
    assert all_in_order(scene) == [("c", 0), ("b", 1), ("c", 1), ("a", 2), ("b", 2), ("c", 2)]
    report = scene.plan.reports()[0]
    assert report.seconds == pytest.approx(4.001)
    assert report.notes == ("a0", "a1")


def test_the_suspects_of_an_earlier_end_come_last_of_their_stage(world):
    scene = world(passes=(1,))
    scene.plan.resume({}, interrupted={"a", "unknown"})
    assert all_in_order(scene) == [("b", 0), ("c", 0), ("a", 0)]


def test_without_its_sums_a_volume_cannot_continue(world):
    scene = world(cases="ab")
    scene.plan.resume({"a": on_record(scene, "a", 1, sums=False)}, interrupted=set())
    (scene.ledger.folder / "a.0.sums").write_bytes(bytes(3999))
    scene.plan.resume({"a": on_record(scene, "a", 1, sums=False)}, interrupted=set())
    assert scene.plan.volumes["a"].closed == "the sums of its stages are not on the scratch disk"
    assert named(scene.take()) == ("b", 0)


def test_sums_that_are_not_needed_any_more_are_removed(world):
    scene = world(cases="a")
    first = scene.take()
    first.sums.write_bytes(bytes(4000))
    scene.done(first)
    assert "a.0.sums" in names_in(scene.ledger.folder)
    scene.done(scene.take())
    assert "a.0.sums" not in names_in(scene.ledger.folder)


def test_the_plan_in_a_line(world):
    scene = world(budget_s=10_000.0)
    for _ in range(8):
        scene.known(1000.0)  # a unit of stage 0 is taken to need 1250 s, one of stage 1 2500
    assert scene.plan.line() == (
        "plan: 0 units done, 5 left, expected end 2 h 26 min of 2 h 46 min; no time for 1 × stage 1"
    )
    scene.plan.workers = 2
    assert scene.plan.line() == "plan: 0 units done, 6 left, expected end 1 h 33 min of 2 h 46 min; time for all"


def test_a_plan_needs_neither_workers_nor_torch():
    code = """
import sys, surface_kernel.runs.plan
print(*(f"surface_kernel.runs.{name}" in sys.modules for name in ("worker", "worker_process", "pipeline", "messages")))
print("torch" in sys.modules, "numba" in sys.modules, "multiprocessing" in sys.modules)
"""
    done = run_python(code)
    assert done.stdout.split() == ["False", "False", "False", "True", "False", "False", "False"], done.stderr
