"""docs/bias_study.md: the questions, the measurements, and where they disagree with the guide."""

import math
import platform
from collections.abc import Mapping
from dataclasses import astuple
from importlib.metadata import version
from pathlib import Path

import numpy as np

from surface_kernel import disk
from surface_kernel.machine import cores
from surface_study import chart, expectations, guide, phantoms, table
from surface_study.expectations import grid
from surface_study.findings import Findings, load
from surface_study.phantoms import LabelShares
from surface_study.plan import (
    CONVENTIONS,
    FULL,
    REFERENCE_BOTH,
    REFERENCE_BOTH_STD,
    REFERENCE_SURFACE,
    StudyPlan,
)
from surface_study.table import OLD, OverSeeds
from surface_study.verdicts import verdicts
from surface_train.records.environment import commit

NAME = "bias_study"
COMMAND = "scripts/bias_study.sh"
BY_HAND, END_BY_HAND = "<!-- by hand: kept when the page is regenerated -->", "<!-- end of the part by hand -->"


def write(work: Path, docs: Path, plan: StudyPlan) -> list[Path]:
    """Write the page and the picture, and return their paths. The part of the page written by hand is kept.

    Args:
        work: The folder of the study, complete.
        docs: The folder for the page, created if missing.
        plan: The plan that the study followed.
    """
    unseen = phantoms.unseen(work)
    findings = load(work, plan, unseen)
    docs.mkdir(parents=True, exist_ok=True)
    text, picture = docs / f"{NAME}.md", docs / f"{NAME}.png"
    by_hand = written_by_hand(text.read_text(encoding="utf-8")) if text.is_file() else ""
    chart.draw(picture, plan=plan, results=findings.results, phantom=unseen[0])
    disk.put(text, page(findings, by_hand).encode())
    return [text, picture]


def written_by_hand(text: str) -> str:
    """Return the part of a page between the marks for what is written by hand; empty without the marks."""
    _, begin, rest = text.partition(BY_HAND)
    inside, end, _ = rest.partition(END_BY_HAND)
    return inside.strip() if begin and end else ""


def page(findings: Findings, by_hand: str) -> str:
    """Return the page."""
    parts = [
        "# Do the losses collapse? A study on phantoms",
        _question(),
        f"![foreground, surface Dice, variance, and slices]({NAME}.png)",
        "## In short",
        *verdicts(findings),
        f"{BY_HAND}\n{by_hand}\n{END_BY_HAND}",
        "## The data",
        shares_line(findings.shares),
        _data(findings),
        "## The losses",
        *_losses(findings),
        "## The same networks under the reference's inference",
        *_readings(findings),
        "## Against the guide's expected results",
        *_expectations(findings),
        "## Every row of the guide",
        *guide.text(),
        "## How this page was produced",
        _provenance(findings),
    ]
    return "\n\n".join(parts) + "\n"


def shares_line(shares: LabelShares) -> str:
    """Return how the phantoms' labels compare with the reference's, in one paragraph."""
    return (
        f"Label 1 or 2: {100 * shares.both:.1f} % ± {100 * shares.both_std:.1f} % of a training volume's voxels "
        f"(the reference: {100 * REFERENCE_BOTH:.1f} % ± {100 * REFERENCE_BOTH_STD:.1f} %). Label 1: "
        f"{100 * shares.surface:.1f} % of all voxels (the competition: {100 * REFERENCE_SURFACE:.1f} %), "
        f"{100 * shares.surface_of_labelled:.1f} % of the labelled ones."
    )


def _question() -> str:
    return """\
A training guide of the reference system, dated 2026-01-14, describes a model that called 99.88 % of every volume
foreground. It attributes this to the loss and changes it. The questions here: does any of the four losses collapse,
under either convention for label 2 (unlabelled voxels ignored, or counted as surface as the reference did); which loss
is best; and what does the reference's public inference code make of the same networks?"""


def _data(findings: Findings) -> str:
    plan = findings.plan
    return (
        f"{plan.volumes} training phantoms of about {'×'.join(map(str, plan.size_zyx))} voxels, {plan.unseen} test "
        f"phantoms, and one of {plan.big}³. Seed {plan.data_seed}."
    )


