"""The phantoms that everything is trained and evaluated on, generated once."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from surface_kernel.volumes import volume
from surface_kernel.volumes.image_files import write_lzw
from surface_phantom import LOOKS, make_volume, write_dataset
from surface_study.plan import StudyPlan

Grey = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class LabelledPhantom:
    """A phantom with its label, both uint8 (z, y, x)."""

    name: str
    image: Grey
    label: Grey


@dataclass(frozen=True, kw_only=True)
class LabelShares:
    """How frequent the labels are: means over volumes."""

    surface: float
    """Label 1, as a share of all voxels."""
    both: float
    """Labels 1 and 2, as a share of all voxels."""
    both_std: float
    """Standard deviation of `both` over volumes."""
    surface_of_labelled: float
    """Label 1, as a share of the voxels labelled 0 or 1."""


def make(work: Path, plan: StudyPlan) -> None:
    """Generate WORK/data and WORK/big unless they exist. Each appears complete or not at all."""
    data, big = work / "data", work / "big"
    if not data.exists():
        partial = _emptied(work / "data.partial")
        write_dataset(
            partial,
            volumes=plan.volumes,
            test_volumes=plan.unseen,
            size_zyx=plan.size_zyx,
            seed=plan.data_seed,
        )
        partial.rename(data)
    if not big.exists():
        partial = _emptied(work / "big.partial")
        partial.mkdir(parents=True)
        made = make_volume((plan.data_seed, plan.big), (plan.big,) * 3, LOOKS[0])
        write_lzw(partial / "image.tif", made.image)
        write_lzw(partial / "label.tif", made.label)
        partial.rename(big)


def training_data(work: Path) -> Path:
    """Return the folder that a training reads."""
    return work / "data" / "competition"


def unseen(work: Path) -> list[LabelledPhantom]:
    """Return the test volumes, in the order of their names."""
    images = sorted((work / "data" / "competition" / "test_images").glob("*.tif"))
    labels = work / "data" / "test_labels"
    return [LabelledPhantom(path.stem, volume.read(path), volume.read(labels / path.name)) for path in images]


def big(work: Path) -> LabelledPhantom:
    """Return the large phantom, a test volume too."""
    return LabelledPhantom("big", volume.read(work / "big" / "image.tif"), volume.read(work / "big" / "label.tif"))


def shares(work: Path) -> LabelShares:
    """Return the label shares of the training volumes."""
    folder = work / "data" / "competition" / "train_labels"
    return count([volume.read(path) for path in sorted(folder.glob("*.tif"))])


def count(labels: Sequence[Grey]) -> LabelShares:
    """Return the label shares of one or more volumes; one without a labelled voxel counts as without surface."""
    surface = np.array([(label == 1).mean() for label in labels])
    both = np.array([(label > 0).mean() for label in labels])
    labelled = np.array([(label < 2).mean() for label in labels])
    of_labelled = np.divide(surface, labelled, out=np.zeros_like(surface), where=labelled > 0)
    return LabelShares(
        surface=float(surface.mean()),
        both=float(both.mean()),
        both_std=float(both.std()),
        surface_of_labelled=float(of_labelled.mean()),
    )


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return folder
