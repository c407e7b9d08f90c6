"""Training on a simulated GPU: float16 that overflows, resumed runs, several GPUs; the CPU is the oracle."""

import csv
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from gpu_training import RUN, TINY, SmallTrained, library
from safetensors.torch import load_file
from scenes import ROOT

from surface_kernel.networks import network
from surface_kernel.networks.architecture import Architecture
from surface_kernel.networks.device import Device, DeviceError
from surface_kernel.volumes.image_files import write_lzw
from surface_train import settings
from surface_train.data.patches import Batch
from surface_train.distributed import Group
from surface_train.loop import fit as fit_module
from surface_train.loop.average import recompute_batchnorm
from surface_train.loop.fit import Request, fit
from surface_train.loop.step import Stepper
from surface_train.settings import Optimiser, TrainingSettings

pytestmark = [pytest.mark.simulated_cuda, pytest.mark.filterwarnings("default")]

HALF = Device(name="cuda", dtype="float16", batch=2, threads=1)
CPU = Device(name="cpu", dtype="float32", batch=2, threads=1)
SHAPE = (32, 40, 36)


def batch_of(seed, side=16):
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 1, 2], (2, side, side, side), p=[0.5, 0.3, 0.2]).astype(np.uint8)
    images = rng.standard_normal(labels.shape, np.float32) + np.float32(2) * (labels == 1)
    return Batch(images=images, labels=labels)


def stepper(device=HALF, made=SmallTrained, architecture=None, **optimiser):
    torch.manual_seed(0)
    entries = {"network": architecture} if architecture else {}
    chosen = replace(TrainingSettings(), optimiser=replace(Optimiser(), **optimiser), **entries)
    return Stepper(made(), settings=chosen, device=device, group=Group())


def state_of(one):
    return {name: tensor.detach().cpu().clone() for name, tensor in one.network.state_dict().items()}


def assert_equal(state, other):
    for name, tensor in other.items():
        assert torch.equal(state[name], tensor), name


# --- a step


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_steps_move_the_weights_as_on_the_cpu(gpu, dtype):
    gpu.wish(capability=(8, 0))
    one, other = stepper(replace(HALF, dtype=dtype), kind="sgd"), stepper(CPU, kind="sgd")
    for seed in range(3):
        for each in (one, other):
            torch.manual_seed(seed)
            means = each.step([batch_of(seed), batch_of(seed + 10)], 1e-2)
            assert means is not None
            assert list(means) == each.names
    exact = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 2e-2}[dtype]
    for name, tensor in state_of(other).items():
        torch.testing.assert_close(state_of(one)[name], tensor, rtol=exact, atol=exact)


@pytest.mark.parametrize("operator", ["convolution", "convolution_backward"])
@pytest.mark.parametrize("batches", [1, 2])
def test_an_overflow_skips_the_step_and_leaves_no_trace(gpu, operator, batches):
    """In forward or backward, in either of the batches that are added up."""
    one = stepper()
    assert one.step([batch_of(1)], 1e-3) is not None
    before, scale = state_of(one), one.scaler.get_scale()
    gpu.fail("nan", operator=operator, first=2 * batches, dtype="float16")
    assert one.step([batch_of(seed) for seed in range(batches)], 1e-3) is None
    assert one.scaler.get_scale() == scale / 2
    assert_equal(state_of(one), before)
    gpu.wish()
    means = one.step([batch_of(3)], 1e-3)
    assert means is not None
    assert all(torch.isfinite(value) for value in means.values())
    assert all(tensor.isfinite().all() for tensor in state_of(one).values())


