"""The section "Slices": each case of a submission in three planes, with what to switch on over the CT."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from surface_kernel.volumes.header import VolumeError
from surface_report.case_files import image_of, of_each
from surface_report.html import render
from surface_report.inputs import Inputs
from surface_report.results import ScoreRow, breakdown_of, scores_of
from surface_report.section import Section
from surface_report.slices.case_slices import CaseFiles, Room, SlicesError, case_slices
from surface_score.masks import MaskError, find_masks

FEW, MANY = 6, 20
_BYTES_OF_FEW_CASES = 13_500_000  # 20 cases make a page of at most 15 MB
_BYTES_OF_MANY_CASES = 57_000_000  # 120 cases make one of at most 60 MB

Packed = dict[str, object] | str


def slices_section(inputs: Inputs) -> Section | None:
    """Return the section, or None where there is no submission.

    Raises:
        MaskError: for a submission or a truth that is no set of masks.
    """
    if inputs.submission is None:
        return None
    files = list(_case_files(inputs))
    room = room_for(len(files))
    packed = of_each(partial(_pack, room=room), files, "slices")
    scores = [scores_of(inputs, number) or {} for number in range(2)]
    shown = [case | _facts(str(case["id"]), scores) for case in packed if not isinstance(case, str)]
    body = render(
        "slices.html",
        cases=shown,
        room=room,
        compared=[path.name for path in (inputs.submission, inputs.compare) if path is not None],
        named=any(case["exact"] for case in shown),
        reduced=any(case["cells"] != case["shape"] for case in shown),
    )
    faults = tuple(case for case in packed if isinstance(case, str))
    return Section(id="slices", title="Slices", body=body, faults=faults)


def room_for(cases: int) -> Room:
    """Return how large each of so many cases may get."""
    if cases <= MANY:
        each = _BYTES_OF_FEW_CASES // max(cases, 4)
        return Room(cells=192, planes=40, bytes=each) if cases <= FEW else Room(cells=128, planes=12, bytes=each)
    each = min(_BYTES_OF_MANY_CASES // cases, _BYTES_OF_FEW_CASES // MANY)
    return Room(cells=128, planes=12 if each * MANY >= _BYTES_OF_FEW_CASES else 4, bytes=each)


def _facts(id_: str, scores: Sequence[Mapping[str, ScoreRow]]) -> dict[str, object]:
    """Return a case's scores, of one submission or of both, for the viewer."""
    return {"scores": [{"score": rows[id_].score, "lost": rows[id_].lost} for rows in scores if id_ in rows]}


def _case_files(inputs: Inputs) -> Iterator[CaseFiles]:
    """Yield the files of each case of the submission, the lowest score first."""
    assert inputs.submission is not None
    found = find_masks(inputs.submission)
    others = {} if inputs.compare is None else find_masks(inputs.compare)
    truths = {} if inputs.truth is None else find_masks(inputs.truth)
    scores = scores_of(inputs, 0) or {}
    ranked = sorted(found, key=lambda id_: scores[id_].score if id_ in scores else 2.0)
    for id_ in ranked:
        predictions = (found[id_], others[id_]) if id_ in others else (found[id_],)
        yield CaseFiles(
            id=id_,
            predictions=predictions,
            truth=truths.get(id_),
            image=image_of(inputs, id_),
            breakdowns=tuple(breakdown_of(inputs, number, id_) for number in range(len(predictions))),
        )


def _pack(files: CaseFiles, room: Room) -> Packed:
    try:
        return case_slices(files, room)
    except (SlicesError, MaskError, VolumeError, OSError) as error:
        return f"{files.id}: {error}"
