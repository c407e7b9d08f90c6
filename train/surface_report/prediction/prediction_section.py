"""The section "Prediction"."""

from surface_report.inputs import Inputs
from surface_report.section import Section


def prediction_section(inputs: Inputs) -> Section | None:
    """Return the section, or None where the inputs hold nothing for it."""
    return None
