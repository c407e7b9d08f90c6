"""docs/bias_study.md: what was asked, what was measured, and where it disagrees with the guide."""

import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from surface_kernel import disk
from surface_study import arm, chart, expectations, guide, measure, table, worlds
from surface_study.arm import Result
from surface_study.expectations import EVERYTHING
from surface_study.markdown import grid
from surface_study.measure import Measured
from surface_study.plan import (
    CONVENTIONS,
    FULL,
    REFERENCE_BOTH,
    REFERENCE_BOTH_SPREAD,
    REFERENCE_SURFACE,
    Plan,
)
from surface_study.reading import Reading
from surface_study.table import NEW, OLD, Key, Number
from surface_study.worlds import Shares, World
from surface_train.records.environment import commit

NAME = "bias_study"
COMMAND = "scripts/bias_study.sh"
BY_HAND, END_BY_HAND = "<!-- by hand: kept when the page is made anew -->", "<!-- end of what is by hand -->"


@dataclass(frozen=True)
class Findings:
    """All that the page tells. readings: with the seconds each took; trivial: predictions that need no network."""

    plan: Plan
    shares: Shares
    results: Sequence[Result]
    readings: Mapping[Key, tuple[Reading, float]]
    trivial: Mapping[str, Sequence[Measured]]


def write(work: Path, docs: Path, plan: Plan) -> list[Path]:
    """Write the page and the picture from what lies in `work`; give both. What was written by hand stays."""
    unseen = worlds.unseen(work)
    results = [arm.load_result(work, one) for one in plan.arms()]
    readings = {(one.preset, one.label_2): arm.load_reading(work, one) for one in plan.read_arms()}
    findings = Findings(plan, worlds.shares(work), results, readings, trivial(unseen))
    docs.mkdir(parents=True, exist_ok=True)
    text, picture = docs / f"{NAME}.md", docs / f"{NAME}.png"
    by_hand = kept(text.read_text()) if text.is_file() else ""
    chart.draw(picture, plan, results, unseen[0])
    disk.put(text, page(findings, by_hand).encode())
    return [text, picture]


def trivial(unseen: Sequence[World]) -> dict[str, list[Measured]]:
    """Measure predictions that need no network on each volume."""
    masks = {
        EVERYTHING: [np.ones(world.label.shape, bool) for world in unseen],
        "nothing is": [np.zeros(world.label.shape, bool) for world in unseen],
        "the best grey threshold": [measure.best_grey_mask(world.image, world.label) for world in unseen],
    }
    return {
        name: [measure.of_mask(world.name, mask, world.label) for world, mask in zip(unseen, made, strict=True)]
        for name, made in masks.items()
    }


def kept(text: str) -> str:
    """Give what stands between the marks for what is written by hand; nothing when they are not there."""
    _, begin, rest = text.partition(BY_HAND)
    inside, end, _ = rest.partition(END_BY_HAND)
    return inside.strip() if begin and end else ""


def page(findings: Findings, by_hand: str) -> str:
    """Write the page."""
    parts = [
        "# Do the losses collapse? A study on phantoms",
        _asked(),
        f"![foreground, surface Dice, variance, and slices]({NAME}.png)",
        "## In short",
        *verdicts(findings),
        f"{BY_HAND}\n{by_hand}\n{END_BY_HAND}",
        "## The data",
        shares_line(findings.shares),
        _data(findings),
        "## The losses",
        *_losses(findings),
        "## The same networks, read as the reference reads them",
        *_readings(findings),
        "## Against the guide's expected results",
        *_expected(findings),
        "## Every row of the guide",
        *guide.text(),
        "## How it was made",
        _made(findings),
    ]
    return "\n\n".join(parts) + "\n"


def shares_line(shares: Shares) -> str:
    """Tell how the phantoms' labels compare with the reference's."""
    return (
        f"Label 1 or 2: {100 * shares.both:.1f} % ± {100 * shares.both_spread:.1f} % of a training volume's voxels "
        f"(the reference: {100 * REFERENCE_BOTH:.1f} % ± {100 * REFERENCE_BOTH_SPREAD:.1f} %). Label 1: "
        f"{100 * shares.surface:.1f} % of all voxels (the competition: {100 * REFERENCE_SURFACE:.1f} %), "
        f"{100 * shares.surface_of_labelled:.1f} % of the labelled ones."
    )


def verdicts(findings: Findings) -> list[str]:
    """Say what follows from the numbers alone."""
    dead = table.collapsed(findings.results)
    count = len(findings.results)
    lines = [
        f"- **Collapse** (at least {table.COLLAPSED:.0%} foreground at 0.5, of the labelled or of all voxels): "
        + (f"{len(dead)} of {count} networks: {', '.join(dead)}." if dead else f"none of {count} networks."),
        _default_verdict(findings),
        _reading_verdict(findings.readings),
    ]
    return ["\n".join(lines)]


def _default_verdict(findings: Findings) -> str:
    rows = {key: table.over_seeds(results) for key, results in table.by_loss(findings.results).items()}
    said, better = [], []
    for column, where in (("surface_dice", "at 0.5"), ("best_surface_dice", "each at its best threshold")):
        found = table.compare(rows, column, (NEW, "ignored"), (OLD, "ignored"))
        better.append(found.is_better)
        spread = "one seed, no spread" if math.isnan(found.spread) else f"spread over seeds {found.spread:.3f}"
        said.append(f"{found.gain:+.3f} {where} ({spread})")
    verdict = {2: "is better", 1: "is better in one of two ways", 0: "is not better"}[sum(better)]
    text = f"- **`{NEW}` {verdict} than `{OLD}` by more than the spread**"
    return f"{text} in mean surface Dice, label 2 ignored: {'; '.join(said)}."


