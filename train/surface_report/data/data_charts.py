"""The data folder as charts: greys and labels by scroll."""

from collections.abc import Sequence

import numpy as np

from surface_report.chart import BLUE, INK, ORANGE, SERIES, Chart, drawing, only_axes, short
from surface_report.data.case_facts import CaseFacts
from surface_report.data.image_facts import BINS

_STYLES = ("-", "--", ":", "-.")


def by_scroll(facts: Sequence[CaseFacts]) -> dict[str, list[CaseFacts]]:
    """Return the cases of each scroll, the largest first."""
    groups: dict[str, list[CaseFacts]] = {}
    for one in facts:
        groups.setdefault(one.scroll or "no row", []).append(one)
    return dict(sorted(groups.items(), key=lambda item: -len(item[1])))


def grey_chart(facts: Sequence[CaseFacts]) -> Chart | None:
    """Return the histogram of greys of each scroll; None where no image could be read."""
    sums = {
        scroll: np.sum([one.image.greys for one in group if one.image is not None], axis=0)
        for scroll, group in by_scroll(facts).items()
        if any(one.image is not None for one in group)
    }
    if not sums:
        return None
    middles = (np.arange(BINS) + 0.5) * 256 / BINS
    means = {scroll: float((counts * middles).sum() / max(counts.sum(), 1)) for scroll, counts in sums.items()}
    said = "; ".join(f"{scroll}: mean {mean:.0f}" for scroll, mean in means.items())
    with drawing("data-greys", title="Grey values by scroll, zeros left out", description=said) as drawn:
        axes = only_axes(drawn)
        for number, (scroll, counts) in enumerate(sums.items()):
            style = _STYLES[number // len(SERIES) % len(_STYLES)]
            shares = 100 * counts / max(counts.sum(), 1)
            axes.plot(middles, shares, style, color=SERIES[number % len(SERIES)], label=short(scroll))
        axes.set_xlabel("grey")
        axes.set_ylabel("% of voxels")
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=8, title="scroll")
    return drawn.chart


def label_chart(facts: Sequence[CaseFacts]) -> Chart | None:
    """Return the share of label 1 among labelled voxels, a dot for each case; None where no label could be read."""
    rows = {}
    for scroll, group in by_scroll(facts).items():
        known = [one.shares for one in group if one.shares is not None and one.shares[0] + one.shares[1] > 0]
        if known:
            rows[scroll] = [100 * shares[1] / (shares[0] + shares[1]) for shares in known]
    if not rows:
        return None
    said = "; ".join(f"{scroll}: {min(values):.1f} to {max(values):.1f} %" for scroll, values in rows.items())
    title = "Label 1 among labelled voxels, by scroll"
    with drawing("data-labels", title=title, description=said, size_inches=(7, 1 + 0.35 * len(rows))) as drawn:
        axes = only_axes(drawn)
        for height, values in enumerate(reversed(rows.values())):
            axes.plot(values, [height] * len(values), "o", color=BLUE, alpha=0.5, markersize=5, markeredgewidth=0)
            axes.plot([float(np.mean(values))] * 2, [height - 0.35, height + 0.35], color=ORANGE, linewidth=2.5)
        axes.set_yticks(range(len(rows)), [short(scroll) for scroll in reversed(rows)])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlabel("%; the upright line is the mean", color=INK)
        axes.set_xlim(left=0)
    return drawn.chart
