import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surface_kernel.intensity import Intensity
from surface_train.cases import Case, CasesError
from surface_train.patches import Loaded, PatchError, Sampler, Store, centre, cut
from surface_train.settings import Augment, Patches

PLAIN = Augment(flips=False, turns=False, grey=0, noise=0)
TABLE = np.arange(256, dtype=np.float32)  # the network's input is the grey value: patches can be read by eye
TINY = Patches((32, 32, 32), batch=3, workers=1)


@pytest.fixture
def cases(tmp_path: Path, write_case: Callable, make_sheet: Callable) -> list[Case]:
    return [write_case(tmp_path, str(n), "5", *make_sheet(n)) for n in range(3)]


def sampler(cases: list[Case], patches: Patches = TINY, augment: Augment = PLAIN, seed: int = 0) -> Sampler:
    return Sampler(Store(cases, Intensity(), 1.0), patches, augment, seed)


def loaded(label: np.ndarray) -> Loaded:
    """A volume whose grey value tells its place: 1 at the first voxel."""
    return Loaded(np.arange(1, label.size + 1, dtype=np.uint8).reshape(label.shape), label, TABLE)


# --- where a patch is centred


@given(st.integers(0, 2**32), st.sampled_from([0, 1]), st.floats(0, 0.02))
@settings(max_examples=60)
def test_the_centre_is_of_the_wanted_label_if_there_is_one_and_never_unlabelled(seed, wanted, share) -> None:
    rng = np.random.default_rng(seed)
    label = rng.choice([wanted, 1 - wanted, 2], (20, 21, 22), p=[share / 10, share, 1 - 1.1 * share]).astype(np.uint8)
    found = centre(label, wanted, rng)
    if not (label != 2).any():
        assert found is None
    else:
        assert found is not None
        assert label[found] == (wanted if (label == wanted).any() else 1 - wanted)


def test_a_single_voxel_among_many_is_found() -> None:
    label = np.full((40, 40, 40), 2, np.uint8)
    label[3, 30, 17] = 1
    for wanted in (0, 1):
        assert centre(label, wanted, np.random.default_rng(0)) == (3, 30, 17)


def test_every_voxel_of_a_label_has_its_turn() -> None:
    label = np.full((4, 4, 4), 2, np.uint8)
    places = {(0, 0, 0), (1, 2, 3), (3, 3, 3)}
    for place in places:
        label[place] = 1
    rng = np.random.default_rng(0)
    found = Counter(centre(label, 1, rng) for _ in range(300))
    assert set(found) == places
    assert min(found.values()) > 60


# --- what is cut


@pytest.mark.parametrize(
    ("middle", "start"),
    [((4, 4, 4), (2, 2, 2)), ((0, 0, 0), (0, 0, 0)), ((7, 8, 9), (4, 5, 6)), ((1, 4, 9), (0, 2, 6))],
)
def test_a_patch_lies_inside_its_volume_around_its_centre(middle, start) -> None:
    volume = loaded(np.random.default_rng(0).integers(0, 3, (8, 9, 10)).astype(np.uint8))
    patch = cut(volume, middle, (4, 4, 4))
    box = tuple(slice(first, first + 4) for first in start)
    np.testing.assert_array_equal(patch.images, volume.image[box])
    np.testing.assert_array_equal(patch.labels, volume.label[box])
    assert (patch.images.dtype, patch.labels.dtype) == (np.float32, np.uint8)


@given(st.data())
@settings(max_examples=60)
def test_a_patch_holds_its_centre_whatever_the_shapes(data) -> None:
    axes = st.tuples(*[st.integers(1, 9)] * 3)
    shape, size = data.draw(axes), data.draw(axes)
    middle = data.draw(st.tuples(*[st.integers(0, axis - 1) for axis in shape]))
    volume = loaded(np.zeros(shape, np.uint8))
    patch = cut(volume, middle, size)
    assert patch.images.shape == patch.labels.shape == size
    assert volume.image[middle] in patch.images[patch.labels == 0]
    # Nothing of the volume is there twice, and everything else is padding: black and unlabelled.
    inside = int(np.prod([min(a, b) for a, b in zip(shape, size, strict=True)]))
    assert (patch.labels == 0).sum() == inside
    assert (patch.images[patch.labels == 2] == TABLE[0]).all()


def test_a_smaller_volume_is_padded_behind_as_the_kernel_does() -> None:
    volume = loaded(np.ones((2, 3, 6), np.uint8))
    patch = cut(volume, (1, 1, 5), (4, 4, 4))
    np.testing.assert_array_equal(patch.images[:2, :3], volume.image[:, :, 2:])
    np.testing.assert_array_equal(patch.labels[:2, :3], 1)
    assert (patch.labels[2:] == 2).all()
    assert (patch.labels[:, 3:] == 2).all()


# --- batches


