"""Templates, and what is embedded in them: the one way from values to HTML."""

import base64
import hashlib
import json
from collections.abc import Iterable
from functools import cache
from importlib import resources

import jinja2
from markupsafe import Markup


def render(template: str, **values: object) -> Markup:
    """Return a template filled with values; all that is not Markup is escaped.

    Args:
        template: A file's name in surface_report/templates.
        values: Its variables. A variable that is missing is an error.
    """
    return Markup(_templates().get_template(template).render(values))


@cache
def _templates() -> jinja2.Environment:
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("surface_report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.globals["data_block"] = data_block
    return found


def script(names: Iterable[str]) -> tuple[Markup, str]:
    """Return our scripts as one, and its hash as a content security policy names it.

    No other script may run in the page then, should one ever get in.

    Args:
        names: Files in surface_report/templates, in their order.
    """
    folder = resources.files("surface_report").joinpath("templates")
    texts = (folder.joinpath(name).read_text(encoding="utf-8") for name in names)
    text = '\n"use strict";\n' + "\n".join(texts)
    digest = hashlib.sha256(text.encode()).digest()
    return Markup(text), f"sha256-{base64.b64encode(digest).decode()}"


def data_block(id_: str, value: object) -> Markup:
    """Return a value as JSON in a script element that is no code, for the page's scripts: `JSON.parse(textContent)`.

    Args:
        id_: The element's id.
        value: What JSON can hold. `<` is written as an escape: no string can end the element.
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup('<script type="application/json" id="{}">{}</script>').format(id_, Markup(text))


def data_url(content: bytes, kind: str) -> str:
    """Return a file as a URL that holds it; `kind` is its media type, such as image/webp."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
