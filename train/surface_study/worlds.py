"""The phantoms that everything is trained and judged on, made once."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from surface_kernel.volumes import volume
from surface_kernel.volumes.image_files import write_lzw
from surface_phantom.dataset import make_volume, write_dataset
from surface_phantom.looks import LOOKS
from surface_study.plan import Plan

Grey = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class World:
    """A phantom with its label, both uint8 (z, y, x)."""

    name: str
    image: Grey
    label: Grey


@dataclass(frozen=True)
class Shares:
    """Means over volumes: label 1 of all voxels, 1 and 2 of all, its standard deviation, label 1 of the labelled."""

    surface: float
    both: float
    both_spread: float
    surface_of_labelled: float


def make(work: Path, plan: Plan) -> None:
    """Make WORK/data and WORK/big, unless they are there. Each appears complete or not at all."""
    data, big = work / "data", work / "big"
    if not data.exists():
        partial = _emptied(work / "data.partial")
        write_dataset(partial, plan.volumes, plan.unseen, plan.size_zyx, plan.data_seed)
        partial.rename(data)
    if not big.exists():
        partial = _emptied(work / "big.partial")
        partial.mkdir(parents=True)
        made = make_volume((plan.data_seed, plan.big), (plan.big,) * 3, LOOKS[0])
        write_lzw(partial / "image.tif", made.image)
        write_lzw(partial / "label.tif", made.label)
        partial.rename(big)


def training_data(work: Path) -> Path:
    """Give the folder that a training reads."""
    return work / "data" / "competition"


def unseen(work: Path) -> list[World]:
    """Read the volumes that no training saw, in the order of their names."""
    images = sorted((work / "data" / "competition" / "test_images").glob("*.tif"))
    labels = work / "data" / "test_labels"
    return [World(path.stem, volume.read(path), volume.read(labels / path.name)) for path in images]


def big(work: Path) -> World:
    """Read the large phantom, which no training saw either."""
    return World("big", volume.read(work / "big" / "image.tif"), volume.read(work / "big" / "label.tif"))


def shares(work: Path) -> Shares:
    """Count the labels of the volumes to learn from."""
    folder = work / "data" / "competition" / "train_labels"
    return count([volume.read(path) for path in sorted(folder.glob("*.tif"))])


def count(labels: Sequence[Grey]) -> Shares:
    """Count labels {0, 1, 2} of one or more volumes; a volume without a labelled voxel counts as without surface."""
    surface = np.array([(label == 1).mean() for label in labels])
    both = np.array([(label > 0).mean() for label in labels])
    labelled = np.array([(label < 2).mean() for label in labels])
    of_labelled = np.divide(surface, labelled, out=np.zeros_like(surface), where=labelled > 0)
    return Shares(float(surface.mean()), float(both.mean()), float(both.std()), float(of_labelled.mean()))


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return folder
