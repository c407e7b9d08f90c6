"""What a case of a data folder is, and what is wrong with it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from surface_report.data.folder import CaseInFolder
from surface_report.data.image_facts import ImageFacts
from surface_train.data import check
from surface_train.data.cases import Case
from surface_train.data.check import CheckedCase


@dataclass(frozen=True, kw_only=True)
class CaseFacts:
    """A case's facts; what could not be read is None."""

    id: str
    scroll: str
    shape_zyx: tuple[int, ...] | None
    shares: tuple[float, ...] | None
    """Of the labels 0, 1 and 2, of all voxels."""
    image: ImageFacts | None
    faults: tuple[str, ...]


def checked_by_id(cases: Iterable[CaseInFolder]) -> dict[str, CheckedCase]:
    """Return the check that a training makes before its first step, of each case that has image and label."""
    complete = [
        Case(name=one.id, scroll=one.scroll, image=one.image, label=one.label)
        for one in cases
        if one.image is not None and one.label is not None
    ]
    return {one.name: one for one in check.check(complete)}


def case_facts(case: CaseInFolder, checked: CheckedCase | None, image: ImageFacts | str | None) -> CaseFacts:
    """Return the facts of a case.

    Args:
        case: The case.
        checked: Its check; None where it has not both files.
        image: The facts of its image, or why there are none; None without image.
    """
    known = image if isinstance(image, ImageFacts) else None
    return CaseFacts(
        id=case.id,
        scroll=case.scroll,
        shape_zyx=known.shape_zyx if known else checked.shape_zyx if checked else None,
        shares=_shares(checked),
        image=known,
        faults=(*case.faults, *_faults(case, checked, image)),
    )


def _shares(checked: CheckedCase | None) -> tuple[float, ...] | None:
    voxels = sum(checked.counts) if checked else 0
    return tuple(count / voxels for count in checked.counts[:3]) if checked and voxels else None


def _faults(case: CaseInFolder, checked: CheckedCase | None, image: ImageFacts | str | None) -> Sequence[str]:
    said = [] if checked is None else [checked.message, *checked.remarks]
    if checked is not None and checked.others and checked.fault != check.VALUES:  # of faults, it names the first
        said.append(f"labels beyond 0, 1 and 2: {', '.join(map(str, checked.others))}")
    if isinstance(image, str) and not (checked and checked.fault == check.IMAGE):
        said.append(image)
    folders = {f"{path.parent.parent}/" for path in (case.image, case.label) if path is not None}
    return [_without(text, folders) for text in said if text]


def _without(text: str, folders: Iterable[str]) -> str:
    """Return a message with files named from the data folder on."""
    for folder in folders:
        text = text.replace(folder, "")
    return text
