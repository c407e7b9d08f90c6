"""The score's loss by cause, and two submissions compared: numbers by hand."""

import pytest
from worlds_of_pages import score_row, write_scores

from surface_report.inputs import Inputs
from surface_report.results import scores_of
from surface_report.score.comparison import pairs_of, verdict
from surface_report.scrolls import scroll_by_id


def rows(tmp_path, **of_cases):
    return scores_of(Inputs(score=(write_scores(tmp_path / "s.json", of_cases),)), 0)


def test_what_is_lost_sums_to_what_is_missing(tmp_path):
    """F1 of components 2/5, of tunnels 0.2; 3 of 4 bits are merges; 0.35 · 0.2 of the surface."""
    row = rows(tmp_path, a=score_row(0.30 * 0.5 + 0.35 * 0.8 + 0.35 * 0.6))["a"]
    assert 1 - sum(row.lost.values()) == pytest.approx(row.score)
    assert row.lost["surface"] == pytest.approx(0.07)
    assert row.lost["merge"] == pytest.approx(3 * row.lost["split"]) == pytest.approx(0.14 * 0.75)
    assert row.lost["cavities"] == 0
    components, tunnels = 0.34 * (1 - 2 / 5), 0.33 * (1 - 0.5 / 2.5)  # 0.5 / (2 + 0.5): two tunnels, none is true
    assert row.lost["components"] == pytest.approx(0.15 * components / (components + tunnels))


def test_a_verdict_counts_and_averages(tmp_path):
    first = rows(tmp_path, a=score_row(0.5), b=score_row(0.5), c=score_row(0.5), d=score_row(0.1))
    second = rows(tmp_path, a=score_row(0.6), b=score_row(0.5), c=score_row(0.3))
    pairs = pairs_of(first, second)
    assert [pair.id for pair in pairs] == ["c", "b", "a"]
    said = verdict(pairs)
    assert said.startswith("B − A: -0.0333 ± 0.0882 ")
    assert "better in 1, worse in 1 and equal in 1 of 3" in said


def test_a_breakdown_names_the_scores_too(tmp_path):
    (tmp_path / "a.json").write_text('{"score": ' + str(score_row(0.25)).replace("'", '"') + "}")
    assert scores_of(Inputs(explain=(tmp_path,)), 0)["a"].score == 0.25
    assert scores_of(Inputs(explain=(tmp_path,)), 1) is None


def test_scrolls_come_from_the_tables_beside_the_volumes(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "test.csv").write_text("id,scroll_id\n1,100\n")
    (tmp_path / "train.csv").write_text("no,table\n1,2\n")
    assert scroll_by_id(Inputs(images=tmp_path / "images")) == {"1": "100"}
    assert scroll_by_id(Inputs(score=(tmp_path,))) == {}
