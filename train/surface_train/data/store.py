"""Cases in memory: in what order a run visits them, and which of them are kept.

Patches are cut from a window of cases that slides along an endless order of cases, one case further for every
`patches_per_volume` patches. So a case is decoded once per visit, however little of the data fits into memory:

    passes    | c a d b e | d c e a b | …          each pass holds every case once, in an order of its own
    window        [a d b]                          `resident` cases, never the same one twice
    next window     [d b e]                        a has left, e was decoded ahead
"""

import itertools
import logging
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from surface_kernel.volumes.intensity import Table
from surface_train.data.cases import Case
from surface_train.settings import TrainingSettings

log = logging.getLogger("surface_train")


class CaseOrder:
    """An endless sequence of case numbers from 0 to count − 1, of which any `window` in a row differ.

    Made from the seed alone. Where the window holds all cases, they repeat in order.
    """

    def __init__(self, count: int, window: int, seed: int) -> None:
        self.count, self.window = count, min(window, count)
        self._seed = seed
        self._passes: list[list[int]] = []
        self._lock = threading.Lock()

    def __getitem__(self, position: int) -> int:
        if self.window == self.count:
            return position % self.count
        number, place = divmod(position, self.count)
        with self._lock:
            while len(self._passes) <= number:
                self._passes.append(self._next_pass())
            return self._passes[number][place]

    def _next_pass(self) -> list[int]:
        """Shuffle the cases so that none comes again before the window has left its place in the pass before."""
        rng = np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=(0, len(self._passes))))
        before = self._passes[-1] if self._passes else range(self.count)
        free = self.count - self.window + 1 if self._passes else self.count
        # Place p is open to the first p + free cases of the pass before: later ones are too close to their last visit.
        able, waiting = list(before[:free]), iter(before[free:])
        drawn = []
        for share in rng.random(self.count):
            place = int(share * len(able))
            able[place], able[-1] = able[-1], able[place]
            drawn.append(able.pop())
            able.extend(itertools.islice(waiting, 1))
        return drawn


@dataclass(frozen=True, kw_only=True)
class LoadedCase:
    """A case in memory."""

    name: str
    """Id of the case."""

    image: npt.NDArray[np.uint8]
    """Grey values, (z, y, x)."""

    label: npt.NDArray[np.uint8]
    """{0, 1, 2}, of the same shape."""

    table: Table
    """The network's input for every grey value: float32 (256,)."""

    @property
    def nbytes(self) -> int:
        """Return the bytes of image and label."""
        return self.image.nbytes + self.label.nbytes


class Store:
    """The cases of a run, decoded when they are first asked for and kept up to patches.cache_gb.

    The limit changes what is read again, never what is returned. A case that several threads ask for at once is decoded
    once. Without cases every window is empty.
    """

    def __init__(self, cases: Sequence[Case], settings: TrainingSettings) -> None:
        self._cases = list(cases)
        self._settings = settings
        self._order = CaseOrder(len(self._cases), settings.patches.resident, settings.seed)
        self._volumes: dict[int, Future[LoadedCase]] = {}
        self._positions: dict[int, int] = {}
        self._window = range(0)
        self._lock = threading.Lock()
        self._warned = False

    def __len__(self) -> int:
        return len(self._cases)

    def window(self, patch: int) -> range:
        """Return the positions in the order of cases that patch number `patch` may be cut from."""
        moves = self._order.window < self._order.count
        first = patch // self._settings.patches.patches_per_volume if moves else 0
        return range(first, first + self._order.window)

    def get(self, position: int, window: range) -> LoadedCase:
        """Return the case at a position of the order, decoding it unless it is in memory.

        Args:
            position: in the endless order of cases.
            window: the positions that the caller works in, which are kept before others.

        Raises:
            VolumeError: naming a file that cannot be read.
            CasesError: naming the file, when image and label do not belong together.
        """
        case = self._order[position]
        with self._lock:
            volume = self._volumes.get(case)
            missing = volume is None
            if volume is None:
                volume = self._volumes[case] = Future()
            self._positions[case], self._window = position, window
        if missing:
            self._read(case, volume)
        return volume.result()

    def _read(self, case: int, volume: Future[LoadedCase]) -> None:
        try:
            image, label = self._cases[case].load(self._settings.label_2)
            table = self._settings.intensity.table(image)
            volume.set_result(LoadedCase(name=self._cases[case].name, image=image, label=label, table=table))
        except BaseException as error:
            with self._lock:
                del self._volumes[case]
            volume.set_exception(error)  # raised wherever the case is asked for
            return
        with self._lock:
            self._make_room()

    def _make_room(self) -> None:
        """Drop what left the window first; then, with too little memory, what leaves it next."""
        kept = {case: volume.result().nbytes for case, volume in self._volumes.items() if volume.done()}
        used, budget = sum(kept.values()), self._settings.patches.cache_gb * 1e9
        # Threads ahead of this one have windows a little further on; far beyond is from before a return to old patches.
        near = range(self._window.start, self._window.stop + self._order.window)
        while used > budget and len(kept) > 1:
            leaving = min(kept, key=lambda case: (self._positions[case] in near, self._positions[case]))
            used -= kept.pop(leaving)
            del self._volumes[leaving]
            if self._positions.pop(leaving) in near and not self._warned:
                self._warned = True
                self._warn(len(kept))

    def _warn(self, kept: int) -> None:
        log.warning(
            "patches.cache_gb: expected room for the %(window)d volumes that patches are cut from at a time and those"
            " decoded ahead, got room for %(kept)d in %(cache_gb)g GB, so that volumes are decoded again and again:"
            " raise patches.cache_gb, or lower patches.resident",
            {"window": self._order.window, "kept": kept, "cache_gb": self._settings.patches.cache_gb},
        )