def test_a_batch_depends_on_its_number_and_the_seed_alone(cases: list[Case]) -> None:
    varied = Augment()
    one, other = sampler(cases, augment=varied), sampler(cases, augment=varied)
    for _ in range(3):
        other.batch(7)  # what was made before leaves no trace
    for number in (5, 0):
        first, second = one.batch(number), other.batch(number)
        np.testing.assert_array_equal(first.images, second.images)
        np.testing.assert_array_equal(first.labels, second.labels)
    assert not np.array_equal(one.batch(0).images, one.batch(1).images)
    assert not np.array_equal(one.batch(0).images, sampler(cases, augment=varied, seed=1).batch(0).images)
    rows = one.batch(0).images
    assert not np.array_equal(rows[0], rows[1])


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_change_nothing(cases: list[Case], workers: int) -> None:
    patches = Patches((32, 32, 32), batch=2, workers=workers)
    alone = sampler(cases, patches)
    found = list(sampler(cases, patches).batches(4, 11))
    assert len(found) == 7
    for number, batch in enumerate(found, start=4):
        np.testing.assert_array_equal(batch.images, alone.batch(number).images)
        np.testing.assert_array_equal(batch.labels, alone.batch(number).labels)


def test_few_batches_and_none(cases: list[Case]) -> None:
    assert len(list(sampler(cases).batches(0, 1))) == 1
    assert list(sampler(cases).batches(3, 3)) == []


def test_images_are_fed_as_the_kernel_feeds_them(cases: list[Case]) -> None:
    image, label = cases[0].load()
    patch = sampler(cases[:1]).batch(0)
    fed = Intensity().table(image)[image]
    windows = np.lib.stride_tricks.sliding_window_view(fed, (32, 32, 32)).reshape(-1, 32, 32, 32)
    matches = [index for index, window in enumerate(windows) if np.array_equal(window, patch.images[0])]
    assert len(matches) == 1
    labels = np.lib.stride_tricks.sliding_window_view(label, (32, 32, 32)).reshape(-1, 32, 32, 32)
    np.testing.assert_array_equal(patch.labels[0], labels[matches[0]])


@pytest.mark.parametrize("share", [0.0, 0.7, 1.0])
def test_the_share_of_patches_on_surface_is_the_one_asked_for(monkeypatch, cases: list[Case], share: float) -> None:
    found = []
    monkeypatch.setattr(
        "surface_train.patches.cut",
        lambda case, middle, shape: found.append(case.label[middle]) or cut(case, middle, shape),
    )
    made = sampler(cases, Patches((32, 32, 32), batch=200, surface_share=share))
    made.batch(0)
    assert np.mean(np.array(found) == 1) == pytest.approx(share, abs=0.1)
    assert 2 not in found


def test_cases_without_labels_are_passed_over(tmp_path: Path, write_case: Callable, make_sheet: Callable) -> None:
    image, label = make_sheet(0)
    blank = write_case(tmp_path, "blank", "5", image, np.full_like(label, 2))
    good = write_case(tmp_path, "good", "5", image, label)
    batch = sampler([blank, good], Patches((32, 32, 32), batch=8)).batch(0)
    assert all((row == 0).any() for row in batch.labels)
    with pytest.raises(PatchError, match="found 20 cases without a labelled voxel in a row"):
        sampler([blank]).batch(0)


def test_an_error_in_a_thread_reaches_the_training(cases: list[Case]) -> None:
    cases[0].label.unlink()
    with pytest.raises(ValueError, match=r"0\.tif: found no such file"):
        list(sampler(cases[:1]).batches(0, 5))


# --- what is kept in memory


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the cases that were read from disk."""
    names: list[str] = []
    real = Case.load
    monkeypatch.setattr(Case, "load", lambda case: names.append(case.name) or real(case))
    return names


def store_of(cases: list[Case], volumes: float) -> Store:
    """A store with room for so many cases, image and label."""
    image, label = cases[0].load()
    return Store(cases, Intensity(), volumes * (image.nbytes + label.nbytes) / 1e9)


def test_the_least_recently_used_goes_first(cases: list[Case], reads: list[str]) -> None:
    store = store_of(cases, 2.1)
    reads.clear()
    for index in (0, 1, 0, 2, 0, 1):  # 2 pushes 1 out, for 0 was used since; then 1 pushes 2 out
        store.get(index)
    assert reads == ["0", "1", "2", "1"]
    store.get(0)
    assert reads == ["0", "1", "2", "1"]


def test_everything_stays_where_there_is_room(cases: list[Case], reads: list[str]) -> None:
    store = store_of(cases, 3.1)
    reads.clear()
    for index in itertools.islice(itertools.cycle(range(3)), 12):
        store.get(index)
    assert reads == ["0", "1", "2"]


def test_one_volume_always_fits(cases: list[Case], reads: list[str]) -> None:
    store = store_of(cases, 0.1)
    reads.clear()
    assert store.get(1) is store.get(1)
    store.get(2)
    store.get(1)
    assert reads == ["1", "2", "1"]


def test_labels_that_do_not_fit_their_image_stop_it(tmp_path: Path, write_case: Callable, make_sheet: Callable) -> None:
    image, label = make_sheet(0)
    with pytest.raises(CasesError, match="found a label of"):
        Store([write_case(tmp_path, "1", "5", image, label[:-1])], Intensity(), 1.0).get(0)
    label[0, 0, 0] = 3
    with pytest.raises(CasesError, match="found label 3"):
        Store([write_case(tmp_path, "2", "5", image, label)], Intensity(), 1.0).get(0)