_HEADS = {
    "foreground": "foreground, %",
    "truth": "truth, %",
    "foreground_whole": "foreground of all voxels, %",
    "variance": "variance of p",
    "entropy": "entropy, nats",
    "dice": "Dice",
    "surface_dice": "surface Dice",
    "best_surface_dice": "surface Dice at the best threshold",
    "best_threshold": "that threshold",
    "dice_whole": "Dice, label 2 as surface",
}


def _losses(findings: Findings) -> list[str]:
    rows = table.by_loss(findings.results)
    parts = [
        f"Means over {findings.plan.unseen} test volumes, then mean ± standard deviation over "
        f"{len(findings.plan.seeds)} seeds. Foreground, truth, variance, entropy, Dice and surface Dice are over the "
        "voxels labelled 0 or 1, at threshold 0.5 unless stated otherwise. The best threshold, of 0.2 to 0.7, was "
        "chosen on the test labels, one per network: an upper bound of what calibration could recover."
    ]
    for label_2 in CONVENTIONS:
        lines = [
            [f"`{preset}`", *_cells(table.over_seeds(results))]
            for (preset, label), results in rows.items()
            if label == label_2
        ]
        parts += [f"### Trained with label 2 {label_2}", grid(["loss", *_HEADS.values()], lines)]
    free = [
        [name, *_cells({key: OverSeeds(value, math.nan) for key, value in table.of_volumes(volumes).items()})]
        for name, volumes in findings.trivial.items()
    ]
    parts += ["### Predictions that need no network", grid(["prediction", *_HEADS.values()], free)]
    return parts


def _cells(row: Mapping[str, OverSeeds]) -> list[str]:
    percent = ("foreground", "truth", "foreground_whole")
    return [
        "–" if math.isnan(row[name].mean) else row[name].text(1, 100) if name in percent else row[name].text(3)
        for name in _HEADS
    ]


def _readings(findings: Findings) -> list[str]:
    heads = [
        "trained with",
        "our inference, %",
        "its weights, one sigmoid, %",
        "and post-processing, %",
        "its weights, two sigmoids, %",
        "and post-processing, %",
    ]
    lines = [
        [f"`{preset}`, label 2 {label_2}", *(f"{100 * share:.2f}" for share in astuple(reading))]
        for (preset, label_2), (reading, _) in findings.readings.items()
    ]
    plan = findings.plan
    caption = (
        f"Foreground of one test phantom of {plan.big}³, seed {plan.seeds[0]}, threshold 0.5. Each network was run on "
        f"the tiles of {plan.big_tile}³ once; all columns use the same logits. Two sigmoids put every voxel at 0.5 or "
        "above; the weights are 0 on the volume's faces, which are all that remains background."
    )
    return [caption, grid(heads, lines)]


def _expectations(findings: Findings) -> list[str]:
    rows = table.by_loss(findings.results)
    return expectations.text(
        surface=rows[OLD, "surface"],
        ignored=rows[OLD, "ignored"],
        original=rows["original", "surface"],
        trivial=findings.trivial,
    )


def _provenance(findings: Findings) -> str:
    train_s, judge_s = ([getattr(result, name) for result in findings.results] for name in ("train_s", "judge_s"))
    read_s = [seconds for _, seconds in findings.readings.values()]
    plan = findings.plan
    total_h = (sum(train_s) + sum(judge_s) + sum(read_s)) / 3600
    command = COMMAND if plan == FULL else f"{COMMAND} --quick"
    seeds = ", ".join(map(str, plan.seeds))
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy"))
    return f"""\
`{command}` at commit {commit()}. {len(findings.results)} trainings of {plan.decoder}/{plan.encoder}:
{plan.epochs} epochs of {plan.steps_per_epoch} steps of {plan.batch} patches of {plan.patch}³, seeds {seeds}, AdamW,
learning rate 1e-3, cosine; the last state, with BatchNorm's statistics recomputed. On one core each:
{np.mean(train_s):.0f} s of training, {np.mean(judge_s):.0f} s of evaluation, and {np.mean(read_s):.0f} s for all ways
of inference of one network; {total_h:.1f} core-hours in total, phantoms not included. Machine: {machine()}.
Python {platform.python_version()}, {libraries}."""


def machine() -> str:
    """Return the processor's name and how many cores this process may use."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.machine()}, {cores()} cores"