def _reading_verdict(readings: Mapping[Key, tuple[Reading, float]]) -> str:
    found = [reading for reading, _ in readings.values()]
    ours, twice, cleaned = (
        _range([getattr(reading, name) for reading in found]) for name in ("ours", "twice", "twice_cleaned")
    )
    return (
        f"- **The {len(found)} networks of the first seed on the large phantom**: {ours} foreground as we read them, "
        f"{twice} with the reference's second sigmoid and its weights, {cleaned} after its post-processing too."
    )


def _range(values: Sequence[float]) -> str:
    low, high = 100 * min(values), 100 * max(values)
    return f"{low:.2f} %" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f}–{high:.2f} %"


def _asked() -> str:
    return """\
A training guide of the reference system, dated 2026-01-14, describes a model that called 99.88 % of every volume
foreground. It blames the loss and mends it. Asked here: does any of the four losses collapse, under either reading of
label 2 (unlabelled voxels ignored, or counted as surface as the reference did); which loss is best; and what does the
reference's public inference code make of the same networks?"""


def _data(findings: Findings) -> str:
    plan = findings.plan
    return (
        f"{plan.volumes} phantoms of about {'×'.join(map(str, plan.size_zyx))} voxels to learn from, {plan.unseen} "
        f"that no training saw, and one of {plan.big}³. Seed {plan.data_seed}."
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
        f"Means over {findings.plan.unseen} unseen volumes, then mean ± standard deviation over "
        f"{len(findings.plan.seeds)} seeds. Foreground, truth, variance, entropy, Dice and surface Dice are over the "
        "voxels labelled 0 or 1, at threshold 0.5 unless said. The best threshold, of 0.2 to 0.7, was chosen with the "
        "answers in hand, one a network: what calibration alone could give back."
    ]
    for label_2 in CONVENTIONS:
        lines = [
            [f"`{preset}`", *_cells(table.over_seeds(results))]
            for (preset, label), results in rows.items()
            if label == label_2
        ]
        parts += [f"### Trained with label 2 {label_2}", grid(["loss", *_HEADS.values()], lines)]
    free = [
        [name, *_cells({key: Number(value, math.nan) for key, value in table.of_volumes(volumes).items()})]
        for name, volumes in findings.trivial.items()
    ]
    parts += ["### Predictions that need no network", grid(["prediction", *_HEADS.values()], free)]
    return parts


def _cells(row: Mapping[str, Number]) -> list[str]:
    percent = ("foreground", "truth", "foreground_whole")
    return [
        "–" if math.isnan(row[name].mean) else row[name].text(1, 100) if name in percent else row[name].text(3)
        for name in _HEADS
    ]


def _readings(findings: Findings) -> list[str]:
    heads = [
        *("trained with", "our reading, %", "its weights, one sigmoid, %", "and post-processing, %"),
        *("its weights, two sigmoids, %", "and post-processing, %"),
    ]
    lines = [
        [f"`{preset}`, label 2 {label_2}", *(f"{100 * share:.2f}" for share in astuple(reading))]
        for (preset, label_2), (reading, _) in findings.readings.items()
    ]
    plan = findings.plan
    told = (
        f"Foreground of one unseen phantom of {plan.big}³, seed {plan.seeds[0]}, threshold 0.5. Each network saw the "
        f"tiles of {plan.big_tile}³ once; the columns read the same logits. Two sigmoids put every voxel at 0.5 or "
        "above; the weights are 0 on the volume's faces, and what they leave is all that stays background."
    )
    return [told, grid(heads, lines)]


def _expected(findings: Findings) -> list[str]:
    rows = table.by_loss(findings.results)
    surface, ignored, original = rows[OLD, "surface"], rows[OLD, "ignored"], rows["original", "surface"]
    return expectations.text(surface, ignored, original, findings.trivial)


def _made(findings: Findings) -> str:
    trained, judged = ([getattr(result, name) for result in findings.results] for name in ("train_s", "judge_s"))
    read_s = [seconds for _, seconds in findings.readings.values()]
    plan = findings.plan
    total_h = (sum(trained) + sum(judged) + sum(read_s)) / 3600
    command = COMMAND if plan == FULL else f"{COMMAND} --quick"
    seeds = ", ".join(map(str, plan.seeds))
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy"))
    return f"""\
`{command}` at commit {commit()}. {len(findings.results)} trainings of {plan.decoder}/{plan.encoder}:
{plan.epochs} epochs of {plan.steps_per_epoch} steps of {plan.batch} patches of {plan.patch}³, seeds {seeds}, AdamW,
learning rate 1e-3, cosine; the last state, with BatchNorm's statistics made anew. One core each:
{np.mean(trained):.0f} s to train, {np.mean(judged):.0f} s to judge, and {np.mean(read_s):.0f} s for the readings of one
network; {total_h:.1f} core-hours in all, the phantoms not counted. Machine: {machine()}.
Python {platform.python_version()}, {libraries}."""


def machine() -> str:
    """Describe the processor and how many cores this process may use."""
    import os

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.machine()}, {len(os.sched_getaffinity(0))} cores"
