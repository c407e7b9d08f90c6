"""However the work is shared out and in whatever order it comes, the submission is the same, byte by byte."""

import random
from functools import partial

import pytest
from scenes import noise
from worlds import World, write_weights

from surface_kernel.runs import competition
from surface_kernel.runs.pipeline import Pipeline

IMAGES = {str(seed): noise((24 + 4 * seed, 33, 32), seed) for seed in range(3)}


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    folder = tmp_path_factory.mktemp("members")
    return [write_weights(folder / f"{seed}.safetensors", seed) for seed in range(2)]


@pytest.fixture
def run(tmp_path, members, quiet_logging, monkeypatch):
    """Runs a competition whose volumes come in this order, by so many workers; gives the zip's digest."""

    def with_workers(order, workers):
        monkeypatch.setattr(competition, "Pipeline", partial(Pipeline, workers=workers))
        images = {case: IMAGES[case] for case in order}
        world = World.make(tmp_path / f"{workers}{''.join(order)}", images, members)
        assert world.run() == 0
        return world.digest

    return with_workers


def test_workers_and_order_make_no_difference(run, long, tally):
    order, digests = list(IMAGES), set()
    for turn in range(4 if long else 1):
        for workers in (1, 2, 3) if long else (1, 2):
            random.Random(10 * turn + workers).shuffle(order)
            digests.add(run(order, workers))
            tally("1, 2, 3 workers, shuffled volumes, same sha256")
    assert len(digests) == 1
