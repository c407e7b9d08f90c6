import hashlib
import random
import sys
import threading
import time
from collections import deque
from dataclasses import replace

import numpy as np
import pytest
from engines import CPU, LoadMarked, marked
from scenes import names_in, noise

from surface_kernel import disk
from surface_kernel.inference.settings import Settings
from surface_kernel.runs import pipeline
from surface_kernel.runs.ledger import Record
from surface_kernel.runs.pipeline import Pipeline, WorkerError
from surface_kernel.runs.worker import Unit
from surface_kernel.volumes.intensity import Intensity
from surface_kernel.volumes.volume import write_lzw

SHAPE = (40, 33, 35)


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
            made.append(
                Unit(name, path, shape_zyx, tmp_path / f"{name}.raw", tmp_path / f"{name}.sum" if sums else None)
            )
        return made

    return units


def run(units, load=LoadMarked(), finish=lambda done: done, **named):  # noqa: B008 — it is frozen
    """Sends units through a pipeline; gives what became of each, by name."""
    left = deque(units)
    with Pipeline(load, "cpu", **{"device": CPU.to_mapping(), **named}) as workers:
        return {done.unit.case: done for done in workers.run(lambda before: left.popleft() if left else None, finish)}


def mask_of(unit):
    return np.fromfile(unit.mask, np.uint8).reshape(unit.shape_zyx)


def expected(voxels):
    return (Intensity().table(voxels)[voxels] > 0).astype(np.uint8)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_all_volumes_come_out_whoever_predicts_them(make, workers):
    volumes = {str(seed): noise((*SHAPE[:2], 30 + seed), seed) for seed in range(7)}
    units = make(volumes)
    random.Random(workers).shuffle(units)
    tiles = []
    found = run(units, workers=workers, threads=1, on_tiles=tiles.append)
    assert set(found) == set(volumes)
    for unit in units:
        assert found[unit.case].error == ""
        assert found[unit.case].variance > 0
        np.testing.assert_array_equal(mask_of(unit), expected(volumes[unit.case]))
    assert sum(tiles) == 7 * 2 * 2 * 2 - 12  # two tiles along z and y; along x from 33 voxels on


def test_the_first_volume_settles_how_the_networks_run_and_everybody_is_told(make):
    ready = []
    found = run(make({"a": noise(SHAPE), "b": noise(SHAPE, 1)}), device=None, workers=2, on_ready=ready.append)
    assert [done.error for done in found.values()] == ["", ""]
    (told,) = ready
    assert told.tile_s > 0
    assert told.trials[0].startswith("float32, contiguous, batch 1: ")
    assert told.grid(SHAPE).tile_zyx == (32, 32, 32)
    assert told.seconds(told.grid(SHAPE)) == pytest.approx(told.tile_s * told.grid(SHAPE).tiles)
    again = []
    run(make({"c": noise(SHAPE)}), device=told.device, on_ready=again.append)
    assert (again[0].device, again[0].trials, again[0].tile_s) == (told.device, (), 0.0)


def test_stages_may_be_run_one_after_the_other(make):
    load = LoadMarked(settings=Settings(views=("none", "x", "zy"), threshold=0.5, dust_voxels=0))
    (whole,) = make({"a": noise(SHAPE)}, sums=True)
    run([whole], load)
    at_once = whole.mask.read_bytes(), whole.sums.read_bytes()
    earlier = None
    for stage in range(3):
        run([Unit("a", whole.path, SHAPE, whole.mask, whole.sums, (stage,), earlier)], load)
        earlier = whole.sums, disk.checksum(whole.sums)
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
    units[2] = Unit("c", units[2].path, (1, 2, 3), units[2].mask)
    found = run(units)
    assert found["a"].error == f"{tmp_path}/a.tif: found no such file, wanted a multi-page grey uint8 TIFF, (z, y, x)"
    assert found["b"].error == ""
    assert found["c"].error == f"{tmp_path}/c.tif: found {SHAPE}, wanted (1, 2, 3) as its header says"


def test_without_any_volume_that_can_be_read_there_is_an_end(make):
    found = run(make({"a": None, "b": None}), device=None)
    assert all("found no such file" in done.error for done in found.values())


def test_workers_that_die_again_and_again_are_given_up(make, monkeypatch):
    monkeypatch.setattr(pipeline, "RESTARTS", 3)
    units, told = make({str(number): marked(SHAPE, number) for number in range(9)}), []
    found = run(units, LoadMarked("die"), on_trouble=told.append)
    assert len(found) == 4
    assert {done.error for done in found.values()} == {"the worker died: SIGKILL"}
    assert all(done.again for done in found.values())
    assert told == ["a worker died: SIGKILL"] * 4 + ["no worker is left, 3 having been started in place of others"]


@pytest.mark.parametrize(
    ("deed", "error", "loads"),
    [
        ("never load", "ValueError: the weights are bad", 1),
        ("die at once", r"found a worker that died while it loaded \(SIGKILL\)", 2),  # one may have died of its volume
    ],
)
def test_workers_that_cannot_begin_are_an_error_at_once(make, tmp_path, deed, error, loads):
    (tmp_path / "loads").mkdir()
    with pytest.raises(WorkerError, match=error):
        run(make({name: noise(SHAPE) for name in "abc"}), LoadMarked(deed, tmp_path / "loads"), device=None)
    assert len(names_in(tmp_path / "loads")) == loads


