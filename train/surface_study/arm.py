"""One arm of the study, begun or gone on with: its training, its judgement on unseen volumes, its several readings."""

import csv
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
from surface_study import measure, reading, worlds
from surface_study.measure import Measured
from surface_study.plan import Arm, Plan
from surface_study.reading import Reading
from surface_train import settings
from surface_train.loop.fit import Request, fit

log = logging.getLogger("surface_study")

RESULT, READ = "result.json", "reading.json"


@dataclass(frozen=True)
class Result:
    """What an arm's training came to. epochs: log.csv's numbers; volumes: one an unseen volume, in their order.

    picture: probabilities, float32 (y, x), of the middle slice of the first unseen volume.
    """

    arm: Arm
    epochs: tuple[Mapping[str, float], ...]
    volumes: tuple[Measured, ...]
    train_s: float
    judge_s: float
    picture: npt.NDArray[np.float32]


def folder(work: Path, arm: Arm) -> Path:
    """Give the folder of an arm."""
    return work / arm.name


def done(work: Path, plan: Plan, arm: Arm, name: str) -> bool:
    """Say whether RESULT or READ of an arm is there and belongs to this plan."""
    path = folder(work, arm) / name
    return path.is_file() and json.loads(path.read_text())["plan"] == plan.digest


def train(work: Path, plan: Plan, arm: Arm) -> None:
    """Train an arm, or go on with a killed training, judge it on the unseen volumes, and leave RESULT."""
    place = folder(work, arm)
    run, file = place / "run", place / f"{arm.name}.toml"
    text = plan.settings_toml(arm)
    if not file.is_file() or file.read_text() != text:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        disk.put(file, text.encode())
    begun = (run / "settings.toml").is_file()
    fit(
        Request(
            settings_file=file,
            settings=settings.read(file),
            data=worlds.training_data(work),
            fold="all",
            out=run,
            resume=begun,
            device="cpu",
        )
    )
    started_s = time.monotonic()
    engine = Engine.load([run / "weights.safetensors"], KernelSettings(), device_name="cpu")
    volumes, picture = _judge(engine, worlds.unseen(work))
    np.save(place / "picture.npy", picture)
    epochs = _epochs(run / "log.csv")
    entries = {
        "plan": plan.digest,
        "epochs": epochs,
        "volumes": [asdict(row) for row in volumes],
        "train_s": sum(row["seconds"] for row in epochs),
        "judge_s": time.monotonic() - started_s,
    }
    disk.put(place / RESULT, json.dumps(entries, indent=1).encode())
    for path in run.glob("*.safetensors"):  # a gigabyte an arm: only what is read later stays
        if path.name != "weights.safetensors":
            path.unlink()


def read(work: Path, plan: Plan, arm: Arm) -> None:
    """Read an arm's network on the large phantom in every way, and leave READ."""
    started_s = time.monotonic()
    engine = Engine.load([folder(work, arm) / "run" / "weights.safetensors"], KernelSettings(), device_name="cpu")
    boxes = reading.grid(plan.big, plan.big_tile)
    found = reading.read(reading.tile_logits(engine, worlds.big(work).image, boxes), boxes)
    entries = {"plan": plan.digest, "reading": asdict(found), "seconds": time.monotonic() - started_s}
    disk.put(folder(work, arm) / READ, json.dumps(entries, indent=1).encode())


def load_result(work: Path, arm: Arm) -> Result:
    """Read what `train` left."""
    place = folder(work, arm)
    entries = json.loads((place / RESULT).read_text())
    volumes = tuple(Measured(**_with_tuple(row)) for row in entries["volumes"])
    picture = np.load(place / "picture.npy", allow_pickle=False)
    return Result(arm, tuple(entries["epochs"]), volumes, entries["train_s"], entries["judge_s"], picture)


def load_reading(work: Path, arm: Arm) -> tuple[Reading, float]:
    """Read what `read` left, and the seconds that it took."""
    entries = json.loads((folder(work, arm) / READ).read_text())
    return Reading(**entries["reading"]), entries["seconds"]


def _judge(engine: Engine, unseen: list[worlds.World]) -> tuple[list[Measured], npt.NDArray[np.float32]]:
    volumes, pictures = [], []
    for world in unseen:
        logits = np.concatenate([slab for _, slab in engine.logits(world.image)])
        probabilities = probability.probabilities(logits)
        volumes.append(measure.of_probability(world.name, probabilities, world.label))
        pictures.append(probabilities[len(probabilities) // 2])
        log.info("%s: foreground %.2f %%, surface Dice %.3f", world.name, *_percent_and_score(volumes[-1]))
    return volumes, pictures[0]


def _percent_and_score(row: Measured) -> tuple[float, float]:
    return 100 * row.foreground, row.surface_dice


def _epochs(table: Path) -> list[dict[str, float]]:
    """Read log.csv's numbers; a training that is checked on nothing leaves the validation's columns empty."""
    with table.open(newline="") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def _with_tuple(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"surface_dice_at": tuple(row["surface_dice_at"])}
