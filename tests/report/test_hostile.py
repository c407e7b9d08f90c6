"""What comes from outside is shown as text, whatever it is."""

import json

import numpy as np
import pytest
from worlds_of_pages import score_row, write_scores, write_submission

from surface_report.__main__ import main
from surface_report.chart import drawing, only_axes, short
from surface_report.html import data_block, render
from surface_report.table import Cell, Column, Table

HOSTILE = [
    "<script>document.title='hit'</script>",
    "\"'><img src=x onerror=\"document.title='hit'\">",
    "</script><script>document.title='hit'</script>",
    "{{ 7 * 7 }}${7}$x^2$",
    "x" * 400,
    "\u202egnp.\u05d0\u05d1\u05d2",
    "a&amp;b",
    "\u2028<!--",
]


def test_hostile_ids_are_text(opened, tmp_path):
    scores = write_scores(tmp_path / "s.json", {id_: score_row(n / 10) for n, id_ in enumerate(HOSTILE)})
    in_a_file = [id_ for id_ in HOSTILE if len(id_) < 200 and "/" not in id_ and "." not in id_]
    masks = dict.fromkeys(in_a_file, np.zeros((4, 5, 6), np.uint8))
    zipped = write_submission(tmp_path / "<b>&.zip", masks)
    asked = ["--score", str(scores), "--submission", str(zipped), "--out", str(tmp_path / "page.html")]
    assert main(asked) == 0
    page = opened(tmp_path / "page.html", width=400)
    assert page.title() == "Surface report: <b>&.zip"
    assert page.locator("#score-cases tbody th").all_text_contents() == HOSTILE
    options = page.locator("#slices-case option")
    assert sorted(option.get_attribute("data-id") for option in options.all()) == sorted(in_a_file)
    assert page.locator("main img, main script:not([type])").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") == 400


@pytest.mark.parametrize("text", HOSTILE)
def test_no_value_leaves_its_element(text):
    block = data_block("a", {"value": text})
    inside = block.split(">", 1)[1].rsplit("<", 1)[0]
    assert "<" not in inside
    assert json.loads(inside) == {"value": text}
    table = Table(id="t", caption=text, columns=[Column(title=text, note=text)], rows=[[Cell(text, text)]])
    with drawing("c", title=text, description=text) as drawn:
        axes = only_axes(drawn)
        axes.plot([0, 1], label=short(text))
        axes.set_xlabel(short(text))
        axes.legend()
    for made in (render("table.html", table=table), render("chart.html", chart=drawn.chart)):
        assert "<script" not in made
        assert "<img" not in made


def test_a_script_that_got_in_would_not_run(browser, tmp_path):
    """The page's policy names its own script by its hash."""
    scores = write_scores(tmp_path / "s.json", {"1": score_row()})
    assert main(["--score", str(scores), "--out", str(tmp_path / "page.html")]) == 0
    page, said = browser.new_page(), []
    page.on("console", lambda message: said.append(message.text))
    page.goto((tmp_path / "page.html").as_uri())
    page.evaluate("""() => {
        const added = document.createElement("script");
        added.textContent = "document.title = 'hit'";
        document.body.append(added);
    }""")
    assert page.title() == "Surface report"
    page.close()
    assert "Content Security Policy" in said[0]
