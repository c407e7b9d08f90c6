"""The engine: weights files and settings in, then a mask for every volume that is handed over."""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from threading import Lock

import numpy as np
import numpy.typing as npt
from torch import nn

from surface_kernel import probability
from surface_kernel.inference import selftest, tiles
from surface_kernel.inference.predict import Logits, Member, Pass, PredictionError, Predictor, Volume, out_of_memory
from surface_kernel.inference.selftest import Trial
from surface_kernel.inference.settings import Settings
from surface_kernel.inference.stitch import NO_BYTES, NO_FLOATS, Blend, compile_kernels
from surface_kernel.inference.tiles import Grid, Shape
from surface_kernel.inference.views import View
from surface_kernel.machine import machine_bytes
from surface_kernel.networks import cost, weights
from surface_kernel.networks.architecture import DIVISOR
from surface_kernel.networks.cost import Cost
from surface_kernel.networks.device import Device
from surface_kernel.networks.network import restore
from surface_kernel.networks.placing import choose, place_copy, share_threads, within_memory
from surface_kernel.networks.weights import Metadata, WeightsError
from surface_kernel.volumes.intensity import Intensity, Table
from surface_kernel.volumes.volume import forget_planes

LARGEST_KEPT_SHARE = 0.6  # of the machine's memory, for the logits of tiles that wait to be blended
LANES = 2  # while the last planes of one volume are blended, the networks run the next


@dataclass(frozen=True)
class Spread:
    """What a volume's probabilities were like: their mean and variance.

    seconds: what the volume took, without waiting for its turn. incidents: what else is to be told.
    """

    mean: float
    variance: float
    seconds: float
    incidents: tuple[str, ...]