def test_statistics_that_overflow_are_measured_again_in_float32(gpu):
    images = [torch.from_numpy(batch_of(seed).images)[:, None] for seed in range(3)]
    plain, spoilt = SmallTrained().cuda(), SmallTrained().cuda()
    spoilt.load_state_dict(plain.state_dict())
    recompute_batchnorm(plain, images, HALF)
    gpu.fail("nan", first=3, dtype="float16")  # two convolutions a batch: the second batch's first one
    recompute_batchnorm(spoilt, images, HALF)
    assert int(spoilt.norm.num_batches_tracked) == 3
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(spoilt.norm, name), getattr(plain.norm, name), rtol=1e-2, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "architecture", [Architecture("ResEncUNet", "resenc_s", "batch"), Architecture("Unet", "resnet18")], ids=str
)
def test_real_networks_take_steps_and_skip_one_that_overflows(gpu, architecture):
    one = stepper(made=lambda: network.build(architecture), architecture=architecture)
    made = [one.step([batch_of(1, side=32)], 1e-3) is not None for _ in range(4)]
    assert made[-1]  # the first scale of the loss, 65536, may be too large for gradients of biases
    before = state_of(one)
    gpu.fail("nan", first=5, dtype="float16")
    assert one.step([batch_of(2, side=32)], 1e-3) is None
    assert_equal(state_of(one), before)
    assert one.step([batch_of(3, side=32)], 1e-3) is not None


def test_a_gpu_keeps_memory_for_one_batch(gpu):
    one = stepper()
    one.step([batch_of(1)], 1e-3)
    used = torch.cuda.memory_allocated()
    for seed in range(3):
        one.step([batch_of(seed)], 1e-3)
    assert torch.cuda.memory_allocated() == used


# --- whole runs


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Four cases of two scrolls: a bright sheet across z, its margin unlabelled."""
    folder = tmp_path_factory.mktemp("data")
    scrolls = {"11": "100", "12": "100", "21": "200", "22": "200"}
    for seed, name in enumerate(scrolls):
        image = np.random.default_rng(seed).normal(90, 12, SHAPE)
        image[16:21] += 60
        label = np.full(SHAPE, 2, np.uint8)
        label[3:-3, 3:-3, 3:-3] = 0
        label[16:19, 3:-3, 3:-3] = 1
        for kind, content in (("images", image.clip(1, 255).astype(np.uint8)), ("labels", label)):
            (folder / f"train_{kind}").mkdir(exist_ok=True)
            write_lzw(folder / f"train_{kind}" / f"{name}.tif", content)
    with (folder / "train.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "scroll_id"), *scrolls.items()])
    return folder


@pytest.fixture
def request_for(data, tmp_path, monkeypatch):
    """Makes requests for runs with changed settings, of a small network."""
    monkeypatch.setattr(network, "_library", library)

    def made(out, *changes, **named):
        text = TINY
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        file = tmp_path / f"{out}.toml"
        file.write_text(text)
        asked = {"settings_file": file, "settings": settings.read(file), "data": data, "fold": "0"}
        return Request(**asked, out=tmp_path / out, device="cuda", **named)

    return made


def rows_of(out):
    return list(csv.DictReader((out / "log.csv").read_text().splitlines()))


def shipped(out):
    return load_file(out / "weights.safetensors")


class Died(BaseException):
    """Stands for a kill."""


@pytest.mark.parametrize("kind", ["swa", pytest.param("ema", marks=pytest.mark.slow)])
def test_a_run_in_float16_that_was_killed_ends_with_the_same_bytes(gpu, request_for, tmp_path, monkeypatch, kind):
    """Three steps an epoch, two batches a step; it dies in the second epoch, when averages have begun."""
    changes = [("[average]", f'[average]\nkind = "{kind}"'), ("warmup_steps = 2", "warmup_steps = 2\naccumulate = 2")]
    fit(request_for("whole", *changes))
    step, calls = Stepper.step, []

    def dies(self, batches, rate):
        calls.append(1)
        if len(calls) == 5:
            raise Died
        return step(self, batches, rate)

    monkeypatch.setattr(Stepper, "step", dies)
    with pytest.raises(Died):
        fit(request_for("killed", *changes))
    fit(request_for("killed", *changes, resume=True))
    for name in ("weights", "last", "swa", "best"):
        whole, killed = (load_file(tmp_path / out / f"{name}.safetensors") for out in ("whole", "killed"))
        assert whole.keys() == killed.keys()
        assert all(torch.equal(tensor, killed[key]) for key, tensor in whole.items()), name


def test_the_loss_of_a_skipped_step_counts_nowhere(gpu, request_for, tmp_path):
    """The second of three steps overflows: the epoch's loss is the mean of two, and the run goes on."""
    losses, step = [], Stepper.step

    def noted(self, batches, rate):
        means = step(self, batches, rate)
        losses.append(means and means["loss"].item())
        return means

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Stepper, "step", noted)
        gpu.fail("nan", first=3, dtype="float16")
        fit(request_for("run"))
    assert [value is None for value in losses[:3]] == [False, True, False]
    rows = rows_of(tmp_path / "run")
    assert float(rows[0]["loss"]) == pytest.approx((losses[0] + losses[2]) / 2, rel=1e-6)
    assert all(tensor.isfinite().all() for tensor in shipped(tmp_path / "run").values())


