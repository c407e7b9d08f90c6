"""kill -9 at any moment, then the same command again: it ends, with the same bytes, and hardly anything was lost."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from scenes import ROOT, noise
from worlds import World, write_weights

WORKERS = 1
VIEWS = ["none", "x", "zy"]
IMAGES = {str(seed): noise((40 + 8 * seed, 48, 48), seed) for seed in range(4)}


@pytest.fixture(scope="module")
def world(tmp_path_factory, long):
    folder, images = tmp_path_factory.mktemp("kill"), IMAGES if long else {case: IMAGES[case] for case in ("0", "1")}
    return World.make(folder, images, [write_weights(folder / "a.safetensors")], views=VIEWS)


def start(world):
    environment = os.environ | {"PYTHONPATH": str(ROOT / "kernel"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "surface_kernel", *world.words()]
    return subprocess.Popen(
        command, env=environment, process_group=0, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(engine):
    """Waits for the engine's end; gives its exit code and what it said."""
    said, _ = engine.communicate(timeout=120)
    return engine.returncode, said


def kill(engine, kind):
    """Kills the engine with all its processes, the first process alone, or one that it started."""
    if kind == "all":
        os.killpg(engine.pid, signal.SIGKILL)
    elif kind == "first":
        engine.kill()
    else:
        others = [pid for pid in members(engine.pid) if pid != engine.pid]
        if not others:
            return
        os.kill(max(others), signal.SIGKILL)  # the youngest: a worker, where there is one


def members(group):
    """Gives the processes of a group."""
    found = []
    for pid in (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()):
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(pid) == group:
                found.append(pid)
    return found


def lost(world):
    """Gives the units that were begun and are not on record."""
    if world.ledger is None:
        return set()
    names = [path.name.split(".") for path in world.ledger.iterdir()]
    units = {(parts[0], parts[1]) for parts in names if len(parts) > 2 and parts[1].isdigit()}
    on_record = {(parts[0], parts[1]) for parts in names if parts[2:] == ["json"]}
    return units - on_record


def test_whenever_it_is_killed_it_goes_on_and_ends_with_the_same_bytes(world, long, tally):
    began_s = time.monotonic()
    code, said = finish(start(world))
    whole_s = time.monotonic() - began_s
    assert code == 0, said
    wanted = world.digest
    assert world.ledger is None
    draw, kills, most_lost = random.Random(0), 0, 0
    while kills < (200 if long else 2):
        shutil.rmtree(world.out)
        complete = False
        for kind in [draw.choice(["all", "first", "one"]) for _ in range(8)] if long else ["all", "first", "one"]:
            engine = start(world)
            time.sleep(draw.uniform(0.2, whole_s))
            if engine.poll() is None:
                kill(engine, kind)
                kills += 1
            code, said = finish(engine)
            complete = code == 0
            if complete:  # it ended before, or did without the one that was killed
                break
            assert code in (-signal.SIGKILL, 70, 1) if kind == "one" else code == -signal.SIGKILL, said
            most_lost = max(most_lost, len(lost(world)))
            assert most_lost <= 2 * WORKERS
        if not complete:
            code, said = finish(start(world))
            assert code == 0, said
        assert world.digest == wanted
        assert world.report()["verdict"] == "complete"
        assert world.ledger is None
    tally("kill -9 and started again, same bytes", kills, units_lost=most_lost)
