"""The section "Training": curves, decisions, pictures, settings and machine of a run."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from surface_kernel.networks.weights import Metadata
from surface_report.html import data_url, render
from surface_report.inputs import Inputs
from surface_report.section import Section
from surface_report.table import Cell, Column, Table, number
from surface_report.training.curves import curves
from surface_report.training.run_log import RunLog, read_run

_MOST_PICTURES = 12
_PICTURE_WIDTH = 1000


def training_section(inputs: Inputs) -> Section | None:
    """Return the section, or None without a run. Raises PageError for a folder that is none."""
    if inputs.run is None:
        return None
    run = read_run(inputs.run)
    pictures = [(path.stem.replace("_", " "), _picture(path)) for path in _chosen(run.pictures)]
    body = render(
        "training.html",
        epochs=len(run.rows),
        plan=_listed(run.plan),
        parts=[*([_weights_table(run)] if run.files else []), *_threshold_tables(run), *curves(run)],
        pictures=pictures,
        left_out=len(run.pictures) - len(pictures),
        settings=run.settings,
        environment=_listed(run.environment),
    )
    return Section(id="training", title="Training", body=body, faults=run.faults)


def _weights_table(run: RunLog) -> Table:
    """Return what the run's weights files say of how they were chosen."""
    columns = [
        Column(title="file", numeric=False),
        Column(title="made of", numeric=False, note="single weights, or the mean of so many states"),
        Column(title="epoch"),
        Column(title="score", note="of its validation"),
        Column(title="surface Dice"),
        Column(title="threshold"),
        Column(title="ships", numeric=False),
    ]
    shipped = str(run.files["weights"].provenance.get("shipped", "")) if "weights" in run.files else ""
    rows = [_weights_row(name, metadata, shipped) for name, metadata in run.files.items()]
    return Table(id="training-weights", caption="Weights and how they validated", columns=columns, rows=rows)


def _weights_row(name: str, metadata: Metadata, shipped: str) -> list[Cell]:
    told = metadata.provenance
    validated = told.get("validation")
    result: Mapping[str, Any] = validated if isinstance(validated, Mapping) else {}
    averaged = told.get("n_averaged") or 0
    return [
        Cell(f"{name}.safetensors"),
        Cell(f"the mean of {averaged} states" if averaged else "single weights"),
        Cell(str(told.get("epoch", "–"))),
        number(_float(result.get("score")), 4) if result else Cell("not validated"),
        number(_float(result.get("surface_dice")), 4),
        number(metadata.threshold, 2),
        Cell("yes" if name == shipped else f"as {shipped}" if name == "weights" and shipped else ""),
    ]


def _threshold_tables(run: RunLog) -> list[Table]:
    """Return how the thresholds scored, where the run searched one."""
    told = run.files["weights"].provenance if "weights" in run.files else {}
    scores = told.get("score_by_threshold")
    if not isinstance(scores, Mapping):
        return []
    columns = [Column(title="threshold"), Column(title="score")]
    rows = [[Cell(str(threshold)), number(_float(score), 4)] for threshold, score in scores.items()]
    return [Table(id="training-thresholds", caption="Score by threshold, shipped weights", columns=columns, rows=rows)]


def _chosen(pictures: Sequence[Path]) -> list[Path]:
    """Return up to _MOST_PICTURES, evenly spread, the last among them."""
    if len(pictures) <= _MOST_PICTURES:
        return list(pictures)
    step = (len(pictures) - 1) / (_MOST_PICTURES - 1)
    return [pictures[round(place * step)] for place in range(_MOST_PICTURES)]


def _picture(path: Path) -> str:
    """Return a PNG as a smaller WebP in a URL."""
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    picture.thumbnail((_PICTURE_WIDTH, 4 * _PICTURE_WIDTH))
    content = io.BytesIO()
    picture.save(content, "WEBP", quality=70)
    return data_url(content.getvalue(), "image/webp")


def _listed(entries: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(str(name), value if isinstance(value, str) else json.dumps(value)) for name, value in entries.items()]


def _float(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