def test_a_run_that_overflows_without_end_stops_and_says_what_to_do(gpu, request_for):
    gpu.fail("nan", more=10**9, dtype="float16")
    with pytest.raises(RuntimeError, match=r"optimiser.most_skipped_steps: expected at most 2 steps .* got 3"):
        fit(request_for("run", ("warmup_steps = 2", "warmup_steps = 2\nmost_skipped_steps = 2")))


def test_a_run_with_an_epoch_of_skipped_steps_alone_goes_on(gpu, request_for, tmp_path):
    gpu.fail("nan", more=2, dtype="float16")  # a forward pass ends at its first NaN: one a step
    fit(request_for("run"))
    rows = rows_of(tmp_path / "run")
    assert len(rows) == 3


# --- several GPUs


def torchrun(gpu, program, *words, timeout_s=240):
    """Run a program in two processes with a GPU each."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    rooms = [*(str(ROOT / room) for room in ("kernel", "train", "tests")), os.environ["PYTHONPATH"]]
    environment["PYTHONPATH"] = os.pathsep.join(rooms)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [*command, str(program), *map(str, words)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


def words_of(request, *more):
    words = ["fit", "--settings", request.settings_file, "--data", request.data, "--fold", "0", "--out", request.out]
    return [*words, *more]


def test_two_gpus_train_one_network(gpu, request_for, tmp_path):
    gpu.wish(gpus=2)
    (tmp_path / "run.py").write_text(RUN)
    done = torchrun(gpu, tmp_path / "run.py", *words_of(request_for("two"), "--device", "cuda"))
    assert done.returncode == 0, done.stdout[-2000:]
    assert all(tensor.isfinite().all() for tensor in shipped(tmp_path / "two").values())
    assert sorted(line["current"] for line in gpu.seen("group")) == [0, 1]
    used = {}
    for line in gpu.seen("device"):
        used.setdefault(line["process"], set()).add(line["device"])
    assert sorted(used.values(), key=str) == [{0}, {1}]


FAILS = """
from surface_train.loop.step import Stepper
import os
step, calls = Stepper.step, []
def fails(self, batches, rate):
    calls.append(1)
    if len(calls) == 2 and os.environ["RANK"] == "1":
        raise RuntimeError("this rank fails")
    return step(self, batches, rate)
Stepper.step = fails
"""


def test_an_exception_on_one_rank_ends_all(gpu, request_for, tmp_path):
    """The other rank waits for its gradients meanwhile, and would for two hours."""
    gpu.wish(gpus=2)
    (tmp_path / "run.py").write_text(FAILS + RUN)
    done = torchrun(gpu, tmp_path / "run.py", *words_of(request_for("two")), timeout_s=120)
    assert done.returncode != 0
    assert "error: process 1: this rank fails" in done.stdout


@pytest.mark.parametrize(
    ("asked", "gpus", "name"), [(None, 2, "cuda:1"), ("cuda", 2, "cuda:1"), ("cpu", 2, "cpu"), (None, 0, "cpu")]
)
def test_each_of_several_processes_has_a_gpu_of_its_own(gpu, asked, gpus, name):
    gpu.wish(gpus=gpus)
    assert fit_module._device_name(asked, Group(rank=1, size=2, local_rank=1)) == name


def test_one_named_gpu_is_not_for_several_processes(gpu):
    with pytest.raises(DeviceError, match=r"--device: expected cpu or cuda for 2 processes"):
        fit_module._device_name("cuda:1", Group(rank=1, size=2, local_rank=1))
    assert fit_module._device_name("cuda:1", Group()) == "cuda:1"
