import hashlib
import random
import signal
import sys
import threading
import time
from collections import deque
from dataclasses import replace

import numpy as np
import pytest
from engines import CPU, LoadMarked, marked
from masks import mask_settings
from scenes import names_in, noise, run_python

from surface_kernel import disk
from surface_kernel.inference.settings import Settings
from surface_kernel.networks.device import DeviceRequest
from surface_kernel.runs import pipeline, worker_process
from surface_kernel.runs.messages import FINISHING, UNITS_AHEAD, StoredSums, Unit
from surface_kernel.runs.pipeline import Pipeline, UnitHandler, WorkerError
from surface_kernel.runs.records import UnitRecord
from surface_kernel.volumes.image_files import write_lzw
from surface_kernel.volumes.intensity import Intensity

SHAPE = (40, 33, 35)
AGREED = DeviceRequest(name="cpu", agreed=CPU)


class Handler(UnitHandler):
    """Hands out units in their order, and remembers what it hears; a test replaces what it wants otherwise."""

    def __init__(self, units, **changes):
        self.left, self.done, self.ready, self.workers = deque(units), [], [], []
        self.tiles, self.trouble = 0, []
        for name, method in changes.items():
            setattr(self, name, method)

    def next_unit(self, queued):
        return self.left.popleft() if self.left else None

    def on_done(self, done):
        self.done.append(done)
        return True

    def finish(self, done):
        return done

    def may_continue(self):
        return True

    def on_workers(self, count):
        self.workers.append(count)

    def on_ready(self, ready):
        self.ready.append(ready)

    def on_tiles(self, count):
        self.tiles += count

    def on_trouble(self, line):
        self.trouble.append(line)


@pytest.fixture
def make(tmp_path):
    """Writes volumes, and gives a unit for each; what is None is not written."""

    def units(volumes, sums=False):
        made = []
        for name, voxels in volumes.items():
            path = tmp_path / f"{name}.tif"
            if voxels is not None:
                write_lzw(path, voxels)
            shape_zyx = SHAPE if voxels is None else voxels.shape
            files = {"mask": tmp_path / f"{name}.raw", "sums": tmp_path / f"{name}.sum" if sums else None}
            made.append(Unit(case=name, path=path, shape_zyx=shape_zyx, **files))
        return made

    return units


def run(units, load=LoadMarked(), device=AGREED, **named):  # noqa: B008 — it is frozen
    """Sends units, or those of a handler, through a pipeline; returns what became of each, by name."""
    handler = units if isinstance(units, Handler) else Handler(units)
    with Pipeline(load, handler, device=device, **named) as workers:
        return {done.unit.case: done for done in workers.run()}


def mask_of(unit):
    return np.fromfile(unit.mask, np.uint8).reshape(unit.shape_zyx)


def expected(voxels):
    return (Intensity().table(voxels)[voxels] > 0).astype(np.uint8)


@pytest.mark.parametrize(
    "workers", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(3, marks=pytest.mark.slow)]
)
def test_all_volumes_come_out_whoever_predicts_them(make, workers):
    volumes = {str(seed): noise((*SHAPE[:2], 30 + seed), seed) for seed in range(7)}
    units = make(volumes)
    random.Random(workers).shuffle(units)
    handler = Handler(units)
    found = run(handler, workers=workers, threads=1)
    assert set(found) == set(volumes)
    for unit in units:
        assert found[unit.case].error == ""
        assert found[unit.case].variance > 0
        np.testing.assert_array_equal(mask_of(unit), expected(volumes[unit.case]))
    assert handler.workers == [workers]
    assert handler.tiles == 7 * 2 * 2 * 2 - 12  # two tiles along z and y; along x from 33 voxels on


def test_the_first_volume_settles_how_the_networks_run_for_all_workers(make):
    handler = Handler(make({"a": noise(SHAPE), "b": noise(SHAPE, 1)}))
    found = run(handler, device=DeviceRequest(name="cpu"), workers=2)
    assert [done.error for done in found.values()] == ["", ""]
    (ready,) = handler.ready
    assert ready.tile_s > 0
    assert ready.trials[0].startswith("float32, contiguous, batch 1: ")
    assert ready.grid(SHAPE).tile_zyx == (32, 32, 32)
    assert ready.expect_s(ready.grid(SHAPE)) == pytest.approx(ready.tile_s * ready.grid(SHAPE).tiles)
    later = Handler(make({"c": noise(SHAPE)}))
    run(later, device=DeviceRequest(name="cpu", agreed=ready.device))
    (again,) = later.ready
    assert (again.device, again.trials, again.tile_s) == (ready.device, (), 0.0)


def test_stages_may_be_run_one_after_the_other(make):
    load = LoadMarked(settings=Settings(views=("none", "x", "zy"), mask=mask_settings(threshold=0.5)))
    (whole,) = make({"a": noise(SHAPE)}, sums=True)
    run([whole], load)
    at_once = whole.mask.read_bytes(), whole.sums.read_bytes()
    earlier = None
    for stage in range(3):
        run([replace(whole, stages=(stage,), earlier=earlier)], load)
        earlier = StoredSums(path=whole.sums, crc32=disk.checksum(whole.sums))
    assert (whole.mask.read_bytes(), whole.sums.read_bytes()) == at_once


