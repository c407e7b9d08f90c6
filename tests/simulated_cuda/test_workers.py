"""Worker processes on GPUs that break, lie, or cannot be used: no volume is lost, and no mask is wrong."""

import pytest
from gpu_engines import GPU, SETTINGS, LoadSmall, assert_right, through_workers
from scenes import noise

from surface_kernel.inference.settings import Settings
from surface_kernel.networks.device import DeviceRequest

pytestmark = pytest.mark.simulated_cuda

VOLUMES = {name: noise((40, 40, 40), seed) for seed, name in enumerate("abcde")}


def devices_by_process(gpu):
    """Which GPUs every process touched."""
    found = {}
    for line in gpu.seen("device"):
        found.setdefault(line["process"], set()).add(line["device"])
    return list(found.values())


def test_two_gpus_share_the_volumes_and_each_process_touches_its_own(gpu, tmp_path):
    gpu.wish(gpus=2)
    run = through_workers(tmp_path, VOLUMES)
    assert (run.errors, run.incidents, run.handler.trouble) == ({}, [], [])
    assert run.device == "cuda"
    assert_right(tmp_path, VOLUMES)
    assert sorted(devices_by_process(gpu), key=str) == [{0}, {1}]
    assert run.handler.workers == [1, 2]


@pytest.mark.parametrize(
    "request_", [DeviceRequest(name="cuda"), DeviceRequest(name="cuda", agreed=GPU)], ids=["name", "report"]
)
def test_cuda_means_all_gpus(gpu, tmp_path, request_):
    gpu.wish(gpus=2)
    run = through_workers(tmp_path, VOLUMES, request=request_)
    assert (run.errors, run.handler.workers) == ({}, [1, 2])
    assert sorted(devices_by_process(gpu), key=str) == [{0}, {1}]


def test_a_named_gpu_is_the_only_one(gpu, tmp_path):
    gpu.wish(gpus=2)
    run = through_workers(tmp_path, VOLUMES, request=DeviceRequest(name="cuda:1"))
    assert (run.errors, run.device) == ({}, "cuda:1")
    assert devices_by_process(gpu) == [{1}]


# --- a GPU that computes something wrong


@pytest.mark.parametrize(
    ("device", "workers", "name"),
    [
        pytest.param(0, 1, "cpu", id="the first, which is tested", marks=pytest.mark.slow),
        pytest.param(1, 1, "cuda", id="the second, which runs as agreed"),
        pytest.param(None, 1, "cpu", id="both"),
    ],
)
def test_no_mask_is_made_on_a_gpu_that_computes_something_wrong(gpu, tmp_path, device, workers, name):
    gpu.fail("wrong", device=device, more=10**9, gpus=2)
    run = through_workers(tmp_path, VOLUMES)
    assert (run.errors, run.device, run.handler.workers[-1]) == ({}, name, workers)
    assert_right(tmp_path, VOLUMES)
    assert ("expected what the CPU computes" if name == "cpu" else "does not run as agreed") in run.said


def test_a_gpu_that_is_wrong_in_float16_runs_in_float32(gpu, tmp_path):
    gpu.fail("wrong", more=10**9, dtype="float16")
    run = through_workers(tmp_path, VOLUMES)
    assert (run.errors, run.device) == ({}, "cuda")
    assert run.handler.ready[0].device.dtype == "float32"
    assert_right(tmp_path, VOLUMES)


# --- a GPU that cannot be used at all


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"kind": "no kernel"}, id="no kernel image"),
        pytest.param({"kind": "sticky", "operator": "copy"}, id="the driver fails at first use"),
        pytest.param({"kind": "oom", "operator": "copy", "more": 10**9}, id="its memory is taken"),
    ],
)
def test_where_no_gpu_can_be_used_the_cpu_is_and_the_run_is_complete(gpu, tmp_path, fault):
    gpu.fail(**fault, gpus=2)
    run = through_workers(tmp_path, VOLUMES)
    assert (run.errors, run.device) == ({}, "cpu")
    assert_right(tmp_path, VOLUMES)
    assert "the GPU is not used: " in run.said


