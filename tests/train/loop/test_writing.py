from dataclasses import asdict, fields, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from surface_kernel.networks import weights
from surface_train.checks.validate import Validated
from surface_train.data.cases import Case
from surface_train.data.folds import Split
from surface_train.distributed import Group
from surface_train.loop.state import TrainingProgress
from surface_train.loop.writing import RunWriter
from surface_train.records.environment import commit
from surface_train.records.run_folder import RunFolder
from surface_train.settings import TrainingSettings

SPLIT = Split((Case(name="1", scroll="5", image=Path(), label=Path()),), (), "2")
RUN = replace(TrainingSettings(), overlap=0.25, label_2="surface")
PROGRESS = TrainingProgress(settings=RUN.digest, split=SPLIT.digest, averaging_from=8, epoch=3, init="abc")
RESULT = Validated(**dict.fromkeys((field.name for field in fields(Validated)), 0.25) | {"threshold": 0.35})


def writer(folder: Path, rank: int = 0) -> RunWriter:
    group = Group(rank=rank, size=2)
    return RunWriter(folder=RunFolder(folder), settings=RUN, split=SPLIT, group=group)


def test_weights_say_where_they_come_from(tmp_path: Path) -> None:
    network = nn.Conv3d(1, 1, 1)
    writer(tmp_path).write_weights(
        tmp_path / "w", network, progress=PROGRESS, result=RESULT, more={"n_averaged": 3, "shipped": "swa"}
    )
    metadata, tensors = weights.load(tmp_path / "w")
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in tensors.items())
    assert (metadata.architecture, metadata.intensity) == (RUN.network, RUN.intensity)
    assert (metadata.tile_zyx, metadata.overlap, metadata.threshold) == (RUN.patches.shape_zyx, 0.25, 0.35)
    assert metadata.provenance == {
        "settings_sha256": RUN.digest,
        "split_sha256": SPLIT.digest,
        "commit": commit(),
        "fold": "2",
        "label_2": "surface",
        "loss": "rebalanced",
        "limits": asdict(RUN.sentinel),
        "mask": RUN.mask.to_entries(),
        "init_sha256": "abc",
        "epoch": 3,
        "epochs": RUN.epochs,
        "steps": RUN.epochs * RUN.steps_per_epoch,
        "n_averaged": 3,
        "validation": RESULT.rounded(),
        "shipped": "swa",
    }


def test_weights_without_a_validation_are_ungated_at_one_half(tmp_path: Path) -> None:
    writer(tmp_path).write_weights(tmp_path / "w", nn.Conv3d(1, 1, 1), progress=PROGRESS, result=None)
    metadata = weights.describe(tmp_path / "w")
    assert (metadata.threshold, metadata.provenance["validation"]) == (0.5, "ungated")


def test_a_row_is_logged_and_shown_with_its_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[object] = []
    monkeypatch.setattr(RunFolder, "show", lambda folder, *given: shown.append(given))
    writer(tmp_path).write_row({"epoch": 1, "loss": 0.5}, tmp_path / "epoch_1.png")
    assert RunFolder(tmp_path).rows() == [{"epoch": "1", "loss": "0.5"}]
    assert shown == [({"epoch": 1, "loss": 0.5}, RUN.loss, tmp_path / "epoch_1.png")]


def test_the_first_case_is_drawn_under_the_weights_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[object] = []
    monkeypatch.setattr(RunFolder, "picture", lambda folder, *given: drawn.append(given))
    rows = [SimpleNamespace(), SimpleNamespace()]
    writer(tmp_path).draw(rows, 0.4, "Average of 2")
    assert drawn == [(rows[0], 0.4, "average_of_2")]


def test_only_the_first_process_writes(tmp_path: Path) -> None:
    other = writer(tmp_path, rank=1)
    other.write_row({"epoch": 1}, None)
    other.draw([], 0.5, "Best")  # with fewer cases than processes it has predicted none
    other.write_weights(tmp_path / "w", nn.Conv3d(1, 1, 1), progress=PROGRESS, result=RESULT)
    assert list(tmp_path.iterdir()) == []
