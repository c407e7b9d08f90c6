"""A term is added by a function, a weight and a row of the table: all else follows, from the loader to the step."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from surface_kernel.networks.device import Device
from surface_train.data.maps import LabelMap
from surface_train.data.patches import Sampler
from surface_train.data.store import Store
from surface_train.distributed import Group
from surface_train.loop.step import Stepper
from surface_train.loss_weights import LossWeights
from surface_train.losses.compared import VOLUME, Compared
from surface_train.losses.terms import TERMS, Term, label_maps
from surface_train.settings import Augment, Patches, TrainingSettings

pytestmark = pytest.mark.usefixtures("one_thread")
DEPTH = LabelMap(
    name="depth_2", make=lambda label: np.indices(label.shape)[0][::2, ::2, ::2].astype(np.int16), stride=2
)


def sinking(compared: Compared, weights: LossWeights) -> Tensor:
    """Probability at depth, of every second voxel."""
    depth = compared.truth.map(DEPTH)
    return (compared.labelled_probability[:, ::2, ::2, ::2] * depth).sum(VOLUME) / depth.sum(VOLUME)


@dataclass(frozen=True, kw_only=True)
class MoreWeights(LossWeights):
    sinking_weight: float = 0.5


def test_a_new_term_reaches_the_loader_the_loss_and_the_log(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, write_case: Callable, make_sheet: Callable
) -> None:
    monkeypatch.setitem(TERMS, "sinking", Term(value=sinking, maps=lambda weights: (DEPTH,)))
    patches = Patches(shape_zyx=(32, 32, 32), batch=2, workers=1)
    chosen = TrainingSettings(patches=patches, augment=Augment.none(), loss=MoreWeights())
    store = Store([write_case(tmp_path, "1", "5", *make_sheet(0))], chosen)
    (batch,) = Sampler(store, chosen, maps=label_maps(chosen.loss)).batches(0, 1)
    assert set(batch.maps) == {"distance", "skeleton_3", "depth_2"}
    assert batch.maps["depth_2"].shape == (2, 16, 16, 16)

    device = Device(name="cpu", dtype="float32", batch=2, threads=1)
    network = nn.Conv3d(1, 1, 1)
    found = Stepper(network, settings=chosen, device=device, group=Group()).measure(batch)
    assert list(found) == ["loss", *TERMS, "variance_of_p"]
    logits = network(torch.from_numpy(batch.images)[:, None])[:, 0].detach()
    depth = torch.from_numpy(batch.maps["depth_2"])
    probability = (torch.sigmoid(logits) * torch.from_numpy(batch.labels != 2))[:, ::2, ::2, ::2]
    assert found["sinking"].item() == pytest.approx((probability * depth).sum().item() / depth.sum().item(), rel=1e-5)
    assert found["loss"].item() == pytest.approx(
        sum(weight * found[name].item() for name, weight in chosen.loss.by_term.items()), rel=1e-5
    )


def test_a_term_without_a_weight_costs_the_loader_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TERMS, "sinking", Term(value=sinking, maps=lambda weights: (DEPTH,)))
    assert DEPTH in label_maps(MoreWeights())
    assert label_maps(replace(MoreWeights(), sinking_weight=0.0, cldice_weight=0.0, boundary_weight=0.0)) == ()