def test_a_gpu_that_was_asked_for_and_cannot_be_used_is_an_error(gpu, tmp_path):
    from surface_kernel.runs.pipeline import WorkerError

    gpu.fail("no kernel")
    with pytest.raises(WorkerError, match="no kernel image"):
        through_workers(tmp_path, VOLUMES, request=DeviceRequest(name="cuda"))


# --- a GPU that breaks: CUDA's errors that stay until the process ends


def breaking(first, **entries):
    """A GPU whose context breaks at the n-th convolution of the threads that predict."""
    return {"kind": "sticky", "first": first, "thread": "predict", **entries}


@pytest.mark.parametrize(
    ("gpus", "fault"),
    [
        pytest.param(1, breaking(5), id="the only one, again and again"),
        pytest.param(2, breaking(5, device=0), id="the first"),
        pytest.param(2, breaking(5, device=1), id="the second"),
        pytest.param(2, breaking(5), id="both", marks=pytest.mark.slow),
        pytest.param(1, {"kind": "sticky", "first": 3, "thread": "MainThread"}, id="in the test"),
    ],
)
def test_a_gpu_that_breaks_loses_no_volume(gpu, tmp_path, gpus, fault):
    gpu.fail(**fault, gpus=gpus)
    run = through_workers(tmp_path, VOLUMES)
    assert run.errors == {}
    assert run.handler.again == set()  # units of a lost worker are not counted as tries
    assert_right(tmp_path, VOLUMES)
    assert "an illegal memory access was encountered" in run.said
    assert (run.device == "cpu") == (fault.get("device") is None)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1, 40, 3))
def test_wherever_a_gpu_breaks_no_stage_is_lost(gpu, tmp_path, first):
    """Two members and two views: three stages a volume, one after the other."""
    settings = Settings(views=("none", "x"), mask=SETTINGS.mask)
    gpu.fail(**breaking(first, device=first % 2), gpus=2)
    run = through_workers(tmp_path, VOLUMES, load=LoadSmall(members=2, settings=settings))
    assert run.errors == {}
    assert_right(tmp_path, VOLUMES, members=2, settings=settings)


def test_a_gpu_that_broke_once_is_used_again(gpu, tmp_path):
    gpu.fail(**breaking(5, process_file=str(tmp_path / "first")))
    run = through_workers(tmp_path, VOLUMES)
    assert (run.errors, run.device) == ({}, "cuda")
    assert run.handler.trouble == ["cuda: AcceleratorError: CUDA error: an illegal memory access was encountered"]
    assert_right(tmp_path, VOLUMES)


@pytest.mark.parametrize("operator", ["copy", pytest.param("sync", marks=pytest.mark.slow)])
def test_a_gpu_may_break_in_a_copy_or_while_it_is_waited_for(gpu, tmp_path, operator):
    gpu.fail(**breaking(4, operator=operator))
    run = through_workers(tmp_path, VOLUMES)
    assert (run.errors, run.device) == ({}, "cpu")
    assert_right(tmp_path, VOLUMES)


def test_a_broken_gpu_that_was_asked_for_is_not_replaced_by_the_cpu(gpu, tmp_path):
    gpu.fail(**breaking(5))
    run = through_workers(tmp_path, VOLUMES, request=DeviceRequest(name="cuda"))
    assert run.device == "cuda"
    assert run.handler.workers[-1] == 0
    assert run.handler.trouble[-1] == "cuda is left alone from here on"


# --- memory that does not suffice


def test_a_smaller_limit_is_told_to_all_workers(gpu, tmp_path):
    volumes = {name: noise((64, 64, 64), seed) for seed, name in enumerate("abcd")}
    gpu.fail("oom", first=8, more=0, thread="predict", gpus=1)
    run = through_workers(tmp_path, volumes, load=LoadSmall(tile_voxels=64**3, pointwise=True))
    begun_again = [incident for incident in run.incidents if "begun again with tiles of" in incident]
    assert (run.errors, len(begun_again)) == ({}, 1)
    assert_right(tmp_path, volumes, pointwise=True)
