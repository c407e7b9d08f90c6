import hashlib
import itertools
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surface_kernel.networks.architecture import Architecture
from surface_kernel.volumes.intensity import Intensity
from surface_train.data.cases import Case
from surface_train.data.maps import boundary_distance, skeleton
from surface_train.data.patches import Batch, PatchError, Sampler, centre, cut
from surface_train.data.store import LoadedCase, Store
from surface_train.loss_weights import LossWeights
from surface_train.losses.terms import label_maps
from surface_train.settings import Augment, Patches, TrainingSettings

PLAIN = Augment.none()
VARIED = Augment(blur=0.5, low_resolution=0.5, cut_outs=0.5)
TABLE = np.arange(256, dtype=np.float32)  # the network's input is the grey value: patches can be read by eye
TINY = TrainingSettings(
    patches=Patches(shape_zyx=(32, 32, 32), batch=3, workers=1, resident=2, patches_per_volume=2),
    augment=PLAIN,
    loss=LossWeights(boundary_weight=0, cldice_weight=0),
    network=Architecture(encoder="vgg11"),  # without BatchNorm, which a single patch of 32³ is too little for
)


@pytest.fixture
def cases(tmp_path: Path, write_case: Callable, make_sheet: Callable) -> list[Case]:
    return [write_case(tmp_path, str(n), "5", *make_sheet(n)) for n in range(4)]


def chosen(**changes: object) -> TrainingSettings:
    """TINY with other patches: `chosen(batch=2)`; or other whole parts: `chosen(augment=VARIED)`."""
    parts = {name: changes.pop(name) for name in list(changes) if hasattr(TINY, name)}
    return replace(TINY, patches=replace(TINY.patches, **changes), **parts)


def sampler(cases: list[Case], wanted: TrainingSettings = TINY, rank: int = 0, ranks: int = 1) -> Sampler:
    return Sampler(Store(cases, wanted), wanted, maps=label_maps(wanted.loss), rank=rank, ranks=ranks)


def assert_same(found: Batch, wanted: Batch) -> None:
    np.testing.assert_array_equal(found.images, wanted.images)
    np.testing.assert_array_equal(found.labels, wanted.labels)


def loaded(label: np.ndarray) -> LoadedCase:
    """A volume whose grey value tells its place: 1 at the first voxel."""
    image = np.arange(1, label.size + 1, dtype=np.uint8).reshape(label.shape)
    return LoadedCase(name="made", image=image, label=label, table=TABLE)


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
    image, label = cut(volume, middle, (4, 4, 4))
    box = tuple(slice(first, first + 4) for first in start)
    np.testing.assert_array_equal(image, volume.image[box])
    np.testing.assert_array_equal(label, volume.label[box])
    assert (image.dtype, label.dtype) == (np.uint8, np.uint8)


@given(st.data())
@settings(max_examples=60)
def test_a_patch_holds_its_centre_whatever_the_shapes(data) -> None:
    axes = st.tuples(*[st.integers(1, 9)] * 3)
    shape, size = data.draw(axes), data.draw(axes)
    middle = data.draw(st.tuples(*[st.integers(0, axis - 1) for axis in shape]))
    volume = loaded(np.zeros(shape, np.uint8))
    image, label = cut(volume, middle, size)
    assert image.shape == label.shape == size
    assert volume.image[middle] in image[label == 0]
    # Nothing of the volume is there twice, and everything else is padding: black and unlabelled.
    inside = int(np.prod([min(a, b) for a, b in zip(shape, size, strict=True)]))
    assert (label == 0).sum() == inside
    assert (image[label == 2] == 0).all()


def test_a_smaller_volume_is_padded_behind_as_the_kernel_does() -> None:
    volume = loaded(np.ones((2, 3, 6), np.uint8))
    image, label = cut(volume, (1, 1, 5), (4, 4, 4))
    np.testing.assert_array_equal(image[:2, :3], volume.image[:, :, 2:])
    np.testing.assert_array_equal(label[:2, :3], 1)
    assert (label[2:] == 2).all()
    assert (label[:, 3:] == 2).all()


# --- batches