@pytest.mark.parametrize(
    ("deed", "error"),
    [
        ("fail", "RuntimeError: the network failed"),
        ("run out", "OutOfMemoryError: CUDA out of memory"),
        ("die", "the worker died: SIGKILL"),
    ],
)
def test_one_volume_that_goes_wrong_hurts_nobody(make, deed, error):
    volumes = {"a": noise(SHAPE), "bad": marked(SHAPE), "c": noise(SHAPE, 2), "d": noise(SHAPE, 3)}
    units = make(volumes)
    found = run(units, LoadMarked(deed))
    failed = {name: done.error for name, done in found.items() if done.error}
    if deed == "die":  # whatever else the worker was at when it died is lost with it; no more than that
        assert failed.pop("bad") == error
        assert len(found) == 4
        assert len(failed) <= 1
        assert set(failed.values()) <= {error}
    else:
        assert failed == {"bad": error}
    for unit in units:
        if not found[unit.case].error:
            np.testing.assert_array_equal(mask_of(unit), expected(volumes[unit.case]))


def test_volumes_that_cannot_be_read_are_named(make, tmp_path):
    units = make({"a": None, "b": noise(SHAPE), "c": noise(SHAPE)})
    units[2] = replace(units[2], shape_zyx=(1, 2, 3))
    found = run(units)
    assert found["a"].error == f"{tmp_path}/a.tif: no such file; expected a multi-page grey uint8 TIFF, (z, y, x)"
    assert found["b"].error == ""
    assert found["c"].error == f"{tmp_path}/c.tif: expected shape (1, 2, 3) as the header says, got {SHAPE}"


def test_without_any_volume_that_can_be_read_there_is_an_end(make):
    found = run(make({"a": None, "b": None}), device=DeviceRequest(name="cpu"))
    assert all("no such file" in done.error for done in found.values())


@pytest.mark.parametrize(
    ("counts", "error", "trained_tile"),
    [
        ((4, 5), "the worker died: SIGKILL, for its memory", True),
        ((4, 4), "the worker died: SIGKILL", False),  # somebody else's doing
        ((None, None), "the worker died: SIGKILL, perhaps for its memory", True),  # the system does not say
    ],
)
def test_who_is_killed_for_memory_is_tried_again_with_the_trained_tile(make, monkeypatch, counts, error, trained_tile):
    counted = iter(counts)
    monkeypatch.setattr(pipeline, "killed_for_memory", lambda: next(counted))
    found = run(make({"bad": marked(SHAPE)}), LoadMarked("die"))["bad"]
    assert (found.error, found.again, found.unit.trained_tile) == (error, True, trained_tile)


def test_workers_that_die_again_and_again_are_given_up(make, monkeypatch):
    monkeypatch.setattr(pipeline, "RESTARTS", 3)
    handler = Handler(make({str(number): marked(SHAPE, number) for number in range(9)}))
    found = run(handler, LoadMarked("die"))
    assert len(found) == 4
    assert {done.error for done in found.values()} == {"the worker died: SIGKILL"}
    assert all(done.again for done in found.values())
    assert handler.trouble == ["a worker died: SIGKILL"] * 4 + ["no worker is left after 3 restarts"]
    assert handler.workers == [1, 1, 1, 1, 0]


@pytest.mark.parametrize(
    ("deed", "error", "loads"),
    [
        ("never load", "ValueError: the weights are bad", 1),
        (
            "die at once",
            r"workers: expected one to load its engine, got SIGKILL each time",
            2,
        ),  # one may have died of its volume
    ],
)
def test_workers_that_cannot_begin_are_an_error_at_once(make, tmp_path, deed, error, loads):
    (tmp_path / "loads").mkdir()
    with pytest.raises(WorkerError, match=error):
        run(
            make({name: noise(SHAPE) for name in "abc"}),
            LoadMarked(deed, tmp_path / "loads"),
            DeviceRequest(name="cpu"),
        )
    assert len(names_in(tmp_path / "loads")) == loads


def test_a_worker_that_hangs_is_killed_and_its_volume_named(make, monkeypatch):
    monkeypatch.setattr(worker_process, "SILENCE_S", 3.0)  # a busy machine is silent for a second
    monkeypatch.setattr(worker_process, "_SILENCES", 1)
    found = run(make({"a": noise(SHAPE), "bad": marked(SHAPE), "c": noise(SHAPE, 2)}), LoadMarked("hang"))
    failed = {name: done.error for name, done in found.items() if done.error}
    assert failed.pop("bad") == "the worker died: no message for 3 s"
    assert len(found) == 3
    assert len(failed) <= 1


def test_a_device_that_cannot_be_had_as_agreed_is_an_error(make):
    agreed = DeviceRequest(agreed=replace(CPU, name="cuda:7"))
    with pytest.raises(WorkerError, match=r"device: expected to run as agreed on cuda:7, float32, .*, got "):
        run(make({"a": noise(SHAPE)}), device=agreed)


