"""Which scroll a case was cut from, as far as the tables beside the inputs say."""

from contextlib import suppress

from surface_report.inputs import Inputs
from surface_train.data.cases import CasesError, read_rows

UNKNOWN = "unknown"


def scroll_by_id(inputs: Inputs) -> dict[str, str]:
    """Return the scroll of each case that a train.csv or test.csv lists: of the data folder, or beside the images."""
    beside = [path.parent for path in (inputs.images, inputs.truth) if path is not None]
    folders = [inputs.data, *beside] if inputs.data is not None else beside
    found: dict[str, str] = {}
    for folder in folders:
        for name in ("train.csv", "test.csv"):
            with suppress(CasesError):  # a page without scrolls is a page
                found |= dict(read_rows(folder / name))
    return found
