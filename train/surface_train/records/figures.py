"""Figures that are drawn into memory, whatever the environment asks of matplotlib."""

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(**options: Any) -> "Figure":
    """Return a figure on the Agg canvas; matplotlib is only imported now.

    A notebook sets MPLBACKEND for the commands it starts too, to a backend that they may not have: then the import
    alone fails.
    """
    if "matplotlib" not in sys.modules:
        os.environ["MPLBACKEND"] = "agg"
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(**options)
    FigureCanvasAgg(figure)
    return figure