def test_a_worker_that_hangs_is_killed_and_its_volume_named(make, monkeypatch):
    monkeypatch.setattr(pipeline, "SILENCE_S", 1.0)
    monkeypatch.setattr(pipeline, "_SILENCES", 1)
    found = run(make({"a": noise(SHAPE), "bad": marked(SHAPE), "c": noise(SHAPE, 2)}), LoadMarked("hang"))
    failed = {name: done.error for name, done in found.items() if done.error}
    assert failed.pop("bad") == "the worker died: no sign of life for 1 s"
    assert len(found) == 3
    assert len(failed) <= 1


def test_a_device_that_cannot_be_had_as_told_is_an_error(make):
    told = {**CPU.to_mapping(), "name": "cuda:7"}
    units = deque(make({"a": noise(SHAPE)}))
    with (
        Pipeline(LoadMarked(), None, device=told) as workers,
        pytest.raises(WorkerError, match=r"found no way to run as told, .*cuda:7.*, wanted the same device"),
    ):
        list(workers.run(lambda before: units.popleft() if units else None, lambda done: done))


def test_when_it_must_not_go_on_workers_are_killed_and_what_was_finished_counts(make):
    seen = []
    with Pipeline(LoadMarked("hang"), "cpu", device=CPU.to_mapping()) as workers:
        units = deque(make({"a": noise(SHAPE), "b": noise(SHAPE, 1), "bad": marked(SHAPE), "c": noise(SHAPE, 2)}))
        began_s = time.monotonic()
        for done in workers.run(
            lambda before: units.popleft() if units else None,
            lambda done: done.unit.case,
            go_on=lambda: len(seen) < 2 and time.monotonic() - began_s < 60,
        ):
            seen.append(done)
        assert workers.workers == 0
    assert sorted(seen) == ["a", "b"]


def test_whoever_is_told_of_a_failure_decides_whether_it_is_finished(make):
    units = make({"a": noise(SHAPE), "b": None})
    received = []
    found = deque(units)
    with Pipeline(LoadMarked(), "cpu", device=CPU.to_mapping()) as workers:
        finished = list(
            workers.run(
                lambda before: found.popleft() if found else None,
                lambda done: done.unit.case,
                lambda done: received.append(done) or not done.error,
            )
        )
    assert finished == ["a"]
    assert {done.unit.case: bool(done.error) for done in received} == {"a": False, "b": True}
    assert all(done.took_s > 0 for done in received)


def test_a_unit_on_record_is_whole_and_says_of_which_image(make, tmp_path):
    (unit,) = make({"a": noise(SHAPE)}, sums=True)
    unit = replace(unit, stages=(0,), record=tmp_path / "a.json")
    found = run([unit], LoadMarked(settings=Settings(views=("none", "x"), threshold=0.5, dust_voxels=0)))["a"]
    record = Record.from_bytes((tmp_path / "a.json").read_bytes())
    assert (record.case, record.stage, record.sums_crc32) == ("a", 0, disk.checksum(unit.sums))
    assert record.image_sha256 == hashlib.sha256(unit.path.read_bytes()).hexdigest() == found.image_sha256
    assert names_in(tmp_path) == ["a.json", "a.raw", "a.sum", "a.tif"]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda unit: replace(unit, image_sha256="0" * 64), "a.tif: found another image than the stages before had"),
        (lambda unit: replace(unit, earlier=(unit.sums, 7)), "a.sum: found other sums than were put on record"),
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


def test_what_cannot_be_finished_is_told_of_its_volume(make):
    def finish(done):
        if done.unit.case == "b" and not done.error:
            raise OSError(28, "No space left on device")
        return done

    found = run(make({name: noise(SHAPE) for name in "abc"}), finish=finish)
    assert {name: done.error for name, done in found.items()} == {
        "a": "",
        "b": "OSError: [Errno 28] No space left on device",
        "c": "",
    }


def test_only_so_much_is_under_way_at_a_time(make):
    """Finishing stands still: no more is predicted than what waits for it and what the worker has."""
    units, taken, free = deque(make({str(number): noise((3, 4, 5)) for number in range(20)})), [], threading.Event()

    def take(before):
        assert len(before) < pipeline.UNITS_AHEAD
        if not units:
            return None
        taken.append(units.popleft())
        return taken[-1]

    def finish(done):
        assert free.wait(30)
        return done

    with Pipeline(LoadMarked(), "cpu", device=CPU.to_mapping()) as workers:
        threading.Timer(1.5, lambda: (counts.append(len(taken)), free.set())).start()
        counts = []
        assert len(list(workers.run(take, finish))) == 20
    assert counts[0] <= pipeline.UNITS_AHEAD + pipeline.FINISHING


def test_when_nothing_fits_any_more_the_rest_is_left(make):
    units = deque(make({str(number): noise((3, 4, 5)) for number in range(5)}))
    with Pipeline(LoadMarked(), "cpu", device=CPU.to_mapping()) as workers:
        found = list(workers.run(lambda before: units.popleft() if len(units) > 2 else None, lambda done: done))
    assert len(found) == 3
    assert len(units) == 2


def test_whoever_hands_out_has_not_imported_torch():
    from scenes import run_python

    done = run_python("import sys, surface_kernel.runs.pipeline\nprint('torch' in sys.modules, 'numba' in sys.modules)")
    assert done.stdout.split() == ["False", "False"], done.stderr
    assert "torch" in sys.modules  # here it is, so the check above means something
