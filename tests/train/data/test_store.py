import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from surface_kernel.volumes.header import VolumeError
from surface_kernel.volumes.intensity import Intensity
from surface_train.data.cases import Case, CasesError
from surface_train.data.store import CaseOrder, Store
from surface_train.settings import Patches, TrainingSettings

SIDE = 8
VOLUME_GB = 2 * SIDE**3 / 1e9  # image and label


@pytest.fixture
def cases(tmp_path: Path, write_case: Callable) -> list[Case]:
    """Six cases; the grey values of case n are n + 1 and n + 2."""
    label = np.indices((SIDE,) * 3).sum(0).astype(np.uint8) % 3
    return [write_case(tmp_path, str(n), "5", n + 1 + label % 2, label) for n in range(6)]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the cases that were read from disk."""
    names: list[str] = []
    real = Case.load
    monkeypatch.setattr(Case, "load", lambda case, label_2: names.append(case.name) or real(case, label_2))
    return names


def store_of(cases: list[Case], volumes: float, resident: int = 2, per_volume: int = 4) -> Store:
    """A store with room for so many cases."""
    patches = Patches(resident=resident, patches_per_volume=per_volume, cache_gb=volumes * VOLUME_GB)
    return Store(cases, TrainingSettings(patches=patches))


# --- the order of visits


@given(st.integers(1, 12), st.integers(1, 14), st.integers(0, 2**40))
@examples(max_examples=80)
def test_no_window_holds_a_case_twice_and_every_pass_holds_each_once(count, window, seed) -> None:
    order = CaseOrder(count, window, seed)
    row = [order[position] for position in range(6 * count)]
    within = min(window, count)
    for start in range(len(row) - within + 1):
        assert len(set(row[start : start + within])) == within
    for start in range(0, len(row), count):
        assert sorted(row[start : start + count]) == list(range(count))
    again = CaseOrder(count, window, seed)
    assert [again[position] for position in reversed(range(len(row)))] == row[::-1]


def test_passes_differ_and_so_do_seeds() -> None:
    order = CaseOrder(20, 5, 0)
    passes = [tuple(order[20 * turn + place] for place in range(20)) for turn in range(5)]
    assert len(set(passes)) == 5
    assert tuple(CaseOrder(20, 5, 1)[place] for place in range(20)) != passes[0]


def test_every_order_that_may_follow_does() -> None:
    """Of three cases with a window of two, the last of a pass may not begin the next one: four orders of six follow."""
    following = Counter()
    for seed in range(300):
        order = CaseOrder(3, 2, seed)
        first, second = [[order[3 * turn + place] for place in range(3)] for turn in range(2)]
        following[tuple(first.index(case) for case in second)] += 1
    assert set(following) == {(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0)}
    assert min(following.values()) > 45


def test_windows_by_hand(cases: list[Case]) -> None:
    store = store_of(cases, 9, resident=2, per_volume=4)
    assert [store.window(patch) for patch in (0, 3, 4, 11, 4000)] == [
        *(range(0, 2), range(0, 2), range(1, 3), range(2, 4), range(1000, 1002))
    ]
    for resident in (6, 7, 96):  # all are there at once: nothing ever moves
        assert {store_of(cases, 9, resident).window(patch) for patch in (0, 4, 4000)} == {range(0, 6)}
    assert len(store_of([], 9).window(5)) == 0


# --- what is read, and what is let go


def test_a_case_is_given_as_the_kernel_would_feed_it(cases: list[Case]) -> None:
    store = store_of(cases, 9, resident=6)
    loaded = store.get(2, store.window(0))
    image, label = cases[2].load()
    np.testing.assert_array_equal(loaded.image, image)
    np.testing.assert_array_equal(loaded.label, label)
    np.testing.assert_array_equal(loaded.table, Intensity().table(image))
    assert (loaded.name, loaded.nbytes) == ("2", 2 * SIDE**3)
    assert store.get(2 + 6, store.window(0)) is loaded


def test_what_left_the_window_goes_first_then_what_leaves_it_next(cases: list[Case], reads: list[str]) -> None:
    """Room for two. Positions are told apart by the names of the cases that have their turn there."""
    store = store_of(cases, 2.1, resident=2)
    case_at = [str(store._order[position]) for position in range(6)]

    def get(*positions: int, window: range) -> list[int]:
        reads.clear()
        for position in positions:
            store.get(position, window)
        return [case_at.index(name) for name in reads]

    assert get(0, 1, 0, 1, window=range(0, 2)) == [0, 1]
    assert get(2, 1, 2, window=range(1, 3)) == [2]  # 0 has left: it made room
    assert get(3, window=range(2, 4)) == [3]
    assert get(2, 3, window=range(2, 4)) == []  # 1 had left
    assert get(4, window=range(2, 4)) == [4]  # one ahead, and no room for three: 2 leaves next
    assert get(3, 4, 2, window=range(2, 4)) == [2]
    assert get(3, 4, window=range(3, 5)) == []


def test_going_back_to_old_patches_does_not_keep_what_lies_far_ahead(cases: list[Case], reads: list[str]) -> None:
    store = store_of(cases, 2.1, resident=2)
    for position in (600, 601):
        store.get(position, range(600, 602))
    taken = {store._order[600], store._order[601]}
    back = [position for position in range(6) if store._order[position] not in taken][:2]
    reads.clear()
    for _ in range(3):
        for position in back:
            store.get(position, range(back[0], back[0] + 2))
    assert len(reads) == 2


def test_one_volume_always_fits(cases: list[Case], reads: list[str]) -> None:
    store = store_of(cases, 0.1, resident=6)
    for position in (1, 1, 2, 2, 1):
        store.get(position, store.window(0))
    assert reads == ["1", "2", "1"]


def test_everything_stays_where_there_is_room(cases: list[Case], reads: list[str], caplog) -> None:
    store = store_of(cases, 6.1, resident=2)
    for position in range(60):
        store.get(position, store.window(4 * position))
    assert sorted(reads) == ["0", "1", "2", "3", "4", "5"]
    assert not caplog.records


def test_a_window_that_does_not_fit_is_said_once(cases: list[Case], caplog) -> None:
    store = store_of(cases, 3.1, resident=6)
    with caplog.at_level(logging.WARNING, "surface_train"):
        for position in range(40):
            store.get(position, store.window(position))
    (record,) = caplog.records
    assert "expected room for the 6 volumes that patches are cut from" in record.getMessage()
    assert "got room for 3 in " in record.getMessage()


def test_leaving_the_window_is_no_reason_to_warn(cases: list[Case], caplog) -> None:
    store = store_of(cases, 3.1, resident=2)
    for patch in range(100):
        for position in store.window(patch):
            store.get(position, store.window(patch))
    assert not caplog.records


# --- threads


def in_threads(count: int, work: Callable[[], object]) -> list[object]:
    """Do the same in several threads at once; give what each gave, or its error."""
    together, results = threading.Barrier(count), []

    def one() -> None:
        together.wait()
        try:
            results.append(work())
        except Exception as error:
            results.append(error)

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.fixture
def slow_reads(monkeypatch: pytest.MonkeyPatch, reads: list[str]) -> list[str]:
    """Reads that are long enough for other threads to come by."""
    real = Case.load
    monkeypatch.setattr(Case, "load", lambda case, label_2: real(case, label_2) if not time.sleep(0.1) else None)
    return reads


def test_a_case_that_several_threads_want_is_read_once(cases: list[Case], slow_reads: list[str]) -> None:
    store = store_of(cases, 9, resident=6)
    found = in_threads(4, lambda: store.get(3, store.window(0)))
    assert len({id(loaded) for loaded in found}) == 1
    assert slow_reads == ["3"]


def test_a_case_that_cannot_be_read_fails_for_all_who_want_it(cases: list[Case], slow_reads: list[str]) -> None:
    cases[3].image.write_bytes(b"II*\0")
    store = store_of(cases, 9, resident=6)
    found = in_threads(3, lambda: store.get(3, store.window(0)))
    assert len(found) == 3
    for error in found:
        assert isinstance(error, VolumeError)
        assert "3.tif" in str(error)
    assert store.get(2, store.window(0)).name == "2"


def test_labels_that_do_not_fit_their_image_stop_it(tmp_path: Path, write_case: Callable, make_sheet: Callable) -> None:
    image, label = make_sheet(0)
    short = write_case(tmp_path, "1", "5", image, label[:-1])
    label[0, 0, 0] = 3
    wrong = write_case(tmp_path, "2", "5", image, label)
    for case, message in (
        (short, r"1\.tif: expected a label of"),
        (wrong, r"2\.tif: expected labels 0, 1 and 2 only, got 3"),
    ):
        with pytest.raises(CasesError, match=message):
            store_of([case], 1).get(0, range(1))


def test_label_2_counts_as_the_settings_say(cases: list[Case]) -> None:
    as_surface = Store(cases, replace(TrainingSettings(), label_2="surface"))
    assert set(np.unique(as_surface.get(0, range(6)).label)) == {0, 1}
    assert set(np.unique(Store(cases, TrainingSettings()).get(0, range(6)).label)) == {0, 1, 2}
