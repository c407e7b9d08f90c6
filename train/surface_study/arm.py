"""One arm of the study, new or resumed: its training, its evaluation on test volumes, its several ways of inference."""

import csv
import io
import json
import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from surface_kernel import disk, probability
from surface_kernel.inference.engine import Engine
from surface_kernel.inference.settings import Settings as KernelSettings
from surface_study import measure, phantoms, reading
from surface_study.measure import Measured
from surface_study.phantoms import LabelledPhantom
from surface_study.plan import Arm, StudyPlan
from surface_study.reading import Reading
from surface_train import settings
from surface_train.loop.fit import Request, fit

log = logging.getLogger("surface_study")

RESULT, READ = "result.json", "reading.json"


@dataclass(frozen=True, kw_only=True)
class ArmResult:
    """The result of an arm's training."""

    arm: Arm
    epochs: tuple[Mapping[str, float], ...]
    """The numbers of log.csv."""
    volumes: tuple[Measured, ...]
    """One per test volume, in their order."""
    train_s: float
    judge_s: float
    """Seconds of the evaluation."""
    picture: npt.NDArray[np.float32]
    """Probabilities (y, x) of the middle slice of the first test volume."""


def folder(work: Path, arm: Arm) -> Path:
    """Return the folder of an arm."""
    return work / arm.name


def is_done(path: Path, plan: StudyPlan) -> bool:
    """Whether an arm's RESULT or READ exists and belongs to this plan."""
    return path.is_file() and json.loads(path.read_text(encoding="utf-8"))["plan"] == plan.digest


def train(work: Path, plan: StudyPlan, arm: Arm) -> None:
    """Train an arm, or resume its training, evaluate it on the test volumes, and write RESULT."""
    place = folder(work, arm)
    run, file = place / "run", place / f"{arm.name}.toml"
    text = plan.settings_toml(arm)
    if not file.is_file() or file.read_text(encoding="utf-8") != text:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        disk.put(file, text.encode())
    begun = (run / "settings.toml").is_file()
    fit(
        Request(
            settings_file=file,
            settings=settings.read(file),
            data=phantoms.training_data(work),
            fold="all",
            out=run,
            resume=begun,
            device="cpu",
        )
    )
    started_s = time.monotonic()
    engine = Engine.load([run / "weights.safetensors"], KernelSettings(), device_name="cpu")
    volumes, picture = _evaluate(engine, phantoms.unseen(work))
    _save_array(place / "picture.npy", picture)
    epochs = _epochs(run / "log.csv")
    entries = {
        "plan": plan.digest,
        "epochs": epochs,
        "volumes": [asdict(row) for row in volumes],
        "train_s": sum(row["seconds"] for row in epochs),
        "judge_s": time.monotonic() - started_s,
    }
    disk.put(place / RESULT, json.dumps(entries, indent=1).encode())
    for path in run.glob("*.safetensors"):  # a gigabyte per arm: only what is read later is kept
        if path.name != "weights.safetensors":
            path.unlink()


def read(work: Path, plan: StudyPlan, arm: Arm) -> None:
    """Run an arm's network on the large phantom in every way of inference, and write READ."""
    started_s = time.monotonic()
    engine = Engine.load([folder(work, arm) / "run" / "weights.safetensors"], KernelSettings(), device_name="cpu")
    grid = reading.reference_grid(plan.big, plan.big_tile)
    shares = reading.read(reading.tile_logits(engine, phantoms.big(work).image, grid), grid)
    entries = {"plan": plan.digest, "reading": asdict(shares), "seconds": time.monotonic() - started_s}
    disk.put(folder(work, arm) / READ, json.dumps(entries, indent=1).encode())


def load_result(work: Path, arm: Arm) -> ArmResult:
    """Return what `train` wrote."""
    place = folder(work, arm)
    entries = json.loads((place / RESULT).read_text(encoding="utf-8"))
    volumes = tuple(Measured(**_with_tuple(row)) for row in entries["volumes"])
    picture = np.load(place / "picture.npy", allow_pickle=False)
    return ArmResult(
        arm=arm,
        epochs=tuple(entries["epochs"]),
        volumes=volumes,
        train_s=entries["train_s"],
        judge_s=entries["judge_s"],
        picture=picture,
    )


def load_reading(work: Path, arm: Arm) -> tuple[Reading, float]:
    """Return what `read` wrote, and the seconds that it took."""
    entries = json.loads((folder(work, arm) / READ).read_text(encoding="utf-8"))
    return Reading(**entries["reading"]), entries["seconds"]


def _evaluate(engine: Engine, unseen: list[LabelledPhantom]) -> tuple[list[Measured], npt.NDArray[np.float32]]:
    volumes, pictures = [], []
    for phantom in unseen:
        logits = np.concatenate([slab for _, slab in engine.logits(phantom.image)])
        probabilities = probability.probabilities(logits)
        row = measure.of_probability(phantom.name, probabilities, phantom.label)
        volumes.append(row)
        pictures.append(probabilities[len(probabilities) // 2])
        log.info("%s: foreground %.2f %%, surface Dice %.3f", phantom.name, 100 * row.foreground, row.surface_dice)
    return volumes, pictures[0]


def _save_array(path: Path, array: npt.NDArray[np.float32]) -> None:
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    disk.put(path, content.getvalue())


def _epochs(table: Path) -> list[dict[str, float]]:
    """Return the numbers of log.csv; without a validation fold its columns of the validation are empty."""
    with table.open(newline="", encoding="utf-8") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def _with_tuple(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"surface_dice_at": tuple(row["surface_dice_at"])}
