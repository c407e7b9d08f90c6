"""Which cases a run learns from and which it is checked on."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from surface_train.data.cases import Case, sizes_by_scroll

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
        """Give a sha256 of who is on which side, and of whose label was repaired, by the repair's folder's name."""
        sides = "\n".join(",".join(sorted(map(_entry, side))) for side in (self.training, self.validation))
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
    fold_of = _deal(ordered, kind, count)
    inside = tuple(case for case in ordered if fold_of[case.name] == int(fold))
    outside = tuple(case for case in ordered if fold_of[case.name] != int(fold))
    if not inside or not outside:
        raise FoldError(
            f"fold {fold}: found {len(inside)} cases to check on and {len(outside)} to learn from, wanted both"
        )
    return Split(outside, inside, fold)


def sizes(cases: Sequence[Case], kind: str, count: int) -> list[dict[str, int]]:
    """Count the cases of every scroll in every fold, largest first. Raises FoldError as `split` does."""
    ordered = sorted(cases, key=lambda case: case.name)
    fold_of = _deal(ordered, kind, count)
    return [sizes_by_scroll(case for case in ordered if fold_of[case.name] == fold) for fold in range(count)]


def described(cases: Sequence[Case], kind: str, count: int) -> str:
    """Say in one line how large each fold is, of which scrolls, and how much of it all is of one scroll.

    Raises FoldError as `split` does.
    """
    folds = sizes(cases, kind, count)
    parts = []
    for fold, scrolls in enumerate(folds):
        listed = ", ".join(f"{scroll} ×{size}" for scroll, size in scrolls.items())
        parts.append(f"fold {fold}: {sum(scrolls.values())} ({listed})")
    scroll, size = next(iter(sizes_by_scroll(cases).items()))
    return f"{'; '.join(parts)}; scroll {scroll} holds {100 * size / len(cases):.0f} % of the cases"


def _entry(case: Case) -> str:
    return f"{case.name} repaired in {case.repaired_in}" if case.repaired_in else case.name


def _deal(cases: Sequence[Case], kind: str, count: int) -> dict[str, int]:
    return _deal_scrolls(cases, count) if kind == "scroll" else _deal_cases(cases, count)


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
