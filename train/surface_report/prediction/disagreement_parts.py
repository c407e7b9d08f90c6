"""What the page shows of fields that disagree: a table of all cases, and pictures of the worst."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image

from surface_kernel.volumes import volume
from surface_kernel.volumes.header import VolumeError
from surface_report.case_files import image_of, of_each
from surface_report.html import data_url
from surface_report.inputs import Inputs, PageError
from surface_report.prediction.disagreement import Disagreement, FieldsError, disagreement
from surface_report.table import Cell, Column, Table, number, share

PICTURED = 6  # cases
_COLOURS = "magma"  # from black to a light yellow, in steps that every kind of colour vision sees as equal
_QUALITY = 80  # of WebP
_AXES = "zyx"


@dataclass(frozen=True, kw_only=True)
class DisagreementParts:
    """What the section shows."""

    fields: Sequence[str]
    """Their names."""
    table: Table
    pictures: Sequence[dict[str, object]]
    """Of the cases that differ most: id, place, and panels with a caption and a URL."""
    faults: Sequence[str]


def disagreement_parts(inputs: Inputs, ids: Sequence[str]) -> DisagreementParts | None:
    """Return the parts; None where no fields were given.

    Args:
        inputs: With `fields`.
        ids: Of the cases.

    Raises:
        PageError: for a single folder.
    """
    if not inputs.fields:
        return None
    if len(inputs.fields) < 2:
        raise PageError(f"--fields: expected two folders or more to compare, got {inputs.fields[0]} alone")
    made = of_each(partial(_disagreement, folders=inputs.fields), ids, "disagreement")
    found = sorted((one for one in made if isinstance(one, Disagreement)), key=lambda one: -one.deviation)
    return DisagreementParts(
        fields=[folder.name for folder in inputs.fields],
        table=_table(found),
        pictures=[_pictures(one, image_of(inputs, one.id)) for one in found[:PICTURED]],
        faults=[one for one in made if isinstance(one, str)],
    )


def _disagreement(id_: str, folders: Sequence[Path]) -> Disagreement | str:
    try:
        return disagreement(id_, folders)
    except FieldsError as error:
        return f"{id_}: {error}"


def _table(found: Sequence[Disagreement]) -> Table:
    return Table(
        id="prediction-disagreement",
        caption="The case with the largest deviation first",
        columns=[
            Column(title="case", numeric=False),
            Column(title="deviation", note="mean standard deviation of the probabilities, at most 0.5"),
            Column(title="contested", note="of the voxels that some field calls surface, the share that not all do"),
            Column(title="most in", numeric=False),
        ],
        rows=[[Cell(one.id), number(one.deviation, 4), share(one.contested), Cell(_place(one))] for one in found],
        sorted_by=1,
        descending=True,
    )


def _place(one: Disagreement) -> str:
    return f"{_AXES[one.plane.axis]} = {one.plane.index}"


def _pictures(one: Disagreement, image: Path | None) -> dict[str, object]:
    """Return a case's plane in panels: the CT where there is one, the mean probability, the deviation."""
    coloured = matplotlib.colormaps[_COLOURS](np.clip(one.deviations * 2, 0, 1), bytes=True)[..., :3]
    panels = [("mean probability", _webp(np.rint(one.mean * 255).astype(np.uint8))), ("deviation", _webp(coloured))]
    try:
        grey = None if image is None else volume.read(image)
    except (VolumeError, OSError):
        grey = None  # another section names it
    if grey is not None and grey.shape[one.plane.axis] > one.plane.index:
        plane = np.asarray(one.plane.of(grey), np.uint8)
        if plane.shape == one.mean.shape:
            panels.insert(0, ("CT", _webp(plane)))
    return {"id": one.id, "place": _place(one), "panels": panels}


def _webp(pixels: npt.NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="WEBP", quality=_QUALITY)
    return data_url(file.getvalue(), "image/webp")
