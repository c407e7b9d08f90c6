"""Two submissions compared, case by case."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean, stdev

from surface_report.chart import BLUE, INK, ORANGE, Chart, drawing, only_axes
from surface_report.results import ScoreRow
from surface_report.score.case_tables import case_link
from surface_report.table import Cell, Column, Table, number

_PARTS = {"score": "score", "topo_score": "topology", "surface_dice": "surface Dice", "voi_score": "VOI score"}


@dataclass(frozen=True, kw_only=True)
class ScorePair:
    """A case's scores in both submissions."""

    id: str
    first: ScoreRow
    second: ScoreRow

    def change(self, name: str = "score") -> float:
        """Return by how much the second one's number is larger."""
        return float(getattr(self.second, name)) - float(getattr(self.first, name))


def pairs_of(first: Mapping[str, ScoreRow], second: Mapping[str, ScoreRow]) -> list[ScorePair]:
    """Return the cases that both have, those first in which the second one loses most."""
    pairs = [ScorePair(id=id_, first=row, second=second[id_]) for id_, row in first.items() if id_ in second]
    return sorted(pairs, key=lambda pair: pair.change())


def verdict(pairs: list[ScorePair]) -> str:
    """Return the mean change with its standard error, and how many cases rose and fell, as a sentence."""
    changes = [pair.change() for pair in pairs]
    error = f" ± {stdev(changes) / len(changes) ** 0.5:.4f} (standard error over cases)" if len(changes) > 1 else ""
    better, worse = sum(change > 0 for change in changes), sum(change < 0 for change in changes)
    return (
        f"B − A: {fmean(changes):+.4f}{error}; B is better in {better}, worse in {worse} and equal in "
        f"{len(changes) - better - worse} of {len(changes)} cases."
    )


def difference_table(pairs: list[ScorePair], *, viewer: bool) -> Table:
    """Return both scores of each case, and by how much each part of the score changes."""
    return Table(
        id="score-difference",
        caption="B compared with A, case by case, the largest loss first",
        columns=[
            Column(title="case", numeric=False),
            Column(title="A"),
            Column(title="B"),
            *(Column(title=f"{title}, B − A") for title in _PARTS.values()),
        ],
        rows=[
            [
                case_link(pair.id, viewer=viewer),
                number(pair.first.score, 4),
                number(pair.second.score, 4),
                *(Cell(f"{pair.change(name):+.4f}", pair.change(name)) for name in _PARTS),
            ]
            for pair in pairs
        ],
        sorted_by=3,
    )


def difference_chart(pairs: list[ScorePair]) -> Chart:
    """Return the changes of all cases in order, as bars."""
    changes = [pair.change() for pair in pairs]
    with drawing(
        "score-changes", title="Change of the score from A to B, case by case, in order", description=verdict(pairs)
    ) as drawn:
        axes = only_axes(drawn)
        axes.bar(range(len(changes)), changes, color=[ORANGE if change < 0 else BLUE for change in changes])
        axes.axhline(0, color=INK, linewidth=0.8)
        axes.set_xlabel("cases")
        axes.set_ylabel("B − A")
        axes.set_xticks([])
    return drawn.chart
