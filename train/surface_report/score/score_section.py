"""The section "Score": where the points went, case by case, and what changes between two submissions."""

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

from surface_report.chart import Chart
from surface_report.html import render
from surface_report.inputs import Inputs
from surface_report.results import ScoreRow, scores_of
from surface_report.score.case_tables import by_case, by_scroll
from surface_report.score.comparison import difference_chart, difference_table, pairs_of, verdict
from surface_report.score.loss_bar import MEANINGS, loss_bar, mean_lost
from surface_report.score.score_chart import scores_by_scroll
from surface_report.scrolls import scroll_by_id
from surface_report.section import Section
from surface_report.table import Table


def score_section(inputs: Inputs) -> Section | None:
    """Return the section, or None where there are no scores.

    Raises:
        PageError: for scores that the scorer did not write.
    """
    first, second = scores_of(inputs, 0), scores_of(inputs, 1)
    if first is None:
        return None
    scrolls = scroll_by_id(inputs)
    viewer = inputs.submission is not None
    parts: list[Table | Chart | str | None] = []
    if second is not None and (pairs := pairs_of(first, second)):
        parts += [verdict(pairs), difference_chart(pairs), difference_table(pairs, viewer=viewer)]
    if len(first) > 1:
        parts.append(scores_by_scroll(first, scrolls))
    parts += [by_scroll(first, scrolls), by_case(first, scrolls, viewer=viewer)]
    scored = [(first, inputs.submission)] + ([] if second is None else [(second, inputs.compare)])
    body = render(
        "score.html",
        warnings=inputs.warnings,
        submissions=[_summary(rows, path) for rows, path in scored],
        causes=list(MEANINGS.items()),
        parts=[part for part in parts if part is not None],
    )
    return Section(id="score", title="Score", body=body)


def _summary(rows: Mapping[str, ScoreRow], path: Path | None) -> dict[str, object]:
    of_all = list(rows.values())
    score = fmean(row.score for row in of_all)
    return {
        "name": "" if path is None else path.name,
        "cases": len(of_all),
        "score": score,
        "topo": fmean(row.topo_score for row in of_all),
        "surface": fmean(row.surface_dice for row in of_all),
        "voi": fmean(row.voi_score for row in of_all),
        "bar": loss_bar(score, mean_lost(of_all)),
    }
