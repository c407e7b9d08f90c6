"""Which cases a run trains on and which it is validated on."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from surface_train.data.cases import Case, sizes_by_scroll

ALL = "all"


class FoldError(ValueError):
    """A split that cannot be made from these cases."""


@dataclass(frozen=True)
class Split:
    """The cases on the two sides of a fold."""

    training: tuple[Case, ...]
    """Cases to train on."""

    validation: tuple[Case, ...]
    """Cases to validate on; none for fold "all"."""

    fold: str = ALL
    """Number of the validation fold, or "all"."""

    @property
    def digest(self) -> str:
        """Return a sha256 of which case is on which side, and of the folders that repaired labels come from."""
        # Sorted: the digest says which cases are where, not in which order they were listed.
        sides = "\n".join(",".join(sorted(map(_entry, side))) for side in (self.training, self.validation))
        return hashlib.sha256(sides.encode()).hexdigest()


def split(cases: Sequence[Case], fold: str, *, kind: str, count: int) -> Split:
    """Split the cases into those to train on and those to validate on. The order of the cases does not matter.

    Args:
        cases: all cases.
        fold: the validation fold, "0", "1", …, or "all" to train on every case.
        kind: "scroll" assigns whole scrolls, the largest first, each to the smallest fold so far, so that no scroll is
            on both sides. "case" assigns cases in turn, scroll by scroll, so that every fold has all scrolls.
        count: number of folds.

    Raises:
        FoldError: for a fold that does not exist, too few scrolls, or a side without cases.
    """
    ordered = sorted(cases, key=lambda case: case.name)
    if fold == ALL:
        return Split(tuple(ordered), ())
    if not fold.isdecimal() or int(fold) >= count:
        raise FoldError(f'fold: expected 0 to {count - 1}, or "{ALL}", got "{fold}"')
    fold_of = _deal(ordered, kind, count)
    inside = tuple(case for case in ordered if fold_of[case.name] == int(fold))
    outside = tuple(case for case in ordered if fold_of[case.name] != int(fold))
    if not inside or not outside:
        got = f"{len(outside)} for training and {len(inside)} for validation"
        raise FoldError(f"fold {fold}: expected cases on both sides, got {got}")
    return Split(outside, inside, fold)


def sizes(cases: Sequence[Case], kind: str, count: int) -> list[dict[str, int]]:
    """Return the cases of every scroll, largest first, in every fold. Raises FoldError as `split` does."""
    ordered = sorted(cases, key=lambda case: case.name)
    fold_of = _deal(ordered, kind, count)
    return [sizes_by_scroll(case for case in ordered if fold_of[case.name] == fold) for fold in range(count)]


def described(cases: Sequence[Case], kind: str, count: int) -> str:
    """Return one line on the size of each fold, its scrolls, and the share of the largest scroll.

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
        expected = f"at least {count} scrolls for fold_count = {count}"
        raise FoldError(f'folds: expected {expected}, got {len(scrolls)}: lower fold_count, or set folds = "case"')
    filled, fold_of_scroll = [0] * count, {}
    for scroll, size in scrolls.items():
        # Largest first into the smallest fold so far: the usual greedy rule, and the same for any order of the table.
        smallest = filled.index(min(filled))
        fold_of_scroll[scroll] = smallest
        filled[smallest] += size
    return {case.name: fold_of_scroll[case.scroll] for case in cases}


def _deal_cases(cases: Sequence[Case], count: int) -> dict[str, int]:
    by_scroll = sorted(cases, key=lambda case: (case.scroll, case.name))
    return {case.name: position % count for position, case in enumerate(by_scroll)}
