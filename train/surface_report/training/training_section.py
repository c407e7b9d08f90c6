"""The section "Training": a run's curves, decisions, pictures, settings and machine."""

import json
from collections.abc import Mapping
from typing import Any

from surface_report.chart import Chart
from surface_report.html import data_url, render
from surface_report.inputs import Inputs
from surface_report.section import Section
from surface_report.table import Cell, Column, Table, number
from surface_report.training.curves_of_run import curves_of_run, threshold_chart
from surface_report.training.decisions import decisions
from surface_report.training.run_files import RunFiles, read_run, small

_PARTS = ("score", "topo_score", "surface_dice", "voi_score", "dice", "foreground", "truth", "threshold")


def training_section(inputs: Inputs) -> Section | None:
    """Return the section, or None where the inputs hold nothing for it.

    Raises:
        PageError: for a folder that is no run's.
    """
    if inputs.run is None:
        return None
    run = read_run(inputs.run)
    pictures, faults = [], list(run.faults)
    for path in run.pictures:
        try:
            pictures.append({"name": path.stem.replace("_", " "), "url": data_url(small(path), "image/webp")})
        except OSError as error:
            faults.append(f"{path.name}: {error}")
    body = render(
        "training.html",
        run=run,
        decisions=decisions(run),
        charts=[*curves_of_run(run.rows), *_thresholds(run.shipped)],
        validations=_validations(run),
        pictures=pictures,
        plan={name: _text(value) for name, value in run.plan.items()},
        libraries=run.environment.get("libraries", {}),
        machine={name: run.environment[name] for name in run.environment if name not in ("libraries", "init")},
        sides={side: run.split[side] for side in ("training", "validation") if isinstance(run.split.get(side), list)},
    )
    return Section(id="training", title="Training", body=body, faults=tuple(faults))


def _thresholds(shipped: Mapping[str, Any]) -> list[Chart]:
    tried, validation = shipped.get("score_by_threshold"), shipped.get("validation")
    if not isinstance(tried, Mapping) or not tried:
        return []
    return [threshold_chart(tried, validation.get("threshold") if isinstance(validation, Mapping) else None)]


def _validations(run: RunFiles) -> Table | None:
    """Return the validations of the weights files, side by side."""
    of_files = {"best single": run.best, "averaged": run.averaged, "shipped": run.shipped}
    found = {name: one.get("validation") for name, one in of_files.items()}
    found["shipped, on the whole fold"] = run.shipped.get("whole_fold")
    rows = [
        [Cell(name), *(number(_number(one.get(part)), 4) for part in _PARTS)]
        for name, one in found.items()
        if isinstance(one, Mapping)
    ]
    columns = [Column(title="weights", numeric=False), *(Column(title=part.replace("_", " ")) for part in _PARTS)]
    return Table(id="training-validations", caption="Validations", columns=columns, rows=rows) if rows else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
