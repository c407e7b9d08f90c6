"""Score many cases: each is read and scored on its own, in as many processes as asked for."""

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor

from surface_score.leaderboard import CaseScore, score_case
from surface_score.masks import MaskError, MaskFile, read, surprises

FilePair = tuple[MaskFile, MaskFile]
Scored = tuple[CaseScore, list[str]]


def score_pairs(pairs: Sequence[FilePair], workers: int) -> Iterator[Scored]:
    """Yield for each (prediction, truth), in their order, its score and what is odd about the prediction.

    The workers share the cores and change no result. The first fault in the order of the pairs is the one raised, as
    MaskError; a worker that dies raises BrokenProcessPool.
    """
    if workers == 1:
        yield from map(_score_pair, pairs)
        return
    # spawn: a fork would copy the locks of threads that the caller's libraries have started.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))
    try:
        threads = max(1, (os.cpu_count() or 1) // workers)
        yield from pool.map(_score_pair, pairs, [threads] * len(pairs))
    finally:
        pool.shutdown(cancel_futures=True)


def _score_pair(files: FilePair, threads: int | None = None) -> Scored:
    prediction, label = read(files[0]), read(files[1])
    try:
        score = score_case(prediction, label, threads)
    except ValueError as error:
        raise MaskError(f"{files[0]} against {files[1]}: {error}") from error
    return score, [f"{files[0]}: {said}" for said in surprises(prediction)]
