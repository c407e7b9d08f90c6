"""The n-th write goes wrong: nothing corrupt has a final name, the zip is valid, and a second start mends it."""

import json
import os
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
from broken_disk import KINDS, BrokenDisk
from engines import LoadMarked, LoadOnBrokenDisk
from masks import mask_settings
from scenes import ROOT, names_in, noise
from worlds import World, masks_in

from surface_kernel.inference.settings import Settings
from surface_kernel.runs import competition
from surface_kernel.runs.records import KeptMask, UnitRecord

VIEWS = ("none", "x")
SETTINGS = Settings(views=VIEWS, mask=mask_settings())
IMAGES = {"a": noise((20, 30, 30), 1), "b": noise((20, 30, 30), 2)}
NEVER = 10**9


@pytest.fixture(scope="module")
def world(tmp_path_factory, weights_once):
    return World.make(tmp_path_factory.mktemp("writes"), IMAGES, [weights_once], views=list(VIEWS))


@pytest.fixture(scope="module")
def wanted(world):
    """The zip of a run in which nothing goes wrong, and every mask's stages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(competition, "LoadEngine", lambda files, settings: LoadMarked(settings=SETTINGS))
        assert world.run() == 0
    stages = {case: {0: np.zeros_like(image)} for case, image in IMAGES.items()}
    for case, mask in masks_in(world.zip).items():
        stages[case][1] = stages[case][2] = mask  # the network's logits are those of its input, whatever the view
    return world.digest, stages


def start_over(world):
    for folder in (world.out, world.scratch):
        shutil.rmtree(folder, ignore_errors=True)


def check(world, wanted, code):
    """Whatever went wrong, what has a final name is whole."""
    digest, stages = wanted
    masks = masks_in(world.zip)
    assert set(masks) == set(IMAGES)
    for case, mask in masks.items():
        assert any(np.array_equal(mask, stages[case][stage]) for stage in stages[case])
    assert set(names_in(world.out)) <= {"submission.zip", "run_report.json", "run_report.txt"}
    if (world.out / "run_report.json").exists():
        assert world.report()["verdict"] == ("complete" if code == 0 else "degraded")
    if code == 0:
        assert world.digest == digest
    for path in world.ledger.glob("*.json") if world.ledger else ():
        if path.name == "run.json":
            json.loads(path.read_text())
        elif path.name.endswith("kept.json"):
            KeptMask.from_bytes(path.read_bytes())
        else:
            UnitRecord.from_bytes(path.read_bytes())


def points(count, long):
    """Gives which write goes wrong, and how: every one in every way, or in the short form some of them in turn."""
    if long:
        return [(nth, kind) for nth in range(1, count + 1) for kind in KINDS]
    return [
        (nth, KINDS[nth % 2 if turn % 6 else 2]) for turn, nth in enumerate(range(1, count + 1, max(1, count // 5)))
    ]


def again(world, wanted, patch):
    """Starts it again on a disk that is whole."""
    patch.setattr(competition, "LoadEngine", lambda files, settings: LoadMarked(settings=SETTINGS))
    assert world.run() == 0
    assert world.digest == wanted[0]


def test_in_the_first_process(world, wanted, quiet_logging, monkeypatch, long, tally):
    monkeypatch.setattr(competition, "LoadEngine", lambda files, settings: LoadMarked(settings=SETTINGS))
    start_over(world)
    with BrokenDisk(world.earlier.parent, NEVER, "error") as whole:
        assert world.run() == 0
    assert whole.seen > 20
    for nth, kind in points(whole.seen, long):
        start_over(world)
        with BrokenDisk(world.earlier.parent, nth, kind):
            code = world.run()
        assert code in (0, 1, 3), (nth, kind)
        check(world, wanted, code)
        if long:
            again(world, wanted, monkeypatch)
        tally("the n-th write fails, first process")


def test_in_a_worker(world, wanted, quiet_logging, monkeypatch, tmp_path, long, tally):
    def load(nth, kind):
        broken = world.earlier.parent, nth, kind, tmp_path / "count", SETTINGS
        monkeypatch.setattr(competition, "LoadEngine", lambda files, settings: LoadOnBrokenDisk(*broken))

    start_over(world)
    load(NEVER, "error")
    assert world.run() == 0
    assert world.digest == wanted[0]
    count = int((tmp_path / "count").read_text())
    assert count > 20
    for nth, kind in points(count, long):
        start_over(world)
        load(nth, kind)
        code = world.run()
        # What fails once is tried again, so nothing is missing in the end.
        assert code == 0, (nth, kind)
        check(world, wanted, code)
        tally("the n-th write fails, a worker")


@pytest.mark.parametrize("room", [0, 100_000, 300_000])
def test_a_disk_that_is_and_stays_full(world, wanted, quiet_logging, monkeypatch, room):
    """From the first unit on there is no more room than this on the scratch disk."""
    monkeypatch.setattr(competition, "LoadEngine", lambda files, settings: LoadMarked(settings=SETTINGS))
    monkeypatch.setattr("surface_kernel.disk.free_bytes", lambda folder: room)
    start_over(world)
    code = world.run()
    assert code == 3
    check(world, wanted, code)
    reasons = {volume["reason"].partition(":")[0] for volume in world.report()["volumes"].values()}
    assert reasons == {"no room on the scratch disk"}


FULL = """
import sys
from engines import LoadMarked
from masks import mask_settings
from surface_kernel.__main__ import main
from surface_kernel.inference.settings import Settings
from surface_kernel.runs import competition, plan
plan._SPARE_BYTES = 0  # the guard that keeps a run off the last of a disk
plan._DISK_SHARE = 1.0
SETTINGS = Settings(views=("none", "x"), mask=mask_settings())
competition.LoadEngine = lambda files, settings: LoadMarked(settings=SETTINGS)
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""


def test_a_real_disk_that_is_full(world, wanted, tmp_path, long, tally):
    """Scratch is a small file system of its own; in the short form one of a size at which some units succeed."""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no file system of one's own can be mounted here: unshare -rm is refused")
    (tmp_path / "full.py").write_text(FULL)
    codes = []
    for size_kib in range(16, 560, 32) if long else (200,):
        start_over(world)
        world.scratch.mkdir()
        mount = f"mount -t tmpfs -o size={size_kib}k tmpfs {world.scratch}"
        words = " ".join(map(shlex.quote, [sys.executable, str(tmp_path / "full.py"), *world.words()]))
        environment = os.environ | {"PYTHONPATH": f"{ROOT / 'kernel'}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            ["unshare", "-rm", "sh", "-c", f"{mount} && exec {words}"],
            env=environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        codes.append(done.returncode)
        assert done.returncode in (0, 1, 3), done.stdout + done.stderr
        check(world, wanted, done.returncode)
        tally("a scratch disk that is really full")
    assert 3 in codes
