"""A submission compared with the truth, its start and the best grey threshold: a report, a picture and a verdict.

    python -m surface_train.records.showcase --data DIR --submission submission.zip [--start DIR] --out DIR

The data are what `surface_train phantom` wrote; the kernel never saw their test labels. The start's masks are what the
weights that the training began with make of the same volumes. The exit code is 4 where the demo's bar is missed.
"""

import argparse
import json
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from surface_kernel import disk
from surface_kernel.volumes import volume
from surface_phantom.hardness import measure
from surface_score import CaseScore, score_case
from surface_train.records.picture import draw
from surface_train.records.verdict import LARGEST_FACTOR, LEAST_GAIN, LEAST_LEAD, Verdict

Grey = npt.NDArray[np.uint8]
DONE, BELOW_BAR = 0, 4


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A test case with its truth, its prediction and their scores."""

    case: str
    image: Grey
    label: Grey
    mask: Grey
    score: CaseScore
    start: CaseScore | None
    """Of the mask that the start's weights make; None without a start."""
    threshold_dice: float
    """Dice of the best single grey threshold, chosen with the label at hand."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write OUT/report.txt, OUT/picture.png and OUT/verdict.json; exit code 4 where the demo's bar is missed."""
    parser = argparse.ArgumentParser(prog="surface_train.records.showcase", description=main.__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--submission", type=Path, required=True, metavar="ZIP")
    parser.add_argument("--start", type=Path, metavar="DIR")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parsed = parser.parse_args(arguments)
    shown = compare(parsed.data, parsed.submission, parsed.start)
    middle = sorted(shown, key=lambda row: row.score.surface_dice)[len(shown) // 2]
    draw(
        parsed.out / "picture.png",
        image=middle.image,
        label=middle.label,
        mask=middle.mask,
        title=f"test case {middle.case}, the median of {len(shown)} by surface Dice: the kernel's prediction",
    )
    verdict = judge(shown)
    disk.put(parsed.out / "report.txt", page(shown, verdict, parsed.out).encode())
    disk.put(parsed.out / "verdict.json", (json.dumps(verdict.to_entries(), indent=1) + "\n").encode())
    return BELOW_BAR if verdict.faults else DONE


def compare(data: Path, submission: Path, start: Path | None) -> list[Shown]:
    """Score every mask of a submission, and the start's, against the phantom's hidden labels."""
    shown: list[Shown] = []
    with zipfile.ZipFile(submission) as archive, tempfile.TemporaryDirectory() as scratch:
        for name in archive.namelist():
            mask = volume.read(Path(archive.extract(name, scratch)))
            image = volume.read(data / "competition" / "test_images" / name)
            label = volume.read(data / "test_labels" / name)
            shown.append(
                Shown(
                    case=Path(name).stem,
                    image=image,
                    label=label,
                    mask=mask,
                    score=score_case(mask, label),
                    start=score_case(volume.read(start / name), label) if start else None,
                    threshold_dice=measure(image, label).threshold_dice,
                )
            )
    return shown


def judge(shown: Sequence[Shown]) -> Verdict:
    """Return the means over the cases, which the demo's bar is about."""
    starts = [row.start.dice for row in shown if row.start]
    return Verdict(
        dice=_mean(row.score.dice for row in shown),
        start_dice=_mean(starts) if starts else None,
        threshold_dice=_mean(row.threshold_dice for row in shown),
        predicted_share=_mean(row.score.predicted_share for row in shown),
        truth_share=_mean(row.score.truth_share for row in shown),
    )


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def page(shown: Sequence[Shown], verdict: Verdict, folder: Path) -> str:
    """Return the report: what was made, how good it is, where it is and what comes next."""
    rows = [
        f"  {row.case:>12}  {_dice(row.start):>6}  {row.score.dice:6.3f}  {row.threshold_dice:13.3f}"
        f"  {row.score.surface_dice:12.3f}  {row.score.voi_score:9.3f}  {row.score.score:5.3f}"
        f"  {row.score.predicted_share:9.1%}  {row.score.truth_share:6.1%}"
        for row in shown
    ]
    return "\n".join(
        [
            "Files",
            f"  {folder}/data/competition   phantom volumes in the layout of the competition's data",
            f"  {folder}/data/test_labels   labels of the test volumes, never shown to the kernel",
            f"  {folder}/run                the training: settings, log.csv, pictures, weights.safetensors",
            f"  {folder}/bundle             the dataset that would be uploaded to Kaggle",
            f"  {folder}/rehearsal          the kernel's report on it; the rehearsal's own is bundle.rehearsed.json",
            f"  {folder}/submission.zip     the kernel's predictions of the test volumes, made offline",
            f"  {folder}/score.json         its score, case by case",
            f"  {folder}/verdict.json       the means below, the bar, and what missed it",
            f"  {folder}/picture.png        CT, truth and prediction in three planes",
            "",
            "Scores on labelled voxels (label 2 is ignored)",
            "       test case   start    Dice  best threshold  surface Dice  VOI score  score  predicted   truth",
            *rows,
            f"  Mean Dice {verdict.dice:.3f}, "
            f"mean surface Dice {_mean(row.score.surface_dice for row in shown):.3f}, "
            f"mean competition score {_mean(row.score.score for row in shown):.3f}.",
            *_start_lines(verdict),
            "  The best single grey threshold, chosen with the labels at hand, reaches Dice "
            f"{verdict.threshold_dice:.3f}.",
            *_judged(verdict),
            "  Trained for minutes on phantoms: this shows that the pipeline works, not how good it can get.",
            "",
            "Next steps, with the competition's data",
            "  1. kaggle competitions download -c vesuvius-challenge-surface-detection (26 GB); unpack it to DATA",
            "  2. python -m surface_train fit --settings train/settings/unet_resnet18.toml --data DATA --fold 3",
            "  3. python -m surface_package build --weights runs/unet_resnet18/fold_3/weights.safetensors \\",
            "         --settings package/settings/competition.toml --out BUNDLE",
            "  4. python -m surface_package rehearse BUNDLE --data DATA",
            "  5. python -m surface_package init, then: python -m surface_package publish BUNDLE",
            "",
        ]
    )


def _dice(score: CaseScore | None) -> str:
    return f"{score.dice:.3f}" if score else "-"


def _start_lines(verdict: Verdict) -> list[str]:
    if verdict.start_dice is None:
        return []
    return [f"  The weights that the training began with reach Dice {verdict.start_dice:.3f}."]


def _judged(verdict: Verdict) -> list[str]:
    """Return the bar and whether it is met, and each thing that keeps it from that."""
    gain = "" if verdict.start_dice is None else f", {LEAST_GAIN} above the start"
    bar = f"Dice {LEAST_LEAD} above that{gain}, and foreground within a factor of {LARGEST_FACTOR} of the truth"
    faults = [f"    {fault}." for fault in verdict.faults]
    return [f"  The demo's bar, {bar}: {'NOT met' if faults else 'met'}.", *faults]


if __name__ == "__main__":
    sys.exit(main())
