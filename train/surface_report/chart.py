"""Charts: matplotlib's SVG, inline, in the page's colours, light or dark as the reader prefers."""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib
from cycler import cycler
from markupsafe import Markup
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from surface_report.html import render

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# What is drawn in one of these becomes a variable of style.css, which has a light and a dark value for each. The first
# eight are Okabe and Ito's palette, distinguishable with every kind of colour vision.
BLUE, ORANGE, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
AMBER, SKY, YELLOW, INK = "#e69f00", "#56b4e9", "#f0e442", "#010203"
FAINT = "#010204"  # of grids and frames
SERIES = (BLUE, ORANGE, GREEN, PURPLE, AMBER, SKY, INK)
LONGEST_NAME = 24
_VARIABLES = {
    BLUE: "--blue",
    ORANGE: "--orange",
    GREEN: "--green",
    PURPLE: "--purple",
    AMBER: "--amber",
    SKY: "--sky",
    YELLOW: "--yellow",
    INK: "--ink",
    FAINT: "--faint",
}
_STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # an id with two dollar signs is no formula
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.prop_cycle": cycler(color=SERIES),
    "grid.color": FAINT,
    "axes.edgecolor": FAINT,
    "legend.frameon": False,
    "savefig.transparent": True,
    "lines.linewidth": 1.6,
} | dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK)


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A drawn chart."""

    id: str
    """Unique on the page; it begins with its section's id."""
    title: str
    description: str
    """What a reader who does not see it needs to know: the finding, with its numbers."""
    size_points: tuple[float, float]
    """Width and height."""
    drawn: Markup
    """What is inside the svg element."""

    def __html__(self) -> str:
        """Return the chart as a figure with its title as the caption: in a template, `{{ chart }}`."""
        return render("chart.html", chart=self)


class Drawing:
    """A figure that is being drawn; `chart` is there after the block of `drawing`."""

    figure: Figure
    chart: Chart


@contextmanager
def drawing(id_: str, *, title: str, description: str, size_inches: tuple[float, float] = (7, 3)) -> Iterator[Drawing]:
    """Yield a figure to draw into, in the page's style; its chart is made at the end of the block.

    Args:
        id_: As of the chart.
        title: As of the chart.
        description: As of the chart.
        size_inches: Width and height; on the page the chart is as wide as there is room, at most 96 pixels an inch.
    """
    with matplotlib.rc_context(_STYLE):
        drawn = Drawing()
        drawn.figure = Figure(figsize=size_inches, layout="constrained")
        FigureCanvasSVG(drawn.figure)
        yield drawn
        svg = io.StringIO()
        with warnings.catch_warnings():
            # The browser draws the text, with fonts of its own.
            warnings.filterwarnings("ignore", "Glyph .* missing from")
            drawn.figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    drawn.chart = Chart(
        id=id_,
        title=title,
        description=description,
        size_points=(72 * size_inches[0], 72 * size_inches[1]),
        drawn=_inline(svg.getvalue(), id_),
    )


def only_axes(drawn: Drawing) -> "Axes":
    """Return the axes of a figure with one plot."""
    return drawn.figure.subplots()


def short(name: str) -> str:
    """Return a name from outside as a chart has room for it."""
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def _inline(svg: str, id_: str) -> Markup:
    """Return what is inside a drawn svg element, its ids made unique and its colours the page's variables."""
    inside = svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")]
    # Its style element would apply to the whole page; the fonts are the page's.
    unwanted = r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>|font-family: [^;\"]+;? ?"
    inside = re.sub(unwanted, "", inside, flags=re.DOTALL)
    inside = re.sub(r'\bid="', f'id="{id_}-', inside)
    inside = re.sub(r'href="#', f'href="#{id_}-', inside).replace("url(#", f"url(#{id_}-")
    for colour, variable in _VARIABLES.items():
        inside = inside.replace(colour, f"var({variable})")
    return Markup(inside)
