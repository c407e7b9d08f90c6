"""Training crops: which, from where, and ready before the network asks for them.

Every batch is made from the run's seed and its own number alone, so that a resumed run sees what an uninterrupted one
would have seen, however many threads prepare the batches.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from surface_kernel.intensity import Intensity, Table
from surface_train.augment import vary
from surface_train.cases import UNLABELLED, Case
from surface_train.settings import Augment, Patches

BACKGROUND, SURFACE = 0, 1
_TRIES = 4096


class PatchError(ValueError):
    """Cases that no patch can be cut from."""


@dataclass(frozen=True)
class Batch:
    """images: float32 (batch, z, y, x), as the network is fed. labels: uint8 {0, 1, 2} of the same shape.

    A single patch has no batch axis.
    """

    images: npt.NDArray[np.float32]
    labels: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Loaded:
    """A case in memory: grey values, labels, and the table from grey value to network input."""

    image: npt.NDArray[np.uint8]
    label: npt.NDArray[np.uint8]
    table: Table


class Store:
    """Cases read from disk, kept in memory up to a budget; the least recently used go first."""

    def __init__(self, cases: Sequence[Case], intensity: Intensity, cache_gb: float) -> None:
        self._cases = list(cases)
        self._intensity = intensity
        self._budget_bytes = int(cache_gb * 1e9)
        self._kept: OrderedDict[int, Loaded] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._cases)

    def get(self, index: int) -> Loaded:
        """Give a case. Raises VolumeError, and CasesError when image and label do not belong together."""
        with self._lock:
            if index in self._kept:
                self._kept.move_to_end(index)
                return self._kept[index]
        image, label = self._cases[index].load()
        loaded = Loaded(image, label, self._intensity.table(image))
        with self._lock:
            self._kept[index] = loaded
            while len(self._kept) > 1 and self._kept_bytes() > self._budget_bytes:
                self._kept.popitem(last=False)
        return loaded

    def _kept_bytes(self) -> int:
        return sum(loaded.image.nbytes + loaded.label.nbytes for loaded in self._kept.values())


def centre(label: npt.NDArray[np.uint8], wanted: int, rng: np.random.Generator) -> tuple[int, int, int] | None:
    """Find a random voxel of the wanted label, else of the other labelled kind; None when all is unlabelled.

    Voxels are drawn blindly at first, which costs nothing on a volume with any share of the label worth the name.
    """
    places = rng.integers(0, label.size, _TRIES)
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


def cut(loaded: Loaded, middle: tuple[int, int, int], shape_zyx: tuple[int, int, int]) -> Batch:
    """Cut a patch around a voxel, moved to lie inside the volume; a smaller volume is padded with zeros, unlabelled."""
    image, label = np.zeros(shape_zyx, np.uint8), np.full(shape_zyx, UNLABELLED, np.uint8)
    box = tuple(
        slice(start := max(0, min(place - size // 2, whole - size)), min(start + size, whole))
        for place, size, whole in zip(middle, shape_zyx, loaded.image.shape, strict=True)
    )
    found = loaded.image[box]
    into = tuple(slice(0, size) for size in found.shape)
    image[into], label[into] = found, loaded.label[box]
    return Batch(loaded.table[image], label)


class Sampler:
    """An endless row of batches; batch n is the same whenever and wherever it is made."""

    def __init__(self, store: Store, patches: Patches, augment: Augment, seed: int) -> None:
        self._store = store
        self._patches = patches
        self._augment = augment
        self._seed = seed

    def batch(self, number: int) -> Batch:
        """Make batch `number`. Raises PatchError when many cases in a row hold no labelled voxel."""
        rows = [self._patch(np.random.default_rng((self._seed, number, row))) for row in range(self._patches.batch)]
        return Batch(np.stack([row.images for row in rows]), np.stack([row.labels for row in rows]))

    def batches(self, first: int, end: int) -> Iterator[Batch]:
        """Yield the batches from `first` to before `end`, prepared by threads a few steps ahead."""
        ahead = self._patches.workers + 1
        with ThreadPoolExecutor(self._patches.workers, thread_name_prefix="patches") as pool:
            waiting: list[Future[Batch]] = [pool.submit(self.batch, n) for n in range(first, min(first + ahead, end))]
            for number in range(first, end):
                if number + ahead < end:
                    waiting.append(pool.submit(self.batch, number + ahead))
                yield waiting.pop(0).result()

    def _patch(self, rng: np.random.Generator) -> Batch:
        wanted = SURFACE if rng.random() < self._patches.surface_share else BACKGROUND
        for _ in range(20):
            loaded = self._store.get(int(rng.integers(len(self._store))))
            middle = centre(loaded.label, wanted, rng)
            if middle is not None:
                patch = cut(loaded, middle, self._patches.shape_zyx)
                return Batch(*vary(patch.images, patch.labels, self._augment, rng))
        raise PatchError("found 20 cases without a labelled voxel in a row, wanted labels to learn from")