class Engine:
    """Loaded members and how their logits become masks. Close it, or use it in `with`, to end its threads.

    LANES threads may predict at a time: their networks take turns.
    """

    def __init__(
        self, networks: Sequence[nn.Module], told: Sequence[Metadata], settings: Settings, device: Device, cost: Cost
    ) -> None:
        """Take networks in float32 on the CPU, and what their weights files say; all have one tile and overlap."""
        self.networks, self.told, self.settings, self.cost = list(networks), list(told), settings, cost
        self.threshold = told[0].threshold if settings.threshold is None else settings.threshold
        self.stages: list[tuple[Pass, ...]] = [
            tuple((member, View.parse(view)) for member, view in stage) for stage in settings.stages(len(networks))
        ]
        self.tile_s = 0.0  # what a tile of the trained size takes; known after `tune`
        self._place(device)

    @classmethod
    def load(
        cls,
        files: Sequence[Path],
        settings: Settings,
        device_name: str | None = None,
        device: Device | None = None,
        threads: int | None = None,
    ) -> "Engine":
        """Load and check every weights file. Raises WeightsError, NetworkError, DeviceError.

        device: one that was found by `tune`, here or elsewhere. Without it a guess is taken.
        """
        guess = device is None
        device = device or choose(device_name, threads)
        with ThreadPoolExecutor(1, "compile") as pool:
            compiling = pool.submit(compile_kernels)
            loaded = [weights.load(path) for path in files]
            compiling.result()
        first = loaded[0][0]
        for path, (metadata, _) in zip(files, loaded, strict=True):
            if (metadata.tile_zyx, metadata.overlap) != (first.tile_zyx, first.overlap):
                found, wanted = (metadata.tile_zyx, metadata.overlap), (first.tile_zyx, first.overlap)
                raise WeightsError(f"{path}: found tile and overlap {found}, wanted {wanted} as in {files[0].name}")
        networks = [restore(metadata.architecture, state) for metadata, state in loaded]
        costs = cost.of(networks[0], first.tile_zyx)
        if guess and all(metadata.architecture.local for metadata, _ in loaded):
            device = within_memory(device, costs)
        return cls(networks, [metadata for metadata, _ in loaded], settings, device, costs)

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the threads."""
        for predictor in self._lanes:
            predictor.close()

    @property
    def intensities(self) -> list[Intensity]:
        """Give every member's treatment of grey values."""
        return [metadata.intensity for metadata in self.told]

    def tune(self, volume: Volume) -> list[Trial]:
        """Find the fastest way to run the networks on a tile of this volume, and take it. Raises DeviceError."""
        best, trials = selftest.run(
            self.networks, self.intensities, volume, self.told[0].tile_zyx, self.threshold, self.device
        )
        self.tile_s = best.tile_s
        self.take(replace(best.device, compiled=self.settings.compiled))
        return trials

    def take(self, device: Device) -> None:
        """Run on this device from here on."""
        self.close()
        self._place(device)

    def _place(self, device: Device) -> None:
        share_threads(device)
        self.device = device
        self.members = [
            Member(place_copy(network, device), metadata.intensity, network)
            for network, metadata in zip(self.networks, self.told, strict=True)
        ]
        turn = Lock()
        self._lanes = [Predictor(self.members, device, turn) for _ in range(LANES)]
        self._free: SimpleQueue[Predictor] = SimpleQueue()
        for predictor in self._lanes:
            self._free.put(predictor)

    @contextmanager
    def _lane(self) -> Iterator[Predictor]:
        """Take a predictor that nobody uses, and put it back."""
        predictor = self._free.get()
        try:
            yield predictor
        finally:
            self._free.put(predictor)

    def grid(self, shape_zyx: Shape, tile_voxels: int | None = None) -> Grid:
        """Plan the tiles of a volume. tile_voxels: of a tile at most, if not the device's limit."""
        device, first = self.device, self.told[0]
        most = device.tile_voxels if tile_voxels is None else tile_voxels
        return tiles.plan(shape_zyx, first.tile_zyx, first.overlap, DIVISOR, most, device.kept_bytes)

    def logits(
        self, volume: Volume, on_tiles: Callable[[int], object] = lambda count: None
    ) -> Iterator[tuple[int, Logits]]:
        """Yield (first z, float32 logits (z, y, x)) slabs: the mean over all members and views."""
        passes = [each for stage in self.stages for each in stage]
        with self._lane() as predictor:
            yield from predictor.slabs(volume, self.grid(volume.shape), passes, on_tiles)

    def predict(
        self,
        volume: Volume,
        mask: npt.NDArray[np.uint8] | None = None,
        sums: Logits | None = None,
        stages: Sequence[int] | None = None,
        on_tiles: Callable[[int], object] = lambda count: None,
    ) -> Spread:
        """Run some stages on a volume, all by default, and fill its mask and the sums of its logits.

        volume, mask, sums: uint8, uint8 {0, 1} and float32 (z, y, x), arrays or memory maps. stages: consecutive; where
        the first is not 0, sums holds what the earlier ones left. The mask is where the mean logit over all stages so
        far is above the threshold's. Where memory does not suffice for the planned tiles, not even one at a time and
        on the CPU, the volume is begun again with smaller ones. Raises PredictionError.
        """
        if mask is None and sums is None:
            raise ValueError("found neither a mask nor sums to fill, wanted one of them")
        stages = range(len(self.stages)) if stages is None else stages
        if sums is None and len(stages) > 1:
            sums = np.empty(volume.shape, np.float32)
        began, incidents = stages[0], list[str]()
        grid = self.grid(volume.shape)
        if grid.kept_bytes > (most := machine_bytes() * LARGEST_KEPT_SHARE):
            found = (
                f"planes of {volume.shape[1:]} voxels, whose logits take {grid.kept_bytes / 1e9:.0f} GB while they wait"
            )
            raise PredictionError(f"found {found}, wanted {most / 1e9:.0f} GB at most: cut the volume along y and x")
        moments, seconds = np.zeros(3), 0.0
        tables = self._lanes[0].tables(volume)
        while True:
            try:
                for stage in range(began, stages[-1] + 1):
                    with self._lane() as predictor:
                        moments = self._stage(predictor, volume, tables, grid, stage, mask, sums, on_tiles)
                        incidents += predictor.incidents
                        seconds += predictor.seconds
                    began = stage + 1
                break
            except (MemoryError, RuntimeError) as error:
                smaller = self.grid(volume.shape, math.prod(grid.tile_zyx) // 2)
                # What a later stage has added to the sums in part cannot be taken out again.
                if not out_of_memory(error) or smaller.tile_zyx == grid.tile_zyx or began > 0:
                    raise
            incidents += [f"memory did not suffice: begun again with tiles of {smaller.tile_zyx}"]
            grid = smaller
        count, total, squares = moments
        mean = float(total / count)
        return Spread(mean, max(0.0, float(squares / count) - mean**2), seconds, tuple(incidents))

    def _stage(
        self,
        predictor: Predictor,
        volume: Volume,
        tables: Sequence[Table],
        grid: Grid,
        stage: int,
        mask: npt.NDArray[np.uint8] | None,
        sums: Logits | None,
        on_tiles: Callable[[int], object],
    ) -> npt.NDArray[np.float64]:
        passes = sum(len(done) for done in self.stages[: stage + 1])
        limit = probability.logit(self.threshold) * passes

        def finish(blend: Blend) -> npt.NDArray[np.float64]:
            planes = slice(blend.z_start, blend.z_end)
            moments = blend.run(
                sums=NO_FLOATS if sums is None else sums[planes],
                add=stage > 0,
                mask=NO_BYTES if mask is None else mask[planes],
                limit=limit,
                with_moments=True,
                passes=passes,
                share=predictor.share,
            )
            for written in (mask, sums):
                if written is not None:
                    forget_planes(written, blend.z_end)
            return moments

        moments: npt.NDArray[np.float64] = np.sum(
            list(predictor.run(volume, grid, self.stages[stage], finish, on_tiles, tables)), axis=0
        )
        return moments
