"""Training patches: where they are cut, and prepared before the network asks for them.

Every patch is made from the run's seed and its own number alone, so that a resumed run sees what an uninterrupted one
would have seen, however many threads and processes prepare the batches.
"""

from collections import deque
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from surface_train.data.augment import box_shape, nearest, resample, turn, vary_grey
from surface_train.data.cases import UNLABELLED
from surface_train.data.draws import Draws, Stream
from surface_train.data.maps import LabelMap
from surface_train.data.store import LoadedCase, Store
from surface_train.settings import TrainingSettings

BACKGROUND, SURFACE = 0, 1
_PLACES = 4096  # voxels drawn at once, among which one of the wanted label almost always is
_TRIES = 20  # cases in a row without a labelled voxel

Grey = npt.NDArray[np.uint8]
Image = npt.NDArray[np.float32]


class PatchError(ValueError):
    """Cases that no patch can be cut from."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Patches that one step sees at once."""

    images: Image
    """float32 (batch, z, y, x), as the network is fed."""

    labels: Grey
    """uint8 {0, 1, 2} of the same shape."""

    maps: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    """Maps of the labels that the loss reads, by LabelMap.name: (batch, …) each."""


def centre(label: Grey, wanted: int, rng: np.random.Generator) -> tuple[int, int, int] | None:
    """Return a random voxel of the wanted label, else of the other labelled kind; None when all is unlabelled.

    Args:
        label: uint8 {0, 1, 2}, (z, y, x).
        wanted: BACKGROUND or SURFACE.
        rng: random numbers of the patch.
    """
    # Voxels are drawn blindly first, which costs nothing where the label has any share worth the name.
    places = rng.integers(0, label.size, _PLACES)
    drawn = label.reshape(-1)[places]
    for kind in (wanted, SURFACE + BACKGROUND - wanted):
        hits = places[drawn == kind]
        if not hits.size:
            hits = np.flatnonzero(label == kind)
            hits = hits[rng.integers(0, hits.size, 1)] if hits.size else hits
        if hits.size:
            z, y, x = (int(place) for place in np.unravel_index(hits[0], label.shape))
            return z, y, x
    return None


def cut(loaded: LoadedCase, middle: tuple[int, int, int], shape_zyx: tuple[int, int, int]) -> tuple[Grey, Grey]:
    """Cut image and label around a voxel, the box shifted to lie inside the volume.

    Args:
        loaded: the case.
        middle: index of the voxel, (z, y, x).
        shape_zyx: of what is cut. A smaller volume is padded behind, with grey 0 and label 2.

    Returns:
        Image and label, uint8 of shape_zyx.
    """
    image, label = np.zeros(shape_zyx, np.uint8), np.full(shape_zyx, UNLABELLED, np.uint8)
    box = tuple(
        slice(start := max(0, min(place - size // 2, whole - size)), min(start + size, whole))
        for place, size, whole in zip(middle, shape_zyx, loaded.image.shape, strict=True)
    )
    inside = loaded.image[box]
    into = tuple(slice(0, size) for size in inside.shape)
    image[into], label[into] = inside, loaded.label[box]
    return image, label


class Sampler:
    """An endless sequence of batches for one process; batch n is the same whenever and wherever it is made.

    Batch `number` holds the patches (number · ranks + rank) · batch + row: together the processes see what one would
    see in batches of ranks · batch.
    """

    def __init__(
        self, store: Store, settings: TrainingSettings, *, maps: Sequence[LabelMap], rank: int = 0, ranks: int = 1
    ) -> None:
        """Prepare to sample.

        Args:
            store: the cases.
            settings: of the run: its seed, patches and augmentation.
            maps: what to make of every label, as `losses.terms.label_maps` lists it for the run's loss.
            rank: number of this process.
            ranks: number of all processes.
        """
        if not 0 <= rank < ranks:
            raise ValueError(f"rank: expected 0 to {ranks - 1}, got {rank}")
        self._store, self._settings, self._maps = store, settings, tuple(maps)
        self._rank, self._ranks = rank, ranks

    def batch(self, number: int) -> Batch:
        """Make batch `number`. Raises PatchError when many cases in a row hold no labelled voxel."""
        images, labels = zip(*(self._patch(patch) for patch in self._patches(number)), strict=True)
        maps = {kind.name: np.stack([kind.make(label) for label in labels]) for kind in self._maps}
        return Batch(images=np.stack(images), labels=np.stack(labels), maps=maps)

    def batches(self, first: int, end: int) -> Generator[Batch, None, None]:
        """Yield the batches from `first` to before `end`, prepared by threads a few steps ahead.

        An error in any of the threads is raised at the next batch, not only at the batch that it belongs to.
        """
        workers = self._settings.patches.workers
        # Far enough ahead for one volume, and for all that the next batch brings.
        stride = max(self._settings.patches.patches_per_volume, self._ranks * self._settings.patches.batch)
        coming: deque[Future[Batch]] = deque()
        reading: set[Future[Any]] = set()
        asked, entered = first, self._store.window(self._patches(first).start).stop
        with ThreadPoolExecutor(workers, thread_name_prefix="patches") as pool:
            try:
                for _ in range(first, end):
                    while asked < end and len(coming) <= workers:
                        coming.append(pool.submit(self.batch, asked))
                        ahead = self._store.window(self._patches(asked)[-1] + stride)
                        reading |= {pool.submit(self._store.get, n, ahead) for n in range(entered, ahead.stop)}
                        asked, entered = asked + 1, max(entered, ahead.stop)
                    yield _next_of(coming, reading)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _patches(self, number: int) -> range:
        batch = self._settings.patches.batch
        first = (number * self._ranks + self._rank) * batch
        return range(first, first + batch)

    def _patch(self, number: int) -> tuple[Image, Grey]:
        settings, draws = self._settings, Draws(self._settings.seed, number)
        shape_zyx, augment = settings.patches.shape_zyx, settings.augment
        loaded, middle = self._place(number, draws.of(Stream.PLACE))
        image, label = (
            turn(part, shape_zyx, augment=augment, draws=draws)
            for part in cut(loaded, middle, box_shape(shape_zyx, augment, draws))
        )
        fed = resample(loaded.table[image], shape_zyx)
        return vary_grey(fed, augment, draws), nearest(label, shape_zyx)

    def _place(self, number: int, rng: np.random.Generator) -> tuple[LoadedCase, tuple[int, int, int]]:
        """Choose a case of the window and a voxel in it; where all is unlabelled, the next case in the order."""
        wanted = SURFACE if rng.random() < self._settings.patches.surface_share else BACKGROUND
        window = self._store.window(number)
        if not window:
            raise PatchError("expected at least one case to cut patches from, got none")
        first = window[rng.integers(len(window))]
        seen = []
        for position in range(first, first + _TRIES):
            loaded = self._store.get(position, window)
            middle = centre(loaded.label, wanted, rng)
            if middle is not None:
                return loaded, middle
            seen.append(loaded.name)
        names = ", ".join(dict.fromkeys(seen))
        raise PatchError(f"expected labelled voxels, got none in {_TRIES} cases in a row: exclude cases ({names})")


def _next_of(coming: deque[Future[Batch]], reading: set[Future[Any]]) -> Batch:
    """Wait for the first batch, and raise what any of the other threads raised meanwhile."""
    while True:
        done, undone = wait([*coming, *reading], timeout=0)
        for future in done:
            future.result()
        reading &= undone
        if coming[0] in done:
            return coming.popleft().result()
        wait(undone, return_when=FIRST_COMPLETED)
