from dataclasses import replace
from types import SimpleNamespace

import pytest
from engines import CPU, LoadMarked
from scenes import names_in, noise

from surface_kernel import disk
from surface_kernel.runs import worker_process
from surface_kernel.runs.messages import Done, Loaded, Ready, StoredSums, Unit
from surface_kernel.runs.worker_process import LOADING_SILENCE_S, SILENCE_S, WorkerProcess
from surface_kernel.volumes.image_files import write_lzw


@pytest.fixture
def worker():
    started = WorkerProcess(LoadMarked(), "cpu", threads=1, or_cpu=False)
    yield started
    started.end(at_once=True)


@pytest.fixture
def now_s(worker, monkeypatch):
    """The time as the worker's handle knows it from here on; a list, to be changed."""
    now_s = [worker_process.time.monotonic()]
    monkeypatch.setattr(worker_process, "time", SimpleNamespace(monotonic=lambda: now_s[0]))
    return now_s


@pytest.fixture
def unit(tmp_path):
    write_lzw(tmp_path / "a.tif", noise((3, 4, 5)))
    return Unit(case="a", path=tmp_path / "a.tif", shape_zyx=(3, 4, 5), mask=tmp_path / "a.raw")


def next_message(worker, kind):
    """Waits for a message of a kind."""
    while worker.connection.poll(60):
        message = worker.connection.recv()
        if isinstance(message, kind):
            return message
    raise AssertionError(f"no {kind.__name__} came")


def test_it_runs_on_the_device_that_it_is_told_first(worker, unit):
    worker.set_device(CPU)
    worker.set_device(replace(CPU, batch=1))
    worker.give(unit)
    assert next_message(worker, Loaded).gpus == 0
    assert next_message(worker, Ready).device == CPU
    assert next_message(worker, Done).unit == unit
    assert list(worker.units) == [unit]


def test_only_a_worker_with_something_to_do_can_hang(worker, unit, now_s):
    worker.loaded = worker.ready = True
    now_s[0] += 2 * SILENCE_S
    worker.kill_if_silent()
    assert worker.process.is_alive()
    worker.give(unit)
    now_s[0] += SILENCE_S
    worker.kill_if_silent()
    assert worker.process.is_alive()
    now_s[0] += 1
    worker.kill_if_silent()
    assert worker.death == "no message for 300 s"


def test_a_worker_that_is_slow_as_ever_does_not_hang(worker, unit, now_s):
    worker.loaded = worker.ready = True
    worker.give(unit)
    now_s[0] += 200
    worker.on_message()
    now_s[0] += 19 * 200
    worker.kill_if_silent()
    assert worker.process.is_alive()
    now_s[0] += 2 * 200
    worker.kill_if_silent()
    assert worker.death == "no message for 4000 s"


def test_while_it_loads_it_may_be_silent_for_longer(worker, now_s):
    now_s[0] += SILENCE_S + 1
    worker.kill_if_silent()
    assert worker.process.is_alive()
    now_s[0] += LOADING_SILENCE_S
    worker.kill_if_silent()
    assert worker.death == "no message for 1800 s"


def test_its_death_is_named_by_signal(worker):
    worker.process.terminate()
    assert worker.death == "SIGTERM"


def test_what_it_was_writing_is_removed_and_nothing_else(worker, unit, tmp_path):
    sums, record, earlier = (tmp_path / name for name in ("a.sum", "a.json", "earlier.sum"))
    unit = replace(unit, sums=sums, record=record, earlier=StoredSums(path=earlier, crc32=0))
    worker.units.append(unit)
    for path in (unit.mask, sums, record, earlier):
        disk.partial_of(path, worker.process.pid).touch()
        disk.partial_of(path, 1).touch()
    earlier.touch()
    worker.remove_partial_files()
    kept = [f"{name}.1.partial" for name in ("a.json", "a.raw", "a.sum")]
    assert names_in(tmp_path) == [*kept, "a.tif", "earlier.sum", "earlier.sum.1.partial"]


def test_laps_are_counted_from_the_first_unit_on(worker, unit, now_s):
    now_s[0] += 100
    worker.give(unit)
    now_s[0] += 3
    worker.give(unit)
    now_s[0] += 4
    assert worker.lap_s() == pytest.approx(7)
    now_s[0] += 5
    assert worker.lap_s() == pytest.approx(5)
