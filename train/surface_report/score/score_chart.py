"""The scores of all cases as dots, a row for each scroll."""

from collections.abc import Mapping

from surface_report.chart import BLUE, INK, ORANGE, Chart, drawing, only_axes, short
from surface_report.results import ScoreRow
from surface_report.scrolls import UNKNOWN


def scores_by_scroll(rows: Mapping[str, ScoreRow], scrolls: Mapping[str, str]) -> Chart:
    """Return the chart: a dot for each case, a line for each scroll's mean."""
    groups: dict[str, list[float]] = {}
    for id_, row in rows.items():
        groups.setdefault(scrolls.get(id_, UNKNOWN), []).append(row.score)
    ranked = sorted(groups.items(), key=lambda item: sum(item[1]) / len(item[1]), reverse=True)
    means = "; ".join(f"{scroll}: mean {sum(scores) / len(scores):.4f} of {len(scores)}" for scroll, scores in ranked)
    with drawing(
        "score-dots", title="Score of each case, by scroll", description=means, size_inches=(7, 1 + 0.35 * len(ranked))
    ) as drawn:
        axes = only_axes(drawn)
        for height, (_, scores) in enumerate(ranked):
            axes.plot(scores, [height] * len(scores), "o", color=BLUE, alpha=0.6, markersize=6, markeredgewidth=0)
            axes.plot([sum(scores) / len(scores)] * 2, [height - 0.35, height + 0.35], color=ORANGE, linewidth=2.5)
        axes.set_yticks(range(len(ranked)), [short(scroll) for scroll, _ in ranked])
        axes.set_ylim(-0.6, len(ranked) - 0.4)
        axes.set_xlabel("score; the upright line is the mean", color=INK)
    return drawn.chart
