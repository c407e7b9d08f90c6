"""Memory that does not suffice at the n-th batch: the run finishes, and its logits are what they would have been."""

import numpy as np
import pytest
import torch
from engines import CPU, DUSTY, TOLD, LoadShort, Short
from scenes import noise
from torch import nn
from worlds import World, masks_in

from surface_kernel import __main__ as story
from surface_kernel.inference.engine import Engine
from surface_kernel.inference.settings import Settings
from surface_kernel.networks.cost import Cost

VIEWS = ("none", "x")
SETTINGS = Settings(views=VIEWS, dust_voxels=0)
TOLERANCE = 2e-4  # of logits of about ±10, run in other batches or on the CPU in float32


def predict(network, volume, settings=DUSTY):
    with Engine([network], [TOLD], settings=settings, device=CPU, cost=Cost(1, 1, 1)) as engine:
        mask, sums = np.empty(volume.shape, np.uint8), np.empty(volume.shape, np.float32)
        spread = engine.predict(volume, mask=mask, sums=sums)
    return mask, sums, spread.incidents


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError])
@pytest.mark.parametrize("more", [0, 1])
def test_a_batch_invariant_network_gives_the_same_bytes(error, more, tally):
    volume = noise((40, 50, 60))
    counting = Short(nn.Identity(), 0)
    wanted = predict(counting, volume, SETTINGS)
    assert counting.calls >= 8
    for nth in range(1, counting.calls + 1):
        mask, sums, incidents = predict(Short(nn.Identity(), nth, more, error), volume, SETTINGS)
        assert incidents
        np.testing.assert_array_equal(mask, wanted[0])
        np.testing.assert_array_equal(sums, wanted[1])
        tally("out of memory at the n-th batch, same bytes")


def test_a_real_network_stays_within_the_tolerance(weights_once, long, tally):
    volume = noise((40, 40, 40))
    engine = Engine.load([weights_once], DUSTY, device=CPU)
    (network,), told = engine.networks, engine.metadata
    engine.close()

    def logits(module):
        with Engine([module], told, settings=DUSTY, device=CPU, cost=Cost(1, 1, 1)) as made:
            mask, sums = np.empty(volume.shape, np.uint8), np.empty(volume.shape, np.float32)
            made.predict(volume, mask, sums)
        return sums

    counting = Short(network, 0)
    wanted = logits(counting)
    for nth in range(1, counting.calls + 1, 1 if long else 2):
        for more in (0, 1) if long else (1,):  # a third one is the plan's to try again
            difference = float(np.abs(logits(Short(network, nth, more)) - wanted).max())
            assert difference <= TOLERANCE
            tally("out of memory at the n-th batch, a real network", largest_difference_of_logits=difference)


def test_a_whole_run_finishes(weights_once, tmp_path, quiet_logging, monkeypatch):
    """The networks of a worker run out of memory at some calls, for good at others."""
    images = {"a": noise((20, 30, 30), 1), "b": noise((20, 30, 30), 2)}
    world = World.make(tmp_path / "world", images, [weights_once], views=list(VIEWS))
    digests = set()
    for nth, more in ((10**9, 0), (1, 0), (2, 1), (3, 0), (4, 2)):
        monkeypatch.setattr(story, "LoadEngine", lambda files, settings, n=nth, m=more: LoadShort(n, m, SETTINGS))
        assert world.run() == 0
        digests.add(world.digest)
        assert masks_in(world.zip)["a"].any()
    assert len(digests) == 1