def test_a_batch_depends_on_its_number_and_the_seed_alone(cases: list[Case]) -> None:
    varied = chosen(augment=VARIED)
    one, other = sampler(cases, varied), sampler(cases, varied)
    for _ in range(3):
        other.batch(7)  # what was made before leaves no trace
    for number in (5, 0, 300):
        assert_same(one.batch(number), other.batch(number))
    assert not np.array_equal(one.batch(0).images, one.batch(1).images)
    assert not np.array_equal(one.batch(0).images, sampler(cases, replace(varied, seed=1)).batch(0).images)
    rows = one.batch(0).images
    assert not np.array_equal(rows[0], rows[1])


@pytest.mark.parametrize(
    ("number", "labels", "means", "deviations", "voxels"),
    [
        (
            0,
            "1e2b7d52f4032aec04c1c663e9885837e9f6939f3649d94485238835d4df89d1",
            [-0.06280, -0.06300, 0.18316],
            [0.11945, 0.53604, 0.23188],
            [0.01267, -0.15168, 0.25925],
        ),
        (
            5,
            "2150a1b60da0ebdda7f112d20e129055ffe1939f855fb237fac911e37c590f42",
            [0.12834, 0.04154, 0.04921],
            [0.09827, 0.08218, 0.17808],
            [0.05106, 0.05750, 0.13768],
        ),
    ],
)
def test_a_seed_gives_the_patches_that_it_always_gave(
    tmp_path: Path, write_case: Callable, number: int, labels: str, means: list, deviations: list, voxels: list
) -> None:
    """As commit c58b484 made them: labels to the bit; images, which are rounded, by a few of their numbers."""
    made = []
    for n in range(3):
        rng = np.random.default_rng(n)
        image = rng.integers(1, 256, (40, 44, 48), np.uint8)
        label = rng.integers(0, 3, (10, 11, 12), np.uint8).repeat(4, 0).repeat(4, 1).repeat(4, 2)
        made.append(write_case(tmp_path, str(n), "5", image, label))
    batch = sampler(made, replace(chosen(augment=VARIED), seed=7)).batch(number)
    assert hashlib.sha256(batch.labels.tobytes()).hexdigest() == labels
    assert batch.images.mean((1, 2, 3)).tolist() == pytest.approx(means, abs=2e-5)
    assert batch.images.std((1, 2, 3)).tolist() == pytest.approx(deviations, abs=2e-5)
    assert batch.images[:, 7, 11, 13].tolist() == pytest.approx(voxels, abs=2e-5)


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_and_memory_change_nothing(cases: list[Case], workers: int) -> None:
    alone = sampler(cases, chosen(augment=VARIED))
    for cache_gb in (1.0, 1e-6):
        found = list(sampler(cases, chosen(augment=VARIED, workers=workers, cache_gb=cache_gb)).batches(4, 11))
        assert len(found) == 7
        for number, batch in enumerate(found, start=4):
            assert_same(batch, alone.batch(number))


@pytest.mark.parametrize(("ranks", "batch"), [(2, 3), (3, 2), (6, 1)])
def test_several_processes_see_together_what_one_would_see(cases: list[Case], ranks: int, batch: int) -> None:
    one = sampler(cases, chosen(batch=6, augment=VARIED))
    several = [sampler(cases, chosen(batch=batch, augment=VARIED), rank, ranks) for rank in range(ranks)]
    for number in (0, 4):
        parts = [next(each.batches(number, number + 1)) for each in several]
        images, labels = (np.concatenate([getattr(p, name) for p in parts]) for name in ("images", "labels"))
        together = Batch(images=images, labels=labels)
        assert_same(together, one.batch(number))


@pytest.mark.parametrize(("rank", "ranks"), [(2, 2), (-1, 2), (0, 0)])
def test_a_process_that_cannot_be_is_refused(cases: list[Case], rank: int, ranks: int) -> None:
    with pytest.raises(ValueError, match=f"rank: expected 0 to {ranks - 1}, got {rank}"):
        sampler(cases, rank=rank, ranks=ranks)


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
    assert (patch.images.dtype, patch.labels.dtype) == (np.float32, np.uint8)
    assert patch.maps == {}


@pytest.fixture
def greys_of_labels(tmp_path: Path, write_case: Callable) -> list[Case]:
    """A case whose image shows its label: grey 60, 120, 180 for 0, 1, 2."""
    label = np.random.default_rng(0).integers(0, 3, (5, 6, 5)).repeat(9, 0).repeat(8, 1).repeat(10, 2).astype(np.uint8)
    return [write_case(tmp_path, "greys", "5", 60 + 60 * label, label)]


