"""Streams and pinned buffers of `Predictor`: right as they are, and wrong after any of some changes of a line."""

import inspect
import sys
from types import ModuleType

import numpy as np
import pytest
from gpu_engines import CPU, GPU, HALF_PRECISION, small_network
from scenes import noise
from torch import nn

from surface_kernel.inference import predict
from surface_kernel.inference.forward import Member
from surface_kernel.inference.tiles import Grid
from surface_kernel.inference.views import View
from surface_kernel.networks.placing import place_copy
from surface_kernel.volumes.intensity import Intensity

pytestmark = pytest.mark.simulated_cuda

SHAPE = (40, 40, 40)
GRID = Grid(SHAPE, (16, 16, 16), 0.5)


def predicted(module, network, volumes):
    """Runs volumes through one predictor; gives their logits and what happened."""
    member = Member(place_copy(network, GPU), Intensity(), network)
    fields, incidents = [], []
    with module.Predictor([member], GPU) as predictor:
        for volume in volumes:
            slabs = predictor.slabs(volume, grid=GRID, passes=[(0, View())])
            fields.append(np.concatenate([slab for _, slab in slabs]))
            incidents += predictor.incidents
    return fields, incidents


@pytest.fixture(scope="module")
def volumes():
    return [noise(SHAPE, seed) for seed in range(2)]


@pytest.mark.parametrize("poison", [12345.0, float("nan")])
def test_what_comes_back_is_what_was_computed(gpu, volumes, poison):
    gpu.wish(poison=poison)
    fields, incidents = predicted(predict, nn.Identity(), volumes)
    assert incidents == []
    for field, volume in zip(fields, volumes, strict=True):
        np.testing.assert_allclose(field, Intensity().table(volume)[volume], atol=0.005)


WAITS = "        copies.wait_stream(torch.cuda.current_stream(self._predictor.device.name))\n"
RECORDS = "                logits.record_stream(copies)\n"
ARRIVES = "        arrived.synchronize()\n"
MARKS = "            arrived.record(copies)\n"
LANDS = "        landing = buffers.take((sum(map(len, parts)), *parts[0].shape[1:]), torch.float32)\n"
FETCHES = "                landing[first : first + len(logits)].copy_(logits, non_blocking=logits.is_cuda)\n"
MUTATIONS = {
    "the copy does not wait for the network": (WAITS, ""),
    "the memory that is copied from is not held": (RECORDS, "                pass\n"),
    "the host does not wait for the copy": (ARRIVES, ""),
    "the event is on another stream": (MARKS, MARKS.replace("copies", "torch.cuda.default_stream()")),
    "what is copied to is not pinned": (
        LANDS,
        "        landing = torch.empty((sum(map(len, parts)), *parts[0].shape[1:]))\n",
    ),
    "inputs are given back too early": (FETCHES, f"{FETCHES}                buffers.give_back(batch.inputs)\n"),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_line_that_is_missing_or_wrong_is_noticed(gpu, volumes, name):
    line, changed = MUTATIONS[name]
    source = inspect.getsource(predict)
    assert source.count(line) == 1
    mutated = ModuleType("surface_kernel.inference.mutated_predict")
    sys.modules[mutated.__name__] = mutated
    exec(compile(source.replace(line, changed), "surface_kernel/mutated_predict.py", "exec"), mutated.__dict__)
    expected, _ = predicted(predict, small_network(), volumes)
    assert gpu.hazards == []
    found, incidents = predicted(mutated, small_network(), volumes)
    same = all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))
    assert gpu.hazards or incidents or not same
    gpu.forget()


def test_a_gpu_computes_what_the_cpu_does(volumes):
    found, incidents = predicted(predict, small_network(), volumes)
    assert incidents == []
    for field, volume in zip(found, volumes, strict=True):
        slabs = predict.slabs([Member(small_network(), Intensity())], volume, grid=GRID, device=CPU)
        assert np.abs(field - np.concatenate([slab for _, slab in slabs])).max() < HALF_PRECISION
