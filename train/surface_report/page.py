"""The page: every section that its inputs have something for, in one file."""

from collections.abc import Callable

from markupsafe import Markup

from surface_report.data.data_section import data_section
from surface_report.html import render, script
from surface_report.inputs import Inputs, PageError
from surface_report.prediction.prediction_section import prediction_section
from surface_report.score.score_section import score_section
from surface_report.scoring import with_scores
from surface_report.section import Section
from surface_report.slices.slices_section import slices_section
from surface_report.training.training_section import training_section

SECTIONS: tuple[Callable[[Inputs], Section | None], ...] = (
    score_section,
    slices_section,
    prediction_section,
    training_section,
    data_section,
)
SCRIPTS = ("sorting.js", "stepper.js", "viewer.js")


def page(inputs: Inputs) -> tuple[Markup, tuple[str, ...]]:
    """Return the page as HTML, and a line for each thing that could not be shown.

    Raises:
        PageError: where no section has anything to show; as the sections do.
    """
    with with_scores(inputs) as scored:
        made = [section for make in SECTIONS if (section := make(scored)) is not None]
    if not made:
        raise PageError("expected inputs with something to show, got none: see --help for what goes together")
    sources = [(name, path) for name, path in _named(inputs) if path is not None]
    named = [path.name for path in (inputs.submission, inputs.compare, inputs.run, inputs.data) if path is not None]
    title = ": ".join(["Surface report", *[" and ".join(named)][: len(named)]])
    text, digest = script(SCRIPTS)
    made_page = render("page.html", title=title, sources=sources, sections=made, script=text, script_hash=digest)
    return made_page, tuple(fault for section in made for fault in section.faults)


def _named(inputs: Inputs) -> list[tuple[str, object]]:
    return [
        ("run", inputs.run),
        ("submission", inputs.submission),
        ("compared with", inputs.compare),
        ("truth", inputs.truth),
        ("images", inputs.images),
        ("data", inputs.data),
    ]
