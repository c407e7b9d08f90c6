"""What follows from the study's numbers alone, in sentences."""

import math
from collections.abc import Mapping, Sequence

from surface_study import table
from surface_study.findings import Findings
from surface_study.reading import Reading
from surface_study.table import NEW, OLD, Key


def verdicts(findings: Findings) -> list[str]:
    """Return what follows from the numbers alone."""
    collapsed = table.collapsed(findings.results)
    count = len(findings.results)
    lines = [
        f"- **Collapse** (at least {table.COLLAPSED:.0%} foreground at 0.5, of the labelled or of all voxels): "
        + (
            f"{len(collapsed)} of {count} networks: {', '.join(collapsed)}."
            if collapsed
            else f"none of {count} networks."
        ),
        _default_verdict(findings),
        _reading_verdict(findings.readings),
    ]
    return ["\n".join(lines)]


def _default_verdict(findings: Findings) -> str:
    rows = {key: table.over_seeds(results) for key, results in table.by_loss(findings.results).items()}
    gains, better = [], []
    for column, where in (("surface_dice", "at 0.5"), ("best_surface_dice", "each at its best threshold")):
        comparison = table.compare(rows, column, new=(NEW, "ignored"), old=(OLD, "ignored"))
        better.append(comparison.is_better)
        std = "a single seed" if math.isnan(comparison.std) else f"standard deviation {comparison.std:.3f}"
        gains.append(f"{comparison.gain:+.3f} {where} ({std})")
    verdict = {2: "is better", 1: "is better in one of two ways", 0: "is not better"}[sum(better)]
    text = f"- **`{NEW}` {verdict} than `{OLD}` by more than the standard deviation over seeds**"
    return f"{text} in mean surface Dice, label 2 ignored: {'; '.join(gains)}."


def _reading_verdict(readings: Mapping[Key, tuple[Reading, float]]) -> str:
    ours, twice, cleaned = (
        _range([getattr(reading, name) for reading, _ in readings.values()])
        for name in ("ours", "twice", "twice_cleaned")
    )
    return (
        f"- **The {len(readings)} networks of the first seed on the large phantom**: {ours} foreground with our "
        f"inference, {twice} with the reference's second sigmoid and its weights, {cleaned} after its post-processing "
        "too."
    )


def _range(values: Sequence[float]) -> str:
    low, high = 100 * min(values), 100 * max(values)
    return f"{low:.2f} %" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f}–{high:.2f} %"
