import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from surface_kernel.networks import weights as kernel_weights
from surface_kernel.networks.architecture import Architecture
from surface_kernel.networks.device import Device
from surface_train.data.patches import Batch
from surface_train.data.truth import Truth
from surface_train.distributed import Group
from surface_train.loop.step import PrecisionError, Stepper, precise
from surface_train.losses import loss
from surface_train.losses.terms import TERMS
from surface_train.settings import Optimiser, TrainingSettings

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.usefixtures("one_thread")
CPU = Device(name="cpu", dtype="float32", batch=2, threads=1)


class Plain(nn.Module):
    """Nothing that mixes the patches of a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv3d(1, 3, 3, padding=1), nn.InstanceNorm3d(3, affine=True)
        self.last = nn.Conv3d(3, 1, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.last(torch.relu(self.norm(self.first(images))))
        return result


def made(seed: int, size: int = 2) -> Batch:
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 1, 2], (size, 8, 8, 8), p=[0.5, 0.3, 0.2]).astype(np.uint8)
    images = rng.standard_normal(labels.shape, np.float32) + np.float32(3) * (labels == 1)
    return Batch(images=images, labels=labels)


def stepper(network: nn.Module | None = None, **optimiser: object) -> Stepper:
    torch.manual_seed(0)
    chosen = replace(TrainingSettings(), optimiser=replace(Optimiser(), **optimiser))
    return Stepper(network or Plain(), settings=chosen, device=CPU, group=Group())


def weights(one: Stepper) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in one.network.parameters()])


def test_a_step_is_what_it_is_by_hand() -> None:
    one, other = stepper(kind="sgd", momentum=0.0, weight_decay=0.0, clip_norm=1e9), Plain()
    other.load_state_dict(one.network.state_dict())
    batch = made(1)
    logits = other(torch.from_numpy(batch.images)[:, None])
    value, parts = loss.total(logits, Truth(torch.from_numpy(batch.labels)), TrainingSettings().loss)
    value.backward()
    found = one.step([batch], rate=0.5)
    wanted = torch.cat([(p.detach() - 0.5 * p.grad).flatten() for p in other.parameters()])
    torch.testing.assert_close(weights(one), wanted, rtol=1e-5, atol=1e-6)
    assert list(found) == ["loss", *TERMS, "variance_of_p"]
    assert found["loss"].item() == pytest.approx(value.item(), rel=1e-6)
    for name in TERMS:
        assert found[name].item() == pytest.approx(parts[name].item(), rel=1e-6)
    probability = torch.sigmoid(logits.detach()[:, 0])
    variances = [probability[row][torch.from_numpy(batch.labels[row] != 2)].var(correction=0) for row in range(2)]
    assert found["variance_of_p"].item() == pytest.approx(torch.stack(variances).mean().item(), rel=1e-4)


def test_batches_that_are_added_up_are_one_big_batch() -> None:
    # Not AdamW: its steps are of one length, however small a gradient is, so they show rounding alone.
    one, other = (stepper(kind="sgd", clip_norm=1e9) for _ in range(2))
    halves = [made(1), made(2)]
    images, labels = (np.concatenate([getattr(half, name) for half in halves]) for name in ("images", "labels"))
    whole = Batch(images=images, labels=labels)
    found, wanted = one.step(halves, 1e-2), other.step([whole], 1e-2)
    torch.testing.assert_close(weights(one), weights(other), rtol=1e-5, atol=1e-7)
    assert found["loss"].item() == pytest.approx(wanted["loss"].item(), rel=1e-5)


@pytest.mark.parametrize(("kind", "rate"), [("adamw", 3e-2), ("sgd", 0.3)])
def test_both_optimisers_learn_a_batch_by_heart(kind: str, rate: float) -> None:
    one = stepper(kind=kind, momentum=0.9)
    batch = made(3)
    values = [one.step([batch], rate)["loss"].item() for _ in range(30)]
    assert values[-1] < values[0] - 0.1


def test_the_gradient_is_clipped_and_the_rate_is_the_steps_own() -> None:
    one = stepper(kind="sgd", momentum=0.0, weight_decay=0.0, clip_norm=1e-3)
    before = weights(one).clone()
    one.step([made(1)], rate=2.0)
    assert torch.linalg.vector_norm(weights(one) - before).item() == pytest.approx(2e-3, rel=1e-3)


def test_measuring_moves_nothing_and_sees_the_evaluated_network() -> None:
    network = nn.Sequential(nn.BatchNorm3d(1), nn.Conv3d(1, 1, 1))
    one = stepper(network)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    found = one.measure(made(1))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert {"loss", "dice", "variance_of_p"} <= set(found)


def test_a_deep_network_learns_from_all_its_outputs_and_answers_with_one() -> None:
    chosen = replace(TrainingSettings(), network=Architecture("ResEncUNet", "resenc_s", "batch"))
    from surface_kernel.networks.network import build

    one = Stepper(build(chosen.network), settings=chosen, device=CPU, group=Group())
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 1], (2, 32, 32, 32)).astype(np.uint8)
    batch = Batch(images=rng.standard_normal(labels.shape, np.float32), labels=labels)
    one.step([batch], 1e-3)
    heads = [parameter for name, parameter in one.network.named_parameters() if "seg_layers" in name]
    used = [head for head in heads if head.grad is not None and head.grad.abs().sum() > 0]
    assert len(used) == len(heads) >= 6
    assert isinstance(one.network.eval()(torch.zeros(1, 1, 32, 32, 32)), torch.Tensor)


def test_a_compiled_network_keeps_the_names_of_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(torch, "compile", lambda network: compiled.append(network) or network)
    one = stepper(compile=True)
    assert compiled == [one.network]
    assert set(one.network.state_dict()) == set(Plain().state_dict())


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the compiler's own
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile wants a C++ compiler")
def test_a_compiled_network_steps_as_it_would_plainly() -> None:
    one, other = stepper(kind="sgd", compile=True), stepper(kind="sgd")
    for seed in range(2):
        found, wanted = one.step([made(seed)], 1e-2), other.step([made(seed)], 1e-2)
        assert found["loss"].item() == pytest.approx(wanted["loss"].item(), rel=1e-5)
    torch.testing.assert_close(weights(one), weights(other), rtol=1e-4, atol=1e-6)


# --- precision


def test_a_cpu_keeps_its_own_precision_unless_another_is_asked_for() -> None:
    device = Device(name="cpu", dtype="bfloat16", batch=2, threads=1)
    assert precise(device, Optimiser()) == device
    assert precise(device, Optimiser(precision="float32")).dtype == "float32"
    with pytest.raises(PrecisionError, match='expected "bfloat16", "float32" or "auto" on a CPU, got "float16"'):
        precise(device, Optimiser(precision="float16"))


@pytest.mark.parametrize(("has", "wanted"), [(True, "bfloat16"), (False, "float16")])
def test_a_gpu_trains_in_bfloat16_where_it_has_it(monkeypatch: pytest.MonkeyPatch, has: bool, wanted: str) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda name: (8, 0) if has else (7, 5))
    device = Device(name="cuda", dtype="float16", batch=4, threads=1)
    assert precise(device, Optimiser()).dtype == wanted
    assert precise(device, Optimiser(precision="float16")).dtype == "float16"
    if not has:
        with pytest.raises(PrecisionError, match=r'expected "float16" or "auto" on cuda, .*, got "bfloat16"'):
            precise(device, Optimiser(precision="bfloat16"))


def test_synchronised_batchnorm_wants_gpus() -> None:
    with pytest.raises(PrecisionError, match="expected GPUs, got a CPU"):
        stepper(sync_batchnorm=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_synchronised_batchnorm_on_a_gpu_is_batchnorm() -> None:
    chosen = replace(TrainingSettings(), optimiser=Optimiser(sync_batchnorm=True, precision="float32"))
    network = nn.Sequential(nn.BatchNorm3d(1), nn.Conv3d(1, 1, 1))
    one = Stepper(network, settings=chosen, device=replace(CPU, name="cuda"), group=Group())
    assert isinstance(one.network[0], nn.SyncBatchNorm)
    assert torch.isfinite(one.step([made(1)], 1e-3)["loss"])


# --- several processes

TWO = """
import sys
from test_step import Plain, made
import numpy as np, torch
from dataclasses import replace
from surface_kernel.networks.device import Device
from surface_train.distributed import joined
from surface_train.data.patches import Batch
from surface_train.settings import Optimiser, TrainingSettings
from surface_train.loop.step import Stepper
torch.set_num_threads(1)
with joined() as group:
    torch.manual_seed(group.rank)  # other first weights: the first process's count
    chosen = replace(TrainingSettings(), optimiser=Optimiser(kind="sgd", clip_norm=1e9))
    cpu = Device(name="cpu", dtype="float32", batch=2, threads=1)
    one = Stepper(Plain(), settings=chosen, device=cpu, group=group)
    own = slice(group.rank, None, 2)
    rows = [Batch(images=b.images[own], labels=b.labels[own]) for b in (made(1), made(2), made(3), made(4))]
    for first in (0, 2):
        one.step(rows[first:first + 2], 1e-2)
    gathered = group.gather([group.rank])
    assert gathered == [0, 1], gathered
    assert group.as_rank_0(group.rank) == 0
    if group.primary:
        gradients = {name: parameter.grad for name, parameter in one.network.named_parameters()}
        torch.save({"gradients": gradients, "weights": one.network.state_dict()}, sys.argv[1])