def by_grey(patch: Batch, case: Case) -> np.ndarray:
    """Read the labels off the image, between the greys of the labels."""
    table = Intensity().table(case.load()[0])
    return np.digitize(patch.images, [table[90], table[150]])


@pytest.mark.parametrize("shape", [(32, 32, 32), (32, 64, 32)])
def test_image_and_label_of_a_patch_are_turned_alike(greys_of_labels: list[Case], shape: tuple[int, int, int]) -> None:
    """The second shape is larger than the volume on one axis: there the padding has black and no label."""
    made = sampler(greys_of_labels, chosen(shape_zyx=shape, augment=replace(PLAIN, flips=True, turns=True)))
    for number in range(4):
        patch = made.batch(number)
        assert patch.labels.shape == (3, *shape)
        black = patch.images == Intensity().table(greys_of_labels[0].load()[0])[0]
        assert black.sum() == 3 * 32 * max(0, shape[1] - 48) * 32
        np.testing.assert_array_equal(by_grey(patch, greys_of_labels[0])[~black], patch.labels[~black])
        assert (patch.labels[black] == 2).all()


def test_image_and_label_of_a_patch_are_scaled_alike(greys_of_labels: list[Case]) -> None:
    """Blocks of eight voxels and more: only what is nearest to their faces may be taken for one in between."""
    made = sampler(greys_of_labels, chosen(augment=replace(PLAIN, scale=0.3, flips=True, turns=True)))
    for number in range(4):
        patch = made.batch(number)
        assert set(np.unique(patch.labels)) == {0, 1, 2}
        surely = np.isin(patch.images, Intensity().table(greys_of_labels[0].load()[0])[[60, 120, 180]])
        assert surely.mean() > 0.3
        np.testing.assert_array_equal(by_grey(patch, greys_of_labels[0])[surely], patch.labels[surely])


def test_a_batch_brings_the_maps_that_the_loss_reads(cases: list[Case]) -> None:
    weights = LossWeights(boundary_weight=0.1, cldice_weight=0.1, cldice_iterations=2)
    batch = sampler(cases, chosen(augment=VARIED, loss=weights)).batch(1)
    assert set(batch.maps) == {"distance", "skeleton_2"}
    distances, skeletons = batch.maps["distance"], batch.maps["skeleton_2"]
    assert (distances.shape, distances.dtype) == ((3, 32, 32, 32), np.float32)
    assert (skeletons.shape, skeletons.dtype) == ((3, 16, 16, 16), np.uint8)
    for row, label in enumerate(batch.labels):
        np.testing.assert_array_equal(distances[row], boundary_distance(label))
        np.testing.assert_array_equal(skeletons[row], skeleton(label, 2))
    for name, other in (("boundary_weight", "skeleton_2"), ("cldice_weight", "distance")):
        batch = sampler(cases, chosen(loss=replace(weights, **{name: 0.0}))).batch(0)
        assert list(batch.maps) == [other]


@pytest.mark.parametrize("share", [0.0, 0.7, 1.0])
def test_the_share_of_patches_on_surface_is_the_one_asked_for(monkeypatch, cases: list[Case], share: float) -> None:
    found = []
    monkeypatch.setattr(
        "surface_train.data.patches.cut",
        lambda case, middle, shape: found.append(case.label[middle]) or cut(case, middle, shape),
    )
    sampler(cases, chosen(batch=200, surface_share=share)).batch(0)
    assert np.mean(np.array(found) == 1) == pytest.approx(share, abs=0.1)
    assert 2 not in found


@pytest.mark.parametrize("resident", [2, 9])
def test_every_case_gets_its_share(monkeypatch, cases: list[Case], resident: int) -> None:
    names = Counter()
    monkeypatch.setattr(
        "surface_train.data.patches.cut",
        lambda case, middle, shape: names.update([case.name]) or cut(case, middle, shape),
    )
    sampler(cases, chosen(batch=400, resident=resident)).batch(1)
    assert len(names) == 4
    assert all(70 <= count <= 130 for count in names.values())


# --- what cannot be trained on


