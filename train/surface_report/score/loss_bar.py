"""The bar of a score: what was scored, and what each cause lost."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from surface_report.html import render
from surface_report.results import CAUSES, ScoreRow

MEANINGS = {
    "components": "topology: components",
    "tunnels": "topology: tunnels",
    "cavities": "topology: cavities",
    "surface": "surface Dice",
    "split": "VOI: splits",
    "merge": "VOI: merges",
}


def mean_lost(rows: Sequence[ScoreRow]) -> dict[str, float]:
    """Return the points that each cause loses, on the mean."""
    return {cause: sum(row.lost[cause] for row in rows) / len(rows) for cause in CAUSES}


def loss_bar(score: float, lost: Mapping[str, float]) -> Markup:
    """Return the bar, with its numbers as text for those who do not see it."""
    words = [f"score {score:.4f}", *(f"{MEANINGS[cause]} −{points:.4f}" for cause, points in lost.items() if points)]
    return render("lossbar.html", text=", ".join(words), pieces=[("score", score), *lost.items()])
