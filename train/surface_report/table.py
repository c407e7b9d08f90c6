"""A table of the page: captioned, sortable by every column, scrolling within itself on a narrow screen."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from surface_report.html import render

Sortable = str | int | float | None


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column's heading."""

    title: str
    numeric: bool = True
    """Aligned right, and sorted by number."""
    note: str = ""
    """What it means, shown with the heading."""


@dataclass(frozen=True)
class Cell:
    """What a cell shows."""

    text: str | Markup
    sort: Sortable = None
    """What it is sorted by, where that is not its text; a None in a column of numbers comes last."""
    bar: float | None = None
    """In [0, 1]: a bar behind the text."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table; the first cell of each row is its heading."""

    id: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    sorted_by: int | None = None
    """The column by which the rows are sorted already."""
    descending: bool = False

    def __html__(self) -> str:
        """Return the table as HTML: in a template, `{{ table }}`."""
        return render("table.html", table=self)


def number(value: float | None, digits: int = 3, *, bar: float | None = None) -> Cell:
    """Return a cell for a number with so many digits after the point, thousands apart; `–` for None."""
    return Cell("–") if value is None else Cell(f"{value:,.{digits}f}", value, bar)


def share(value: float | None, digits: int = 1) -> Cell:
    """Return a cell for a share in [0, 1] as a percentage; `–` for None."""
    return Cell("–") if value is None else Cell(f"{value:.{digits}%}", value)
