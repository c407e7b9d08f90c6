"""The section "Data"."""

from surface_report.inputs import Inputs
from surface_report.section import Section


def data_section(inputs: Inputs) -> Section | None:
    """Return the section, or None where the inputs hold nothing for it."""
    return None
