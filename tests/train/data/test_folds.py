import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surface_train.data.cases import Case
from surface_train.data.folds import FoldError, Split, described, sizes, split

# The competition's scrolls and how many cases each has: one holds 47 %.
COMPETITION = {"34117": 382, "35360": 176, "26010": 130, "26002": 88, "44430": 17, "53997": 13}


def made(sizes: dict[str, int]) -> list[Case]:
    return [
        Case(name=f"{scroll}-{n}", scroll=scroll, image=Path(), label=Path())
        for scroll, size in sizes.items()
        for n in range(size)
    ]


def names(side: Sequence[Case]) -> set[str]:
    return {case.name for case in side}


def scrolls(side: Sequence[Case]) -> set[str]:
    return {case.scroll for case in side}


by_scroll = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 9), min_size=3)


@given(by_scroll, st.integers(2, 3), st.randoms())
def test_by_scroll_no_scroll_is_on_both_sides_and_every_case_is_checked_once(scroll_sizes, count, random) -> None:
    cases = made(scroll_sizes)
    folds = [split(cases, str(k), kind="scroll", count=count) for k in range(count)]
    for fold in folds:
        assert not scrolls(fold.training) & scrolls(fold.validation)
        assert names(fold.training) | names(fold.validation) == names(cases)
    assert sorted(case.name for fold in folds for case in fold.validation) == sorted(names(cases))
    shuffled = list(cases)
    random.shuffle(shuffled)
    assert [split(shuffled, str(k), kind="scroll", count=count) for k in range(count)] == folds


@given(by_scroll, st.integers(2, 3), st.randoms())
def test_by_case_every_fold_has_all_scrolls_that_are_large_enough(scroll_sizes, count, random) -> None:
    cases = made(scroll_sizes)
    folds = [split(cases, str(k), kind="case", count=count) for k in range(count)]
    assert sorted(case.name for fold in folds for case in fold.validation) == sorted(names(cases))
    large = {scroll for scroll, size in scroll_sizes.items() if size >= count}
    for fold in folds:
        assert large <= scrolls(fold.validation)
        assert not names(fold.training) & names(fold.validation)
    assert max(len(fold.validation) for fold in folds) - min(len(fold.validation) for fold in folds) <= 1
    shuffled = list(cases)
    random.shuffle(shuffled)
    assert [split(shuffled, str(k), kind="case", count=count) for k in range(count)] == folds


def test_the_competitions_scrolls_in_four_folds() -> None:
    cases = made(COMPETITION)
    found = [scrolls(split(cases, str(k), kind="scroll", count=4).validation) for k in range(4)]
    assert found == [{"34117"}, {"35360"}, {"26010"}, {"26002", "44430", "53997"}]


def test_all_learns_from_everything_and_checks_nothing() -> None:
    found = split(made({"a": 2, "b": 1}), "all", kind="scroll", count=4)
    assert names(found.training) == {"a-0", "a-1", "b-0"}
    assert found.validation == ()
    assert found.fold == "all"


@pytest.mark.parametrize("fold", ["4", "-1", "x", "", "1.5"])
def test_a_fold_that_is_not_there_is_refused(fold: str) -> None:
    with pytest.raises(FoldError, match=f'fold: expected 0 to 3, or "all", got "{fold}"'):
        split(made(COMPETITION), fold, kind="scroll", count=4)


def test_too_few_scrolls_are_refused_with_the_way_out() -> None:
    with pytest.raises(
        FoldError, match=r'folds: expected at least 3 scrolls .* got 2: lower fold_count, or set folds = "case"'
    ):
        split(made({"a": 4, "b": 4}), "0", kind="scroll", count=3)


def test_a_side_without_cases_is_refused() -> None:
    with pytest.raises(
        FoldError, match="fold 2: expected cases on both sides, got 2 for training and 0 for validation"
    ):
        split(made({"a": 2}), "2", kind="case", count=3)


def test_the_digest_tells_splits_apart_and_knows_no_order() -> None:
    a, b, c = made({"a": 3})
    assert Split((a, b), (c,)).digest == Split((b, a), (c,)).digest
    assert len({Split((a, b), (c,)).digest, Split((c,), (a, b)).digest, Split((a, b, c), ()).digest}) == 3


def test_a_repaired_label_is_other_data_wherever_its_folder_lies() -> None:
    a, b, c = made({"a": 3})
    plain = Split((a, b), (c,))
    # What splits were called before labels could be repaired.
    assert plain.digest == hashlib.sha256(b"a-0,a-1\na-2").hexdigest()
    mended = replace(a, label=Path("/here/mended/1.tif"), repaired_in="mended")
    elsewhere = replace(mended, label=Path("/there/mended/1.tif"))
    other = replace(a, repaired_in="again")
    found = [Split((case, b), (c,)).digest for case in (mended, elsewhere, other)]
    assert found[0] == found[1]
    assert len({plain.digest, *found}) == 3


@given(by_scroll, st.integers(2, 3), st.sampled_from(["scroll", "case"]))
def test_the_sizes_are_those_of_the_folds(scroll_sizes, count, kind) -> None:
    cases = made(scroll_sizes)
    for k, size in enumerate(sizes(cases, kind, count)):
        validation = split(cases, str(k), kind=kind, count=count).validation
        assert size == {scroll: sum(case.scroll == scroll for case in validation) for scroll in scrolls(validation)}
        assert list(size.values()) == sorted(size.values(), reverse=True)


def test_the_competitions_folds_in_one_line() -> None:
    assert described(made(COMPETITION), "scroll", 4) == (
        "fold 0: 382 (34117 ×382); fold 1: 176 (35360 ×176); fold 2: 130 (26010 ×130); "
        "fold 3: 118 (26002 ×88, 44430 ×17, 53997 ×13); scroll 34117 holds 47 % of the cases"
    )
    assert described(made({"a": 3, "b": 1}), "case", 2) == (
        "fold 0: 2 (a ×2); fold 1: 2 (a ×1, b ×1); scroll a holds 75 % of the cases"
    )
