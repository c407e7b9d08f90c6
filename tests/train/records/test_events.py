import os
import socket
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scenes import ROOT

from surface_train.records import events

VALIDATED = {
    **{"epoch": 5, "seconds": 1.5, "learning_rate": 1e-3, "loss": 0.5, "dice": 0.25, "variance_of_p": 0.125},
    **{"val_threshold": 0.45, "val_surface_dice": 0.75},
}
UNVALIDATED = VALIDATED | {"epoch": 4, "val_threshold": "", "val_surface_dice": ""}


def read(folder: Path) -> Any:
    """Read what TensorBoard would show."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        return EventAccumulator(str(folder), {"images": 0, "scalars": 0}).Reload()


def shown(folder: Path) -> dict[str, dict[int, float]]:
    found = read(folder)
    return {tag: {it.step: it.value for it in found.Scalars(tag)} for tag in found.Tags()["scalars"]}


def row(epoch: int, loss: float) -> dict[str, float]:
    return {"epoch": epoch, "loss": loss}


def test_a_row_has_its_names_in_tensorboard() -> None:
    assert events.scalars(VALIDATED) == {
        "seconds": 1.5,
        "learning_rate": 1e-3,
        "train/loss": 0.5,
        "train/dice": 0.25,
        "train/variance_of_p": 0.125,
        "val/threshold": 0.45,
        "val/surface_dice": 0.75,
    }
    assert not [name for name in events.scalars(UNVALIDATED) if name.startswith("val/")]
    assert events.scalars({"epoch": 1, "loss": "0.5", "note": "text", "none": None}) == {"train/loss": 0.5}


def test_epochs_are_read_back_by_tensorboard(tmp_path: Path) -> None:
    events.write(tmp_path / "run" / "events", UNVALIDATED)
    events.write(tmp_path / "run" / "events", VALIDATED)
    found = shown(tmp_path / "run" / "events")
    assert found["train/loss"] == {4: 0.5, 5: 0.5}
    assert found["val/surface_dice"] == {5: 0.75}
    assert found["learning_rate"] == {4: pytest.approx(1e-3), 5: pytest.approx(1e-3)}


def test_a_picture_is_read_back_to_the_pixel(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "p.png")
    events.write(tmp_path / "events", VALIDATED, tmp_path / "p.png")
    (image,) = read(tmp_path / "events").Images("val/picture")
    (tmp_path / "found.png").write_bytes(image.encoded_image_string)
    assert image.step == 5
    with Image.open(tmp_path / "found.png") as opened:
        np.testing.assert_array_equal(np.asarray(opened), pixels)


def test_a_resumed_run_does_not_double(tmp_path: Path) -> None:
    for epoch in range(1, 13):
        events.write(tmp_path, row(epoch, 1.0))
    events.forget_after(tmp_path, 9)
    assert list(shown(tmp_path)["train/loss"]) == list(range(1, 10))
    for epoch in range(10, 12):
        events.write(tmp_path, row(epoch, 2.0))
    assert shown(tmp_path)["train/loss"] == {epoch: 1.0 if epoch < 10 else 2.0 for epoch in range(1, 12)}
    assert len(list(tmp_path.iterdir())) == 11


def test_an_epoch_written_again_replaces_itself(tmp_path: Path) -> None:
    for loss in (1.0, 2.0):
        events.write(tmp_path, row(1, loss))
    assert shown(tmp_path)["train/loss"] == {1: 2.0}


def test_files_are_named_by_epoch_and_not_by_machine(tmp_path: Path) -> None:
    events.write(tmp_path, row(7, 1.0))
    (made,) = tmp_path.iterdir()
    assert made.name == "events.out.tfevents.000007"
    assert socket.gethostname().encode() + b"." not in made.read_bytes()


def test_a_write_that_fails_leaves_no_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open

    def full(path: Path, mode: str = "r", *rest: Any, **named: Any) -> Any:
        file = real(path, mode, *rest, **named)
        if mode == "wb" and path.parent == tmp_path:
            file.write(b"the first half")
            file.close()
            raise OSError("no space left")
        return file

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OSError, match="no space left"):
        events.write(tmp_path, row(7, 1.0))
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_was_writing_is_forgotten_too(tmp_path: Path) -> None:
    events.write(tmp_path, row(1, 1.0))
    (tmp_path / "events.out.tfevents.000001.77.partial").write_bytes(b"half")
    (tmp_path / "events.out.tfevents.1700000000.elsewhere").write_bytes(b"")  # somebody else's
    events.forget_after(tmp_path, 1)
    assert {path.suffix for path in tmp_path.iterdir()} == {".000001", ".elsewhere"}


def test_without_a_folder_there_is_nothing_to_forget(tmp_path: Path) -> None:
    events.forget_after(tmp_path / "none", 3)
    assert not (tmp_path / "none").exists()


def test_the_librarys_warnings_are_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.utils.tensorboard import SummaryWriter

    real = SummaryWriter.add_scalar

    def warns(*given: Any) -> None:
        warnings.warn("some day this will be gone", DeprecationWarning, stacklevel=2)
        real(*given)

    monkeypatch.setattr(SummaryWriter, "add_scalar", warns)
    events.write(tmp_path, row(1, 1.0))  # warnings are errors in these tests
    assert shown(tmp_path)["train/loss"] == {1: 1.0}


def test_the_library_is_not_imported_before_it_is_needed() -> None:
    asked = "import sys, surface_train.records.events; sys.exit(bool({'torch', 'tensorboard'} & set(sys.modules)))"
    paths = os.pathsep.join(str(ROOT / room) for room in ("kernel", "train"))
    environment = os.environ | {"PYTHONPATH": paths}
    assert subprocess.run([sys.executable, "-c", asked], env=environment).returncode == 0
