import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from surface_train.loss_weights import LossWeights
from surface_train.records import curves
from surface_train.settings import Sentinel

TERMS = ("dice", "focal", "boundary", "cldice", "connectivity", "variance", "entropy")
LOSS = LossWeights()


def row(epoch: int, validated: bool) -> dict[str, Any]:
    terms = {name: 0.1 * (place + 1) / epoch for place, name in enumerate(TERMS)}
    loss = sum(getattr(LOSS, f"{name}_weight") * value for name, value in terms.items())
    checked = {"threshold": 0.45, "score": 0.3, "surface_dice": 0.6, "voi_score": 0.4, "dice": 0.5}
    checked |= {"topo_score": 0.2, "foreground": 0.5 / epoch, "truth": 0.05, "variance": 0.04, "loss": 0.33}
    return {
        **{"epoch": epoch, "seconds": 9.0, "learning_rate": 1e-3 / epoch, "loss": loss},
        **terms,
        "variance_of_p": 0.01 * epoch,
        **{f"val_{name}": value if validated else "" for name, value in checked.items()},
    }


ROWS = [row(epoch, epoch % 2 == 0) for epoch in range(1, 9)]


@pytest.fixture
def panels(monkeypatch: pytest.MonkeyPatch) -> dict[str, Axes]:
    """Keep what would be drawn, by the panels' titles."""
    kept: dict[str, Axes] = {}

    def keep(figure: Figure, *_: Any, **__: Any) -> None:
        kept.update({axes.get_title(): axes for axes in figure.axes})

    monkeypatch.setattr(Figure, "savefig", keep)
    return kept


def lines(axes: Axes) -> dict[str, tuple[list[float], list[float]]]:
    return {str(line.get_label()): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.get_lines()}


def text(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """The rows as log.csv gives them back."""
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    file.seek(0)
    return list(csv.DictReader(file))


def test_the_five_panels_show_the_log(tmp_path: Path, panels: dict[str, Axes]) -> None:
    curves.draw(text(ROWS), tmp_path / "curves.png", LOSS)
    loss, spread, scores, shares, rate = panels.values()
    epochs, validated = list(range(1, 9)), [2, 4, 6, 8]

    found = lines(loss)
    wanted = {f"{getattr(LOSS, f'{name}_weight'):g} × {name}" for name in TERMS}
    assert set(found) == wanted | {"loss", "loss, validation"}
    assert found["loss"] == (epochs, [made["loss"] for made in ROWS])
    assert found["loss, validation"][0] == validated
    # The weighted terms are what the loss is the sum of.
    np.testing.assert_allclose(np.sum([found[name][1] for name in wanted], axis=0), found["loss"][1])

    assert lines(spread)["patches, training"] == (epochs, [0.01 * epoch for epoch in epochs])
    assert lines(spread)["whole volumes, validation"] == (validated, [0.04] * 4)
    assert lines(spread)["upper bound, 0.25"][1] == [0.25, 0.25]
    assert spread.get_ylim()[1] > 0.25

    assert {name: set(ys) for name, (_, ys) in lines(scores).items()} == {
        **{"score": {0.3}, "surface Dice": {0.6}, "topology": {0.2}},
        **{"VOI score": {0.4}, "Dice": {0.5}, "threshold": {0.45}},
    }
    assert lines(shares)["predicted"] == (validated, [0.25, 0.125, 0.5 / 6, 0.0625])
    assert lines(shares)["truth"] == (validated, [0.05] * 4)
    assert lines(shares)["sentinel's limit, 0.1 %"][1] == [0.001, 0.001]
    assert lines(shares)["sentinel's limit, 95 %"][1] == [0.95, 0.95]
    assert [ys for _, ys in lines(rate).values()] == [[1e-3 / epoch for epoch in epochs]]
    assert all(axes.get_xlabel() == "epoch" for axes in panels.values())


def test_limits_and_weights_are_those_of_the_run(tmp_path: Path, panels: dict[str, Axes]) -> None:
    chosen = LossWeights.from_preset("original", {})
    curves.draw(ROWS, tmp_path / "c.png", chosen, Sentinel(least_foreground=0.01, most_foreground=0.8))
    loss, _, _, shares, _ = panels.values()
    assert lines(loss)["0.4 × dice"][1] == [0.4 * made["dice"] for made in ROWS]
    assert {"sentinel's limit, 1 %", "sentinel's limit, 80 %"} <= set(lines(shares))


@pytest.mark.parametrize(
    "rows",
    [
        [],
        ROWS[:1],
        [
            {"epoch": "2", "loss": "nan", "val_score": "inf", "dice": None, "more": "text", "val_foreground": ""},
            {"epoch": 3, "val_foreground": 0.0},
            {"epoch": 4, "val_foreground": 1.0},
            {"loss": 0.5},
        ],
    ],
)
def test_a_log_of_little_or_nothing_is_drawn_too(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    curves.draw(rows, tmp_path / "c.png")
    with Image.open(tmp_path / "c.png") as opened:
        assert opened.format == "PNG"
        assert min(opened.size) >= 1000
    assert [path.name for path in tmp_path.iterdir()] == ["c.png"]


def test_a_collapse_lies_on_the_edge(tmp_path: Path, panels: dict[str, Axes]) -> None:
    rows = [{"epoch": 1, "val_foreground": 0.0}, {"epoch": 2, "val_foreground": 1.0}]
    curves.draw(rows, tmp_path / "c.png")
    shares = list(panels.values())[3]
    low, high = shares.get_ylim()
    assert lines(shares)["predicted"] == ([1, 2], [low, high])
    assert 0 < low < 0.001
    assert 0.95 < high < 1


def test_no_colour_stands_for_two_terms(tmp_path: Path, panels: dict[str, Axes]) -> None:
    curves.draw(ROWS, tmp_path / "c.png")
    for axes in panels.values():
        looks = [(line.get_color(), line.get_linestyle()) for line in axes.get_lines() if len(line.get_xdata()) > 2]
        assert len(set(looks)) == len(looks)
