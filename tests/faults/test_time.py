"""Budgets that do not suffice, in simulated time: a whole submission exists before the deadline, whatever happens."""

import itertools
import re

import numpy as np
import pytest
from simulation import Time, simulated
from worlds import World, masks_in

SIDE = 4
VOXELS = SIDE**3
VOLUMES, STAGES = 12, 3
UNIT_S = 100.0  # a volume and pass


@pytest.fixture(scope="module")
def world(tmp_path_factory, weights_once):
    folder = tmp_path_factory.mktemp("time")
    image = np.ones((SIDE, SIDE, SIDE), np.uint8)
    images = {f"{number:02d}": image for number in range(VOLUMES)}
    return World.make(folder, images, [weights_once], views=["none", "x", "y"])


def run(world, tmp_path, time, budget_s, workers=1):
    """Runs it into new folders; gives its exit code and the stages of every volume."""
    world.out, world.scratch = tmp_path / "out", tmp_path / "scratch"
    with simulated(time, workers):
        code = world.run("--budget-s", budget_s)
    masks = masks_in(world.zip)
    assert set(masks) == {f"{number:02d}" for number in range(VOLUMES)}
    assert {mask.shape for mask in masks.values()} == {(SIDE, SIDE, SIDE)}
    report = world.report()["volumes"]
    stages = {case: report[case]["stages"] for case in report}
    for case, mask in masks.items():  # the simulated mask of a stage is full of its number's last bit
        assert mask.all() == (stages[case] == 2)
        assert mask.any() == (stages[case] == 2)
    return code, stages


def constant(rate_s):
    return lambda now_s: rate_s / VOXELS


def test_with_enough_time_all_stages_come_stage_by_stage(world, tmp_path, quiet_logging):
    time = Time(constant(UNIT_S), load_s=60, finish_s=2 / VOXELS, write_s=5)
    code, stages = run(world, tmp_path, time, 2 * VOLUMES * STAGES * UNIT_S)
    assert code == 0
    assert set(stages.values()) == {STAGES}
    ended = [stage for _, _, stage in time.ended]
    assert ended == sorted(ended)
    assert [stage for _, _, stage in time.begun] == ended
    # Once a minute at the most, and at the beginning and the end.
    assert min(later - earlier for earlier, later in itertools.pairwise(time.writes[:-1])) >= 60


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("share", [0.1, pytest.param(0.25, marks=pytest.mark.slow), 0.5, 0.75])
@pytest.mark.parametrize("slow_down", [1, pytest.param(2, marks=pytest.mark.slow), 5])
def test_a_budget_that_does_not_suffice(world, tmp_path, quiet_logging, tally, workers, share, slow_down):
    """Midway through the budget the machine may slow down."""
    whole_s = 60 + VOLUMES * STAGES * UNIT_S / workers + VOLUMES * STAGES * 2
    budget_s = share * whole_s

    def unit_s(now_s):
        return UNIT_S / VOXELS * (slow_down if now_s > budget_s / 2 else 1)

    time = Time(unit_s, load_s=60, finish_s=2 / VOXELS, write_s=5)
    code, stages = run(world, tmp_path, time, budget_s, workers)
    assert time.now_s <= budget_s
    assert code == 3
    done = sum(stages.values())
    assert max(stages.values()) - min(stages.values()) <= 1  # stage by stage
    if slow_down == 1:  # what was possible, less the time to end the run, a margin and what was under way
        possible = (budget_s - 60) * workers / (UNIT_S + 2 * workers)
        assert done >= 0.7 * possible - 2 * workers
        assert len(time.begun) - len(time.ended) <= workers  # what would not end was not begun
    tally("budgets that do not suffice, simulated", share_used=time.now_s / budget_s)


def test_a_budget_that_is_over_before_it_begins(world, tmp_path, quiet_logging):
    time = Time(constant(UNIT_S))
    time.now_s = 1.0
    code, stages = run(world, tmp_path, time, 1)
    assert code == 3
    assert set(stages.values()) == {0}
    assert time.begun == []
    assert {volume["reason"] for volume in world.report()["volumes"].values()} == {"time budget exhausted"}


def test_workers_that_never_get_ready_are_left_in_time(world, tmp_path, quiet_logging):
    time = Time(constant(UNIT_S), load_s=1e9)
    code, _ = run(world, tmp_path, time, 1000)
    assert code == 3
    assert time.now_s <= 1000


def test_a_later_start_resumes_where_the_time_was_over(world, tmp_path, quiet_logging, capsys):
    time = Time(constant(UNIT_S), load_s=60, finish_s=2 / VOXELS, write_s=5)
    code, stages = run(world, tmp_path, time, 1000)
    assert code == 3
    assert "kept; run the same command again to resume" in capsys.readouterr().out
    begun = len(time.ended)
    assert 0 < begun == sum(stages.values())
    # The simulated masks say the image's digest is 0…: a start that resumes would see that it is another one.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("surface_kernel.runs.ledger.file_digest", lambda path: "0" * 64)
        later = Time(constant(UNIT_S), load_s=60, finish_s=2 / VOXELS, write_s=5)
        code, stages = run(world, tmp_path, later, 10_000)
    assert code == 0
    assert set(stages.values()) == {STAGES}
    assert len(later.ended) == VOLUMES * STAGES - begun
    assert world.ledger is None


def test_the_plan_is_logged_again_and_again(world, tmp_path, quiet_logging, capsys):
    time = Time(constant(UNIT_S), load_s=60, finish_s=2 / VOXELS, write_s=5)
    run(world, tmp_path, time, 2000)
    plans = [line for line in capsys.readouterr().out.splitlines() if line.startswith("plan: ")]
    assert len(plans) > 10
    assert plans[0] == "plan: 0 units done, 36 left, 32 min 15 s to go; time for all"
    assert re.search(r"no time for \d × stage 1, 12 × stage 2$", plans[-2])
