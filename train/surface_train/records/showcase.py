"""A submission held against the truth and against the best that grey values alone could do: a page and a picture.

    python -m surface_train.records.showcase --data DIR --submission submission.zip --out DIR

DIR is what `surface_train phantom` made: its test labels are what the kernel never saw.
"""

import argparse
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from surface_kernel.volumes import volume
from surface_phantom.hardness import measure
from surface_score import CaseScore, score_case
from surface_train.records.picture import draw

Grey = npt.NDArray[np.uint8]
BAR = 0.15  # by how much the demo's mean Dice should beat the best grey threshold


@dataclass(frozen=True)
class Shown:
    """A test case: its CT, truth and mask, its score, and the Dice of the best single grey threshold."""

    case: str
    image: Grey
    label: Grey
    mask: Grey
    score: CaseScore
    threshold_dice: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Write OUT/report.txt and OUT/picture.png."""
    parser = argparse.ArgumentParser(prog="surface_train.records.showcase", description=main.__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--submission", type=Path, required=True, metavar="ZIP")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parsed = parser.parse_args(arguments)
    shown = compare(parsed.data, parsed.submission)
    middle = sorted(shown, key=lambda row: row.score.surface_dice)[len(shown) // 2]
    title = f"test case {middle.case}, the middle one of {len(shown)} by surface Dice: what the kernel found"
    draw(parsed.out / "picture.png", middle.image, middle.label, middle.mask, title)
    (parsed.out / "report.txt").write_text(page(shown, parsed.out))
    return 0


def compare(data: Path, submission: Path) -> list[Shown]:
    """Score every mask of a submission against the phantom's hidden labels."""
    shown = []
    with zipfile.ZipFile(submission) as archive, tempfile.TemporaryDirectory() as scratch:
        for name in archive.namelist():
            mask = volume.read(Path(archive.extract(name, scratch)))
            image = volume.read(data / "competition" / "test_images" / name)
            label = volume.read(data / "test_labels" / name)
            score, hardness = score_case(mask, label), measure(image, label)
            shown.append(Shown(Path(name).stem, image, label, mask, score, hardness.threshold_dice))
    return shown


def _bar(shown: Sequence[Shown]) -> str:
    dice, threshold, predicted, truth = (
        float(np.mean(values))
        for values in zip(
            *((row.score.dice, row.threshold_dice, row.score.predicted_share, row.score.truth_share) for row in shown),
            strict=True,
        )
    )
    met = dice >= threshold + BAR and truth / 2 <= predicted <= 2 * truth
    return "met" if met else "NOT met"


def page(shown: Sequence[Shown], folder: Path) -> str:
    """Tell what was made, how good it is, where it lies and what comes next."""
    names = ("dice", "surface_dice", "score")
    mean = {name: float(np.mean([getattr(row.score, name) for row in shown])) for name in names}
    threshold = float(np.mean([row.threshold_dice for row in shown]))
    rows = [
        f"  {row.case:>12}  {row.score.dice:6.3f}  {row.threshold_dice:13.3f}  {row.score.surface_dice:12.3f}"
        f"  {row.score.voi_score:9.3f}  {row.score.score:5.3f}"
        f"  {row.score.predicted_share:9.1%}  {row.score.truth_share:6.1%}"
        for row in shown
    ]
    return "\n".join(
        [
            "What was made",
            f"  {folder}/data/competition   a scroll in small, laid out as the competition lays out its data",
            f"  {folder}/data/test_labels   the test volumes' labels, which the kernel did not see",
            f"  {folder}/run                the training: settings, log.csv, pictures, weights.safetensors",
            f"  {folder}/bundle             what would be uploaded to Kaggle as a dataset",
            f"  {folder}/rehearsal          the kernel's own report of that; bundle.rehearsed.json is the rehearsal's",
            f"  {folder}/submission.zip     what the kernel made of the test volumes, offline",
            f"  {folder}/score.json         the score of that, case by case",
            f"  {folder}/picture.png        CT, truth and prediction in three planes",
            "",
            "How good it is, on labelled voxels (label 2 is ignored)",
            "       test case    Dice  best threshold  surface Dice  VOI score  score  predicted   truth",
            *rows,
            f"  Mean Dice {mean['dice']:.3f}, mean surface Dice {mean['surface_dice']:.3f}, "
            f"mean score as the competition has it {mean['score']:.3f}.",
            f"  The best single grey threshold, chosen with the answers in hand, reaches Dice {threshold:.3f}.",
            f"  The demo's bar, Dice {BAR} above that and foreground within a factor 2 of the truth: {_bar(shown)}.",
            "  A phantom and minutes of training: this shows that the way works, not what it can reach.",
            "",
            "What to do next with real data",
            "  1. kaggle competitions download -c vesuvius-challenge-surface-detection (26 GB); unpack it to DATA",
            "  2. python -m surface_train fit --settings train/settings/unet_resnet18.toml --data DATA --fold 3",
            "  3. python -m surface_package build --weights runs/unet_resnet18/fold_3/weights.safetensors \\",
            "         --settings package/settings/competition.toml --out BUNDLE",
            "  4. python -m surface_package rehearse BUNDLE --data DATA",
            "  5. python -m surface_package init, then: python -m surface_package publish BUNDLE",
            "",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
