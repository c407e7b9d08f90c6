"""Which chain to take, and what that choice is worth on scrolls that it has not seen.

scores: float64 (chains, volumes). Choosing on some volumes and reporting on the same flatters the choice, so for each
scroll left out the chain is chosen on the others and its score on that scroll reported: the nested estimate.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float64]
_RESAMPLES, _SEED = 2000, 0


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A scroll that was left out of the choice."""

    group: str
    """Its id; a volume's, where the choice is by case."""
    volumes: int
    chosen: int
    """The chain that was chosen on the others."""
    score: float
    """That chain's mean score here."""
    best: int
    """The chain that scores best here, in hindsight."""
    best_score: float


def choose(scores: Scores, sizes: Sequence[int]) -> int:
    """Return the simplest chain within one standard error of the best one; of equally simple ones the best.

    The standard error is that of the mean difference to the best over volumes: what volumes have in common, easy or
    hard for every chain, does not count. A single volume has none, and the best is taken.

    Args:
        scores: (chains, volumes).
        sizes: how many steps each chain has.
    """
    means = scores.mean(axis=1)
    behind = scores[int(means.argmax())] - scores
    if scores.shape[1] < 2:
        return int(means.argmax())
    error = behind.std(axis=1, ddof=1) / np.sqrt(scores.shape[1])
    within = np.flatnonzero(behind.mean(axis=1) <= error)
    return min(map(int, within), key=lambda chain: (sizes[chain], -means[chain]))


def leave_out(scores: Scores, sizes: Sequence[int], groups: Sequence[str]) -> list[LeftOut]:
    """Return for every group of volumes what was chosen on the others, and how it did.

    Args:
        scores: (chains, volumes).
        sizes: how many steps each chain has.
        groups: of each volume, its scroll.

    Raises:
        ValueError: for fewer than two groups.
    """
    names = list(dict.fromkeys(groups))
    if len(names) < 2:
        raise ValueError(f"expected two scrolls or more, got {len(names)}")
    rows = []
    for name in names:
        inside = np.array([group == name for group in groups])
        chosen, here = choose(scores[:, ~inside], sizes), scores[:, inside].mean(axis=1)
        rows.append(
            LeftOut(
                group=name,
                volumes=int(inside.sum()),
                chosen=chosen,
                score=float(here[chosen]),
                best=int(here.argmax()),
                best_score=float(here.max()),
            )
        )
    return rows


def interval(scores: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95 % interval of a chain's mean score, from resampled volumes: a bootstrap. scores: (volumes,)."""
    drawn = np.random.default_rng(_SEED).integers(0, len(scores), (_RESAMPLES, len(scores)))
    low, high = np.percentile(scores[drawn].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)
