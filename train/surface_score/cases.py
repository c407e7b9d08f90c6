"""Score many cases: each is read, scored and broken down on its own, in several processes."""

import json
import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from surface_score.breakdown import as_dict, as_text
from surface_score.compiled import allowed_cores
from surface_score.explain import Explanation, explain
from surface_score.leaderboard import CaseScore, Masks, masks_of, score_masks
from surface_score.masks import MaskError, MaskFile, label_warnings, one_line, prediction_warnings, read

INVERTED_SHARE = 0.5

FilePair = tuple[MaskFile, MaskFile]
Scored = tuple[CaseScore, list[str]]


def score_pairs(
    pairs: Sequence[FilePair], workers: int, explain_in: Path | None = None, *, pictures: bool = True
) -> Iterator[Scored]:
    """Yield the score and the warnings of each (prediction, truth), in their order.

    Args:
        pairs: The files to compare.
        workers: How many processes; they share the cores and change no result.
        explain_in: A folder in which each case leaves {id}.txt, {id}.json and {id}.png.
        pictures: Whether it leaves {id}.png.

    Raises:
        MaskError: For the first pair, in their order, that cannot be scored.
        BrokenProcessPool: If a worker dies.
    """
    threads = max(1, allowed_cores() // workers)
    each = ([threads] * len(pairs), [explain_in] * len(pairs), [pictures] * len(pairs))
    if workers == 1:
        yield from map(_score_pair, pairs, *each)
        return
    # spawn: a fork would copy the locks of threads that the caller's libraries have started.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))
    try:
        yield from pool.map(_score_pair, pairs, *each)
    finally:
        pool.shutdown(cancel_futures=True)


def _score_pair(files: FilePair, threads: int, explain_in: Path | None, pictures: bool) -> Scored:
    prediction, label = read(files[0]), read(files[1])
    try:
        masks = masks_of(prediction, label)
    except ValueError as error:
        raise MaskError(f"{files[0]} against {files[1]}: {error}") from error
    warnings = [f"{files[0]}: {warning}" for warning in prediction_warnings(prediction)]
    warnings += [f"{files[1]}: {warning}" for warning in label_warnings(label)]
    warnings += [f"{files[0]} against {files[1]}: {warning}" for warning in pair_warnings(masks)]
    del prediction, label  # two volumes less at the peak
    score = score_masks(masks, threads)
    if explain_in is not None:
        explanation = explain(masks, score, threads)
        _write_breakdown(explanation, id_=files[1].id, folder=explain_in)
        if pictures:
            warnings += _draw(explanation, masks=masks, id_=files[1].id, folder=explain_in)
    return score, warnings


def pair_warnings(masks: Masks) -> list[str]:
    """Return a warning where a prediction looks inverted: more than half of the labelled voxels, the truth less."""
    labelled = masks.truth.size - int(np.count_nonzero(masks.ignored))
    predicted, true = (int(np.count_nonzero(mask)) for mask in (masks.predicted, masks.truth))
    if not labelled or predicted <= INVERTED_SHARE * labelled or true >= (1 - INVERTED_SHARE) * labelled:
        return []
    shares = f"{predicted / labelled:.2%} of the labelled voxels are predicted and {true / labelled:.2%} are true"
    return [f"{shares}: is the mask inverted?"]


def _write_breakdown(explanation: Explanation, *, id_: str, folder: Path) -> None:
    entries = json.dumps(as_dict(explanation), indent=2, allow_nan=False) + "\n"
    (folder / f"{id_}.txt").write_text(as_text(id_, explanation), encoding="utf-8")
    (folder / f"{id_}.json").write_text(entries, encoding="utf-8")


def _draw(explanation: Explanation, *, masks: Masks, id_: str, folder: Path) -> list[str]:
    """Draw a case; return a warning where there is no picture, which is not worth the scores."""
    if "matplotlib" not in sys.modules:  # a notebook asks the commands it starts for a backend that they may not have
        os.environ["MPLBACKEND"] = "agg"
    try:
        from surface_score.picture import draw  # matplotlib takes a second to import: only where it is needed

        (folder / f"{id_}.png").write_bytes(draw(id_, explanation, masks))
    except Exception as error:  # of whatever draws
        return [f"{id_}.png: expected a picture, got none ({one_line(error)})"]
    return []