"""


def as_two_processes(program: str, *words: str) -> None:
    """Run a program in two processes that know of one another, as torchrun would."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    paths = [*(str(ROOT / room) for room in ("kernel", "train")), str(Path(__file__).parent)]
    common = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    children = [
        subprocess.Popen(
            [sys.executable, "-c", program, *words],
            env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
        )
        for rank in range(2)
    ]
    assert [child.wait(timeout=240) for child in children] == [0, 0]


def test_two_processes_have_the_gradients_of_one(tmp_path: Path) -> None:
    as_two_processes(TWO, str(tmp_path / "found.pt"))
    found = torch.load(tmp_path / "found.pt", weights_only=True)
    one = stepper(kind="sgd", clip_norm=1e9)
    for first in (1, 3):
        one.step([made(first), made(first + 1)], 1e-2)
    for name, parameter in one.network.named_parameters():
        torch.testing.assert_close(found["gradients"][name], parameter.grad, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(found["weights"][name], parameter.detach(), rtol=1e-5, atol=1e-6)


RUN = """
import os, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from types import SimpleNamespace
from pytest import MonkeyPatch
from surface_kernel.networks import network
from surface_train.__main__ import main
import test_fit, test_step
test_fit.undrawn(MonkeyPatch())
network._library = lambda: SimpleNamespace(create_model=lambda name, **_: test_step.Plain())
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_run_of_two_processes_ends_with_the_averaged_weights_of_one(world: Any, tmp_path: Path) -> None:
    tiny = world.settings_file.read_text().replace("learning_rate = 2e-3", 'kind = "sgd"\nlearning_rate = 2e-2')
    tiny = tiny.replace("[optimiser]", '[optimiser]\nprecision = "float32"')
    for name, batch in (("two", 1), ("one", 2)):
        text = tiny.replace("batch = 2", f"batch = {batch}")
        assert text.count(f"batch = {batch}\n") == 1
        (tmp_path / f"{name}.toml").write_text(text)
    words = ["fit", "--data", str(world.data), "--fold", "0", "--device", "cpu"]
    as_two_processes(RUN, *words, "--settings", str(tmp_path / "two.toml"), "--out", str(tmp_path / "two"))
    command = [
        sys.executable,
        "-c",
        RUN,
        *words,
        "--settings",
        str(tmp_path / "one.toml"),
        "--out",
        str(tmp_path / "one"),
    ]
    paths = [*(str(ROOT / room) for room in ("kernel", "train")), str(Path(__file__).parent)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    for name in ("swa", "last"):
        found, wanted = (kernel_weights.load(tmp_path / runs / f"{name}.safetensors") for runs in ("two", "one"))
        assert found[0].provenance["n_averaged"] == wanted[0].provenance["n_averaged"] == (2 if name == "swa" else 0)
        for key, tensor in wanted[1].items():
            torch.testing.assert_close(found[1][key], tensor, rtol=1e-4, atol=1e-5)
    tables = [(tmp_path / runs / "log.csv").read_text().splitlines() for runs in ("two", "one")]
    assert len(tables[0]) == len(tables[1]) == 5
