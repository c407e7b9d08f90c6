"""The score of what comes without one."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from surface_kernel import disk
from surface_kernel.machine import cores
from surface_report.inputs import Inputs
from surface_score.cases import score_pairs
from surface_score.masks import find_masks, pair_by_id
from surface_score.report import as_json


@contextmanager
def with_scores(inputs: Inputs) -> Iterator[Inputs]:
    """Yield the inputs with a score and a breakdown, made now where there is a truth and neither was given.

    Raises:
        MaskError: for masks that cannot be scored.
    """
    if inputs.submission is None or inputs.truth is None or inputs.score or inputs.explain:
        yield inputs
        return
    submissions = [path for path in (inputs.submission, inputs.compare) if path is not None]
    with tempfile.TemporaryDirectory(prefix="surface_report-") as scratch:
        made = [_score(path, inputs.truth, Path(scratch) / str(number)) for number, path in enumerate(submissions)]
        yield replace(
            inputs,
            score=tuple(folder / "score.json" for folder, _ in made),
            explain=tuple(folder / "explain" for folder, _ in made),
            warnings=(*inputs.warnings, *(warning for _, warnings in made for warning in warnings)),
        )


def _score(submission: Path, truth: Path, folder: Path) -> tuple[Path, list[str]]:
    """Write score.json and explain/ of a submission into a folder. Return it, and the scorer's warnings."""
    (folder / "explain").mkdir(parents=True)
    pairs = pair_by_id(find_masks(submission), find_masks(truth))
    results = score_pairs(pairs, min(cores(), len(pairs)), folder / "explain", pictures=False)
    scores, warnings = {}, []
    for (_, label), (score, of_case) in zip(pairs, tqdm(results, "scoring", len(pairs), disable=None), strict=True):
        scores[label.id] = score
        warnings += of_case
    disk.put(folder / "score.json", as_json(scores).encode())
    return folder, warnings
