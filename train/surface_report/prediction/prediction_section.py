"""The section "Prediction": what can be said of masks without a truth, and what their run says."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.ticker import EngFormatter, NullFormatter

from surface_kernel.volumes.header import VolumeError
from surface_report.case_files import image_of, of_each
from surface_report.chart import BLUE, Chart, drawing, only_axes
from surface_report.html import render
from surface_report.inputs import Inputs
from surface_report.prediction.disagreement_parts import disagreement_parts
from surface_report.prediction.mask_facts import MaskFacts, mask_facts
from surface_report.prediction.run_report import read_report, volumes_table
from surface_report.section import Section
from surface_report.table import Cell, Column, Table, number, share
from surface_score.masks import MaskError, MaskFile, find_masks

_SHOWN_SIZES = 3


def prediction_section(inputs: Inputs) -> Section | None:
    """Return the section; None without a submission, and where there is a truth, and neither a run's report nor fields.

    Raises:
        MaskError: for a submission that is no set of masks.
        PageError: for a single folder of fields.
    """
    if inputs.submission is None:
        return None
    report = read_report(inputs.submission)
    files = find_masks(inputs.submission)
    asked = [] if inputs.truth else [(file, image_of(inputs, id_)) for id_, file in files.items()]
    differing = disagreement_parts(inputs, list(files))
    if report is None and differing is None and not asked:
        return None
    made = of_each(_facts, asked, "masks")
    facts = [one for one in made if isinstance(one, MaskFacts)]
    body = render(
        "prediction.html",
        report=report,
        volumes=None if report is None else volumes_table(report),
        facts=_table(facts) if facts else None,
        sizes=_sizes(facts) if any(one.components for one in facts) else None,
        unscanned=[one.id for one in facts if one.unscanned],
        without_ct=sum(one.unscanned is None for one in facts),
        differing=differing,
    )
    faults = [one for one in made if isinstance(one, str)] + list(differing.faults if differing else [])
    return Section(id="prediction", title="Prediction", body=body, faults=tuple(faults))


def _facts(asked: tuple[MaskFile, Path | None]) -> MaskFacts | str:
    file, image = asked
    try:
        return mask_facts(file, image)
    except (MaskError, VolumeError, OSError, ValueError) as error:
        return f"{file.id}: {error}"


def _table(facts: Sequence[MaskFacts]) -> Table:
    return Table(
        id="prediction-masks",
        caption=f"{len(facts)} masks, the one with the most components first",
        columns=[
            Column(title="case", numeric=False),
            Column(title="shape", numeric=False),
            Column(title="foreground"),
            Column(title="components", note="26-connected"),
            Column(title="largest, voxels"),
            Column(title="median, voxels"),
            Column(title="thickness, voxels", note="of sheets: twice the volume over the surface's area"),
            Column(title="unscanned", note="share of the foreground where nothing was scanned: must be 0"),
        ],
        rows=[
            [
                Cell(one.id),
                Cell(" × ".join(map(str, one.shape_zyx))),
                share(one.foreground, 2),
                number(one.components, 0),
                Cell(", ".join(f"{size:,}" for size in one.sizes[:_SHOWN_SIZES]) or "–", max(one.sizes, default=0)),
                number(float(np.median(one.sizes)) if one.sizes else None, 0),
                number(one.thickness_voxels, 2),
                share(one.unscanned, 4),
            ]
            for one in sorted(facts, key=lambda one: -one.components)
        ],
        sorted_by=3,
        descending=True,
    )


def _sizes(facts: Sequence[MaskFacts]) -> Chart:
    """Return the sizes of all components as a histogram over decades."""
    sizes = np.array([size for one in facts for size in one.sizes])
    edges = np.logspace(0, np.ceil(np.log10(sizes.max() + 1)), 25)
    said = f"{len(sizes)} components, median {np.median(sizes):.0f} voxels, largest {sizes.max()}"
    with drawing("prediction-sizes", title="Sizes of the components", description=said, size_inches=(6, 2.6)) as drawn:
        axes = only_axes(drawn)
        axes.hist(sizes, bins=edges.tolist(), color=BLUE)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(EngFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("voxels")
        axes.set_ylabel("components")
    return drawn.chart
