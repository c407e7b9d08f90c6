"""Which cases a run learns from and which it is checked on."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from surface_train.cases import Case, sizes_by_scroll

ALL = "all"


class FoldError(ValueError):
    """A split that cannot be made from these cases."""


@dataclass(frozen=True)
class Split:
    """The two sides of a fold. With "all" there is nothing to check on: `validation` is empty."""

    training: tuple[Case, ...]
    validation: tuple[Case, ...]
    fold: str = ALL

    @property
    def digest(self) -> str:
        """Give a sha256 of who is on which side."""
        sides = "\n".join(",".join(sorted(case.name for case in side)) for side in (self.training, self.validation))
        return hashlib.sha256(sides.encode()).hexdigest()


def split(cases: Sequence[Case], fold: str, kind: str, count: int) -> Split:
    """Split the cases for fold "0", "1", … or "all". The same cases give the same split, in whatever order they come.

    kind "scroll": whole scrolls are dealt out, the largest first, each to the smallest fold so far, so that no scroll
    is on both sides. kind "case": cases are dealt out in turn, scroll by scroll, so that every fold has all scrolls.
    Raises FoldError.
    """
    ordered = sorted(cases, key=lambda case: case.name)
    if fold == ALL:
        return Split(tuple(ordered), ())
    if not fold.isdecimal() or int(fold) >= count:
        raise FoldError(f'fold: found "{fold}", wanted 0 to {count - 1}, or {ALL}')
    fold_of = _deal_scrolls(ordered, count) if kind == "scroll" else _deal_cases(ordered, count)
    inside = tuple(case for case in ordered if fold_of[case.name] == int(fold))
    outside = tuple(case for case in ordered if fold_of[case.name] != int(fold))
    if not inside or not outside:
        raise FoldError(
            f"fold {fold}: found {len(inside)} cases to check on and {len(outside)} to learn from, wanted both"
        )
    return Split(outside, inside, fold)


def _deal_scrolls(cases: Sequence[Case], count: int) -> dict[str, int]:
    scrolls = sizes_by_scroll(cases)
    if len(scrolls) < count:
        raise FoldError(f'folds: found {len(scrolls)} scrolls for {count} folds, wanted fewer folds, or folds = "case"')
    filled, fold_of_scroll = [0] * count, {}
    for scroll, size in scrolls.items():
        smallest = filled.index(min(filled))
        fold_of_scroll[scroll] = smallest
        filled[smallest] += size
    return {case.name: fold_of_scroll[case.scroll] for case in cases}


def _deal_cases(cases: Sequence[Case], count: int) -> dict[str, int]:
    by_scroll = sorted(cases, key=lambda case: (case.scroll, case.name))
    return {case.name: position % count for position, case in enumerate(by_scroll)}
