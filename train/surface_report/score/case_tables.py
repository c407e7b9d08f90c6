"""The tables of a scored submission: case by case, and by scroll."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from markupsafe import Markup

from surface_report.results import DIMENSIONS, ScoreRow
from surface_report.score.loss_bar import MEANINGS, loss_bar
from surface_report.scrolls import UNKNOWN
from surface_report.table import Cell, Column, Table, number, share

_PARTS = ("topo_score", "surface_dice", "voi_score", "voi_split", "voi_merge", "dice")
_TITLES = ("topology", "surface Dice", "VOI score", "split bits", "merge bits", "Dice")


def case_link(id_: str, *, viewer: bool) -> Cell:
    """Return a cell with an id, which opens the case in the viewer where there is one."""
    link = Markup('<a href="#slices" data-case="{0}">{0}</a>')
    return Cell(link.format(id_) if viewer else id_, id_)


def by_case(rows: Mapping[str, ScoreRow], scrolls: Mapping[str, str], *, viewer: bool) -> Table:
    """Return the table of all cases, the lowest score first."""
    ranked = sorted(rows.items(), key=lambda item: item[1].score)
    with_scrolls = any(id_ in scrolls for id_ in rows)
    columns = [Column(title="case", numeric=False)]
    columns += [Column(title="scroll", numeric=False)] if with_scrolls else []
    columns += [
        Column(title="score"),
        Column(title="lost, by cause", numeric=False, note="sorted by the largest cause"),
    ]
    columns += [Column(title=title) for title in _TITLES]
    columns += [Column(title=name, note="matched / predicted / true; sorted by F1") for name in DIMENSIONS]
    columns += [Column(title="foreground"), Column(title="truth")]
    cells = []
    for id_, row in ranked:
        cause = max(row.lost, key=lambda name: row.lost[name])
        line = [case_link(id_, viewer=viewer)]
        line += [Cell(scrolls.get(id_, UNKNOWN))] if with_scrolls else []
        line += [number(row.score, 4), Cell(loss_bar(row.score, row.lost), f"{MEANINGS[cause]} {row.lost[cause]:.4f}")]
        line += [number(getattr(row, part), 4) for part in _PARTS]
        line += [Cell(f"{m.matched} / {m.predicted} / {m.true}", m.f1) for m in row.features]
        cells.append([*line, share(row.predicted_share), share(row.truth_share)])
    return Table(
        id="score-cases",
        caption=f"{len(rows)} cases, the lowest score first; a heading sorts"
        + (", an id opens the case below" if viewer else ""),
        columns=columns,
        rows=cells,
        sorted_by=2 if with_scrolls else 1,
    )


def by_scroll(rows: Mapping[str, ScoreRow], scrolls: Mapping[str, str]) -> Table | None:
    """Return the means of each scroll, the lowest first; None where no scroll is known."""
    if not any(id_ in scrolls for id_ in rows):
        return None
    groups: dict[str, list[ScoreRow]] = {}
    for id_, row in rows.items():
        groups.setdefault(scrolls.get(id_, UNKNOWN), []).append(row)
    ranked = sorted(groups.items(), key=lambda item: _mean(item[1], "score"))
    names = ("score", *_PARTS)
    return Table(
        id="score-scrolls",
        caption="Means by scroll, the lowest score first",
        columns=[
            Column(title="scroll", numeric=False),
            Column(title="cases"),
            Column(title="score"),
            *(Column(title=title) for title in _TITLES),
            Column(title="lowest score"),
        ],
        rows=[
            [
                Cell(scroll),
                number(len(group), 0),
                *(number(_mean(group, name), 4) for name in names),
                number(min(row.score for row in group), 4),
            ]
            for scroll, group in ranked
        ],
        sorted_by=2,
    )


def _mean(rows: Sequence[ScoreRow], name: str) -> float:
    return fmean(getattr(row, name) for row in rows)
