"""A section of the page."""

from dataclasses import dataclass

from markupsafe import Markup


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section: its heading and what stands below it."""

    id: str
    """Its anchor, a word of the letters a-z: every id within its body begins with it."""
    title: str
    """Its heading, an h2; headings in the body begin with h3."""
    body: Markup
    """HTML, made by `html.render`: whatever comes from outside was escaped on the way."""
    faults: tuple[str, ...] = ()
    """What could not be read, a line each: shown below the heading, and the command's exit code is 3."""
