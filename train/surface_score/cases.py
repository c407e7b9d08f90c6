"""Score many cases: each is read, scored and explained on its own, in as many processes as asked for."""

import json
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from surface_score.explain import explain
from surface_score.leaderboard import CaseScore, Masks, masks_of, score_masks
from surface_score.masks import MaskError, MaskFile, read, surprises, surprises_of_truth
from surface_score.reasons import as_dict, as_text

INVERTED_SHARE = 0.5

FilePair = tuple[MaskFile, MaskFile]
Scored = tuple[CaseScore, list[str]]


def score_pairs(pairs: Sequence[FilePair], workers: int, explain_in: Path | None = None) -> Iterator[Scored]:
    """Yield for each (prediction, truth), in their order, its score and what is odd about the two files.

    Where `explain_in` names a folder, each case leaves {id}.txt, {id}.json and {id}.png there. The workers share the
    cores and change no result. The first fault in the order of the pairs is the one raised, as MaskError; a worker that
    dies raises BrokenProcessPool.
    """
    threads = max(1, (os.cpu_count() or 1) // workers)
    each = ([threads] * len(pairs), [explain_in] * len(pairs))
    if workers == 1:
        yield from map(_score_pair, pairs, *each)
        return
    # spawn: a fork would copy the locks of threads that the caller's libraries have started.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))
    try:
        yield from pool.map(_score_pair, pairs, *each)
    finally:
        pool.shutdown(cancel_futures=True)


def _score_pair(files: FilePair, threads: int, explain_in: Path | None) -> Scored:
    prediction, label = read(files[0]), read(files[1])
    try:
        masks = masks_of(prediction, label)
    except ValueError as error:
        raise MaskError(f"{files[0]} against {files[1]}: {error}") from error
    said = [f"{files[0]}: {odd}" for odd in surprises(prediction)]
    said += [f"{files[1]}: {odd}" for odd in surprises_of_truth(label)]
    said += [f"{files[0]} against {files[1]}: {odd}" for odd in surprises_of_pair(masks)]
    del prediction, label
    score = score_masks(masks, threads)
    if explain_in is not None:
        _explain(files[1].id, masks, score, explain_in, threads)
    return score, said


def surprises_of_pair(masks: Masks) -> list[str]:
    """Say where a prediction looks like the truth's negative: most of what is labelled, where the truth is little."""
    labelled = masks.truth.size - int(np.count_nonzero(masks.ignored))
    predicted, true = (int(np.count_nonzero(mask)) for mask in (masks.predicted, masks.truth))
    if not labelled or predicted <= INVERTED_SHARE * labelled or true >= (1 - INVERTED_SHARE) * labelled:
        return []
    shares = f"{predicted / labelled:.2%} of the labelled voxels predicted where {true / labelled:.2%} are true"
    return [f"{shares}: is the mask inverted?"]


def _explain(id_: str, masks: Masks, score: CaseScore, folder: Path, threads: int) -> None:
    from surface_score.picture import draw  # matplotlib takes a second to import: only where it is wanted

    explanation = explain(masks, score, threads)
    (folder / f"{id_}.txt").write_text(as_text(id_, explanation), encoding="utf-8")
    (folder / f"{id_}.json").write_text(json.dumps(as_dict(explanation), indent=2, allow_nan=False) + "\n")
    (folder / f"{id_}.png").write_bytes(draw(id_, explanation, masks))