def test_when_it_must_not_go_on_workers_are_killed_and_what_was_finished_counts(make, tmp_path):
    seen, began_s = [], time.monotonic()
    handler = Handler(
        make({"a": noise(SHAPE), "b": noise(SHAPE, 1), "bad": marked(SHAPE), "c": noise(SHAPE, 2)}),
        finish=lambda done: done.unit.case,
        may_continue=lambda: len(seen) < 2 and time.monotonic() - began_s < 60,
    )
    with Pipeline(LoadMarked("hang"), handler, device=AGREED) as workers:
        processes = [worker.process for worker in workers._workers]
        for done in workers.run():
            seen.append(done)
        assert handler.workers == [1, 0]
        assert [process.exitcode for process in processes] == [-signal.SIGKILL]
    assert sorted(seen) == ["a", "b"]
    assert not list(tmp_path.glob("*.partial*"))  # a later start would take "bad" for one that had killed its worker


def test_the_handler_decides_whether_a_failure_is_finished(make):
    received = []
    handler = Handler(
        make({"a": noise(SHAPE), "b": None}), on_done=lambda done: received.append(done) or not done.error
    )
    assert list(run(handler)) == ["a"]
    assert {done.unit.case: bool(done.error) for done in received} == {"a": False, "b": True}
    assert all(done.took_s > 0 for done in received)


def test_a_unit_with_a_record_is_complete_and_says_of_which_image(make, tmp_path):
    (unit,) = make({"a": noise(SHAPE)}, sums=True)
    unit = replace(unit, stages=(0,), record=tmp_path / "a.json")
    found = run([unit], LoadMarked(settings=Settings(views=("none", "x"), mask=mask_settings(threshold=0.5))))["a"]
    record = UnitRecord.from_bytes((tmp_path / "a.json").read_bytes())
    assert (record.case, record.stage, record.sums_crc32) == ("a", 0, disk.checksum(unit.sums))
    assert record.image_sha256 == hashlib.sha256(unit.path.read_bytes()).hexdigest() == found.image_sha256
    assert names_in(tmp_path) == ["a.json", "a.raw", "a.sum", "a.tif"]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (
            lambda unit: replace(unit, image_sha256="0" * 64),
            "a.tif: expected the image of the stages before",
        ),
        (
            lambda unit: replace(unit, earlier=StoredSums(path=unit.sums, crc32=7)),
            "a.sum: expected sums of CRC-32 7 as recorded, got ",
        ),
        (lambda unit: replace(unit, sums=unit.sums.parent / "no" / "a"), "FileNotFoundError"),
    ],
)
def test_what_does_not_belong_together_is_not_mixed(make, tmp_path, change, error):
    (unit,) = make({"a": noise(SHAPE)}, sums=True)
    unit = replace(unit, stages=(0,), record=tmp_path / "a.json")
    run([unit])
    before = {name: (tmp_path / name).read_bytes() for name in names_in(tmp_path)}
    found = run([change(replace(unit, stages=(1,), record=tmp_path / "b.json"))])["a"]
    assert error in found.error
    assert found.again is ("FileNotFound" in error)
    assert {name: (tmp_path / name).read_bytes() for name in names_in(tmp_path)} == before


def test_what_cannot_be_finished_is_an_error_of_its_volume(make):
    def finish(done):
        if done.unit.case == "b" and not done.error:
            raise OSError(28, "No space left on device")
        return done

    found = run(Handler(make({name: noise(SHAPE) for name in "abc"}), finish=finish))
    assert {name: done.error for name, done in found.items()} == {
        "a": "",
        "b": "OSError: [Errno 28] No space left on device",
        "c": "",
    }


def test_only_so_much_is_under_way_at_a_time(make):
    """Finishing stands still: no more is predicted than what waits for it and what the worker has."""
    units, taken, free = deque(make({str(number): noise((3, 4, 5)) for number in range(20)})), [], threading.Event()

    def next_unit(queued):
        assert len(queued) < UNITS_AHEAD
        if not units:
            return None
        taken.append(units.popleft())
        return taken[-1]

    def finish(done):
        assert free.wait(30)
        return done

    counts = []
    threading.Timer(1.5, lambda: (counts.append(len(taken)), free.set())).start()
    assert len(run(Handler([], next_unit=next_unit, finish=finish))) == 20
    assert counts[0] <= UNITS_AHEAD + FINISHING


def test_when_nothing_fits_any_more_the_rest_is_left(make):
    units = deque(make({str(number): noise((3, 4, 5)) for number in range(5)}))
    found = run(Handler([], next_unit=lambda queued: units.popleft() if len(units) > 2 else None))
    assert len(found) == 3
    assert len(units) == 2


def test_whoever_hands_out_has_not_imported_torch():
    done = run_python("import sys, surface_kernel.runs.pipeline\nprint('torch' in sys.modules, 'numba' in sys.modules)")
    assert done.stdout.split() == ["False", "False"], done.stderr
    assert "torch" in sys.modules  # here it is, so the check above means something
