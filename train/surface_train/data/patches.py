"""Training crops: which, from where, and ready before the network asks for them.

Every patch is made from the run's seed and its own number alone, so that a resumed run sees what an uninterrupted one
would have seen, however many threads and processes prepare the batches.
"""

from collections import deque
from collections.abc import Generator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from surface_train.data import truth
from surface_train.data.augment import Draws, box_shape, nearest, resample, turn, vary_grey
from surface_train.data.cases import UNLABELLED
from surface_train.data.store import Loaded, Store
from surface_train.settings import Settings

BACKGROUND, SURFACE = 0, 1
_PLACES = 4096
_TRIES = 20

Grey = npt.NDArray[np.uint8]
Image = npt.NDArray[np.float32]


class PatchError(ValueError):
    """Cases that no patch can be cut from."""


@dataclass(frozen=True)
class Batch:
    """images: float32 (batch, z, y, x), as the network is fed. labels: uint8 {0, 1, 2} of the same shape.

    distances: float32 of the same shape, `truth.boundary_distance` of each label; None where the loss has no boundary
    term. skeletons: uint8 {0, 1} (batch, half z, half y, half x), rounded up, `truth.skeleton` of each label; None
    where the loss has no clDice term.
    """

    images: Image
    labels: Grey
    distances: Image | None = None
    skeletons: Grey | None = None


def centre(label: Grey, wanted: int, rng: np.random.Generator) -> tuple[int, int, int] | None:
    """Find a random voxel of the wanted label, else of the other labelled kind; None when all is unlabelled.

    Voxels are drawn blindly at first, which costs nothing on a volume with any share of the label worth the name.
    """
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


def cut(loaded: Loaded, middle: tuple[int, int, int], shape_zyx: tuple[int, int, int]) -> tuple[Grey, Grey]:
    """Cut image and label around a voxel, moved to lie inside the volume; a smaller volume is padded behind.

    Both uint8 of shape_zyx. The padding is grey 0, unlabelled.
    """
    image, label = np.zeros(shape_zyx, np.uint8), np.full(shape_zyx, UNLABELLED, np.uint8)
    box = tuple(
        slice(start := max(0, min(place - size // 2, whole - size)), min(start + size, whole))
        for place, size, whole in zip(middle, shape_zyx, loaded.image.shape, strict=True)
    )
    found = loaded.image[box]
    into = tuple(slice(0, size) for size in found.shape)
    image[into], label[into] = found, loaded.label[box]
    return image, label


class Sampler:
    """An endless row of batches for process `rank` of `ranks`; batch n is the same whenever and wherever it is made.

    Batch `number` holds the patches (number · ranks + rank) · batch + row: together the processes see what one would
    see in batches of ranks · batch.
    """

    def __init__(self, store: Store, settings: Settings, rank: int = 0, ranks: int = 1) -> None:
        if not 0 <= rank < ranks:
            raise ValueError(f"found rank {rank} of {ranks}, wanted one from 0 to {ranks - 1}")
        self._store, self._settings = store, settings
        self._rank, self._ranks = rank, ranks

    def batch(self, number: int) -> Batch:
        """Make batch `number`. Raises PatchError when many cases in a row hold no labelled voxel."""
        weights = self._settings.loss
        images, labels = zip(*(self._patch(patch) for patch in self._patches(number)), strict=True)
        distances = [truth.boundary_distance(label) for label in labels] if weights.boundary_weight else None
        skeletons = (
            [truth.skeleton(label, weights.cldice_iterations) for label in labels] if weights.cldice_weight else None
        )
        return Batch(
            np.stack(images),
            np.stack(labels),
            None if distances is None else np.stack(distances),
            None if skeletons is None else np.stack(skeletons),
        )

    def batches(self, first: int, end: int) -> Generator[Batch, None, None]:
        """Yield the batches from `first` to before `end`, prepared by threads a few steps ahead.

        An error in any of the threads is raised at the next batch, not only when the spoiled one's turn comes.
        """
        workers = self._settings.patches.workers
        # Far enough ahead for one volume, and for all that the next batch brings.
        stride = max(self._settings.patches.patches_per_volume, self._ranks * self._settings.patches.batch)
        row: deque[Future[Batch]] = deque()
        reading: set[Future[Any]] = set()
        asked, entered = first, self._store.window(self._patches(first).start).stop
        with ThreadPoolExecutor(workers, thread_name_prefix="patches") as pool:
            try:
                for _ in range(first, end):
                    while asked < end and len(row) <= workers:
                        row.append(pool.submit(self.batch, asked))
                        ahead = self._store.window(self._patches(asked)[-1] + stride)
                        reading |= {pool.submit(self._store.get, n, ahead) for n in range(entered, ahead.stop)}
                        asked, entered = asked + 1, max(entered, ahead.stop)
                    yield _next_of(row, reading)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _patches(self, number: int) -> range:
        batch = self._settings.patches.batch
        first = (number * self._ranks + self._rank) * batch
        return range(first, first + batch)

    def _patch(self, number: int) -> tuple[Image, Grey]:
        settings, draws = self._settings, Draws(self._settings.seed, number)
        shape_zyx, augment = settings.patches.shape_zyx, settings.augment
        loaded, middle = self._place(number, draws.of("place"))
        image, label = (
            turn(part, shape_zyx, augment, draws) for part in cut(loaded, middle, box_shape(shape_zyx, augment, draws))
        )
        fed = resample(loaded.table[image], shape_zyx)
        return vary_grey(fed, augment, draws), nearest(label, shape_zyx)

    def _place(self, number: int, rng: np.random.Generator) -> tuple[Loaded, tuple[int, int, int]]:
        """Choose a volume of the window and a voxel in it; where all is unlabelled, the next volume in the row."""
        wanted = SURFACE if rng.random() < self._settings.patches.surface_share else BACKGROUND
        window = self._store.window(number)
        if not window:
            raise PatchError("found no cases, wanted at least one to cut patches from")
        first = window[rng.integers(len(window))]
        seen = []
        for position in range(first, first + _TRIES):
            loaded = self._store.get(position, window)
            middle = centre(loaded.label, wanted, rng)
            if middle is not None:
                return loaded, middle
            seen.append(loaded.name)
        names = ", ".join(dict.fromkeys(seen))
        raise PatchError(f"found no labelled voxel in {_TRIES} cases in a row ({names}), wanted labels: exclude them")


def _next_of(row: deque[Future[Batch]], reading: set[Future[Any]]) -> Batch:
    """Wait for the first of the row, and raise what any of the others raised meanwhile."""
    while True:
        done, undone = wait([*row, *reading], timeout=0)
        for future in done:
            future.result()
        reading &= undone
        if row[0] in done:
            return row.popleft().result()
        wait(undone, return_when=FIRST_COMPLETED)