@pytest.mark.parametrize("resident", [1, 2])
def test_cases_without_labels_are_passed_over(
    tmp_path: Path, write_case: Callable, make_sheet: Callable, resident: int
) -> None:
    image, label = make_sheet(0)
    blank = write_case(tmp_path, "blank", "5", image, np.full_like(label, 2))
    good = write_case(tmp_path, "good", "5", image, label)
    for number in range(3):
        batch = sampler([blank, good], chosen(resident=resident)).batch(number)
        assert all((row == 0).any() for row in batch.labels)
    with pytest.raises(
        PatchError, match=r"expected labelled voxels, got none in 20 cases in a row: exclude cases \(blank\)"
    ):
        sampler([blank]).batch(0)
    with pytest.raises(PatchError, match="expected at least one case to cut patches from, got none"):
        sampler([]).batch(0)


def test_unlabelled_voxels_counted_as_surface_are_patch_centres_but_padding_stays_unlabelled(
    tmp_path: Path, write_case: Callable
) -> None:
    blank = write_case(tmp_path, "blank", "5", np.ones((4, 5, 6), np.uint8), np.full((4, 5, 6), 2, np.uint8))
    batch = sampler([blank], chosen(label_2="surface")).batch(0)
    wanted = np.full((3, 32, 32, 32), 2)
    wanted[:, :4, :5, :6] = 1
    np.testing.assert_array_equal(batch.labels, wanted)


def test_an_error_in_a_thread_reaches_the_training(cases: list[Case]) -> None:
    cases[0].label.unlink()
    with pytest.raises(ValueError, match=r"0\.tif: no such file"):
        list(sampler(cases[:1]).batches(0, 5))


def test_an_error_is_raised_before_its_patches_are_due(cases: list[Case]) -> None:
    """One volume at a time for 300 patches: the next one, decoded ahead, turns out to be broken."""
    wanted = chosen(resident=1, patches_per_volume=300)
    store = Store(cases, wanted)
    broken = cases[store._order[1]]
    broken.image.write_bytes(b"II*\0")
    with pytest.raises(ValueError, match=rf"{broken.name}\.tif"):
        list(itertools.islice(Sampler(store, wanted, maps=()).batches(0, 100), 4))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("patches")]


def test_no_thread_outlives_the_one_who_asked(cases: list[Case]) -> None:
    batches = sampler(cases, chosen(workers=3)).batches(0, 1000)
    next(batches)
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("patches")]


# --- how often volumes are decoded


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the cases that were read from disk."""
    names: list[str] = []
    real = Case.load
    monkeypatch.setattr(Case, "load", lambda case, label_2: names.append(case.name) or real(case, label_2))
    return names


@pytest.mark.parametrize(("batch", "per_volume", "ranks"), [(2, 4, 1), (3, 2, 1), (1, 4, 2)])
def test_volumes_are_read_once_a_visit_and_before_their_window_opens(
    monkeypatch, tmp_path: Path, write_case: Callable, reads: list[str], batch: int, per_volume: int, ranks: int
) -> None:
    """Ten cases, three at a time. With one thread the order of all that happens is known."""
    label = np.indices((8, 8, 8)).sum(0).astype(np.uint8) % 2
    cases = [write_case(tmp_path, str(n), "5", label + 1, label) for n in range(10)]
    room_gb = 6.1 * 2 * label.nbytes / 1e9
    wanted = chosen(batch=batch, resident=3, patches_per_volume=per_volume, cache_gb=room_gb)
    store = Store(cases, wanted)
    late: list[int] = []
    make = Sampler.batch

    def watched(self: Sampler, number: int) -> Batch:
        window = store.window(self._patches(number)[-1])
        late.extend(position for position in window if position >= 6 and store._order[position] not in store._volumes)
        return make(self, number)

    monkeypatch.setattr(Sampler, "batch", watched)
    made = Sampler(store, wanted, maps=(), ranks=ranks)
    assert len(list(made.batches(0, 60))) == 60
    assert late == []
    visits = store.window(made._patches(59)[-1]).stop + 1
    assert visits > 20
    # A case whose next visit comes while it is still there is not read again.
    assert 0.6 * visits < len(reads) <= visits + batch * ranks


def test_a_second_pass_reads_nothing_where_all_fits(cases: list[Case], reads: list[str]) -> None:
    made = sampler(cases, chosen(batch=2))
    for first in (0, 10, 20):
        assert len(list(made.batches(first, first + 10))) == 10
    assert sorted(reads) == ["0", "1", "2", "3"]
