"""The section "Data": the cases of a competition folder, and what is wrong with them."""

from collections import Counter
from collections.abc import Sequence

from surface_report.case_files import of_each
from surface_report.data.case_facts import CaseFacts, case_facts, checked_by_id
from surface_report.data.data_charts import by_scroll, grey_chart, label_chart
from surface_report.data.duplicates import with_duplicates
from surface_report.data.folder import TABLE, WITHDRAWN, FolderListing, list_folder
from surface_report.data.image_facts import image_facts
from surface_report.html import render
from surface_report.inputs import Inputs
from surface_report.section import Section
from surface_report.table import Cell, Column, Table, number, share


def data_section(inputs: Inputs) -> Section | None:
    """Return the section, or None where there is no data folder, or one of test volumes alone.

    Raises:
        PageError: for a folder without a table of its cases.
    """
    if inputs.data is None or not (inputs.data / "train_images").is_dir():
        return None
    listing = list_folder(inputs.data)
    checked = checked_by_id(listing.cases)
    images = {one.id: one.image for one in listing.cases if one.image is not None}
    seen = dict(zip(images, of_each(image_facts, list(images.values()), "images"), strict=True))
    facts = with_duplicates([case_facts(one, checked.get(one.id), seen.get(one.id)) for one in listing.cases])
    faults = _all_faults(facts, listing)
    charts = [chart for chart in (grey_chart(facts), label_chart(facts)) if chart is not None]
    body = render(
        "data.html",
        cases=len(facts),
        scrolls=len({one.scroll for one in facts if one.scroll}),
        shapes=Counter(" × ".join(map(str, one.shape_zyx)) for one in facts if one.shape_zyx).most_common(),
        charts=charts,
        sound=not faults,
        tables=[_scrolls(facts), *([_faults(faults)] if faults else []), _cases(facts)],
    )
    return Section(id="data", title="Data", body=body)


def _all_faults(facts: Sequence[CaseFacts], listing: FolderListing) -> list[tuple[str, str]]:
    """Return every fault with its case's id."""
    said = [(one.id, fault) for one in facts for fault in one.faults]
    said += [(id_, f"a row in {TABLE} without files") for id_ in listing.without_files]
    return said + [(id_, f"a row in {TABLE} without files, which lie in {WITHDRAWN}") for id_ in listing.withdrawn]


def _scrolls(facts: Sequence[CaseFacts]) -> Table:
    rows = []
    for scroll, group in by_scroll(facts).items():
        known = [one.shares for one in group if one.shares is not None]
        greys = [one.image.mean for one in group if one.image is not None]
        means = [sum(shares[value] for shares in known) / len(known) if known else None for value in range(3)]
        grey, faults = sum(greys) / len(greys) if greys else None, sum(bool(one.faults) for one in group)
        shares = (share(mean) for mean in means)
        rows.append([Cell(scroll), number(len(group), 0), *shares, number(grey, 1), number(faults, 0)])
    columns = ("cases", "label 0", "label 1", "label 2", "grey", "cases with faults")
    return Table(
        id="data-scrolls",
        caption="Scrolls, the largest first: means over their cases; grey without zeros",
        columns=[Column(title="scroll", numeric=False), *(Column(title=title) for title in columns)],
        rows=rows,
        sorted_by=1,
        descending=True,
    )


def _faults(faults: Sequence[tuple[str, str]]) -> Table:
    return Table(
        id="data-faults",
        caption=f"{len(faults)} fault{'s' * (len(faults) != 1)}",
        columns=[Column(title="case", numeric=False), Column(title="fault", numeric=False)],
        rows=[[Cell(id_), Cell(fault)] for id_, fault in faults],
    )


def _cases(facts: Sequence[CaseFacts]) -> Table:
    return Table(
        id="data-cases",
        caption="All cases, by scroll",
        columns=[
            Column(title="case", numeric=False),
            Column(title="scroll", numeric=False),
            Column(title="shape", numeric=False),
            *(Column(title=f"label {value}") for value in range(3)),
            Column(title="grey", note="mean without zeros"),
            Column(title="zeros", note="share of the image's voxels that are 0"),
            Column(title="faults"),
        ],
        rows=[
            [
                Cell(one.id),
                Cell(one.scroll or "–"),
                Cell(" × ".join(map(str, one.shape_zyx)) if one.shape_zyx else "–"),
                *(share(None if one.shares is None else one.shares[value], 2) for value in range(3)),
                number(one.image.mean if one.image else None, 1),
                share(one.image.zeros if one.image else None),
                number(len(one.faults), 0),
            ]
            for one in facts
        ],
        sorted_by=1,
    )
