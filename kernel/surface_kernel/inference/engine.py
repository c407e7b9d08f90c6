"""The engine: weights files and settings in, then a mask for every volume that is handed over."""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import Self

import numpy as np
import numpy.typing as npt
from torch import nn

from surface_kernel.inference import selftest, tiles
from surface_kernel.inference.forward import Member, Pass
from surface_kernel.inference.predict import Logits, PredictionError, Predictor, Volume
from surface_kernel.inference.selftest import Trial
from surface_kernel.inference.settings import Settings
from surface_kernel.inference.slab import Slab, compile_kernels
from surface_kernel.inference.tiles import Grid, Shape
from surface_kernel.inference.views import View
from surface_kernel.machine import machine_bytes
from surface_kernel.networks import cost, weights
from surface_kernel.networks.architecture import DIVISOR
from surface_kernel.networks.cost import Cost
from surface_kernel.networks.device import Device
from surface_kernel.networks.device_errors import out_of_memory
from surface_kernel.networks.network import restore
from surface_kernel.networks.placing import choose, place_copy, share_threads, within_memory
from surface_kernel.networks.weights import Metadata, WeightsError
from surface_kernel.probability import logit
from surface_kernel.volumes.intensity import Intensity, Table
from surface_kernel.volumes.scanned import scanned_bits
from surface_kernel.volumes.volume import forget_planes

LARGEST_KEPT_SHARE = 0.6  # of the machine's memory, for the logits of tiles that wait to be blended
LANES = 2  # while the last planes of one volume are blended, the networks run the next


@dataclass(frozen=True, kw_only=True)
class ProbabilityStatistics:
    """What a volume's probabilities are like, and how they came about."""

    mean: float
    variance: float
    seconds: float
    """What the volume took, without waiting for its turn."""
    incidents: tuple[str, ...]
    """What else a report should say."""


class Engine:
    """Loaded members and how their logits become masks. Close it, or use it in `with`, to end its threads.

    LANES threads may predict at a time: their networks take turns. The device is not touched before the networks are
    needed there, so that `tune` may find that it cannot be used.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        metadata: Sequence[Metadata],
        *,
        settings: Settings,
        device: Device,
        cost: Cost,
    ) -> None:
        """Take networks in float32 on the CPU, and what their weights files say; all have one tile and overlap."""
        self.networks, self.metadata, self.settings, self.cost = list(networks), list(metadata), settings, cost
        own = settings.mask.threshold
        self.mask = settings.mask.with_threshold(metadata[0].threshold if own is None else own)
        """How masks are made, the threshold in it."""
        self.stages: list[tuple[Pass, ...]] = [
            tuple((member, View.parse(view)) for member, view in stage) for stage in settings.stages(len(networks))
        ]
        self.tile_s = 0.0
        """What a tile of the trained size takes; known after `tune`."""
        self._members: list[Member] = []
        self._lanes: list[Predictor] = []
        self._free: SimpleQueue[Predictor] = SimpleQueue()
        self._placing = Lock()
        self.device = device
        share_threads(device)

    @classmethod
    def load(
        cls,
        files: Sequence[Path],
        settings: Settings,
        *,
        device_name: str | None = None,
        device: Device | None = None,
        threads: int | None = None,
    ) -> Self:
        """Load and check every weights file.

        Args:
            files: of the members.
            settings: how masks are made.
            device_name: "cpu", "cuda" or "cuda:N"; None: a GPU where there is one.
            device: one that was found by `tune`, here or elsewhere; None: a guess.
            threads: of the CPU; None: all that the process may use.

        Raises:
            WeightsError: for a file that cannot be used, or members of different tiles.
            NetworkError: for a network that cannot be built.
            DeviceError: for a device that is not there.
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
                raise WeightsError(
                    f"{path}: tile and overlap: expected {first.tile_zyx} and {first.overlap} as in {files[0].name}, "
                    f"got {metadata.tile_zyx} and {metadata.overlap}; members must be trained alike to be averaged"
                )
        networks = [restore(metadata.architecture, state) for metadata, state in loaded]
        costs = cost.of(networks[0], first.tile_zyx)
        if guess and all(metadata.architecture.local for metadata, _ in loaded):
            device = within_memory(device, costs)
        metadatas = [metadata for metadata, _ in loaded]
        return cls(networks, metadatas, settings=settings, device=device, cost=costs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the threads, and let go of the networks on the device."""
        for predictor in self._lanes:
            predictor.close()
        self._members, self._lanes, self._free = [], [], SimpleQueue()

    @property
    def members(self) -> list[Member]:
        """The networks on the device."""
        self._place()
        return self._members

    @property
    def threshold(self) -> float:
        """The probability above which a voxel is surface."""
        assert self.mask.threshold is not None  # it was taken from the weights where the settings leave it to them
        return self.mask.threshold

    @property
    def intensities(self) -> list[Intensity]:
        """Every member's treatment of grey values."""
        return [metadata.intensity for metadata in self.metadata]

    def tune(self, volume: Volume) -> list[Trial]:
        """Find the fastest way to run the networks on a tile of this volume, and take it.

        On a GPU a tile of the size that would be planned for this volume is tried too; where memory does not suffice,
        the limit is halved until it does.

        Raises:
            DeviceError: where the device is not to be used; and whatever a GPU raises that breaks.
        """
        best, trials = selftest.run(
            self.networks,
            self.intensities,
            volume=volume,
            tile_zyx=self.metadata[0].tile_zyx,
            threshold=self.threshold,
            device=self.device,
        )
        self.tile_s = best.tile_s
        device = replace(best.device, compiled=self.settings.compiled)
        if device.tile_voxels and device.is_gpu:  # the limit was that of the precision that had been guessed
            device = within_memory(device, self.cost)
        self.take(device)
        return trials + (self._try_planned(volume) if device.is_gpu else [])

    def _try_planned(self, volume: Volume) -> list[Trial]:
        """Halve the limit of tiles until memory suffices for one of those that are planned for a volume."""
        failed = []
        while not self._is_trained(grid := self.grid(volume.shape)) and not self._lanes[0].fits(volume, grid.tile_zyx):
            failed.append(Trial(device=self.device, fault=f"memory did not suffice for a tile of {grid.tile_zyx}"))
            self.limit_tiles(math.prod(grid.tile_zyx) // 2)
        return failed

    def check(self, volume: Volume) -> str:
        """Return why the device, as it is, must not be used: a tile is not what the CPU computes. Empty: it may."""
        return selftest.disagreement(
            self.networks,
            self.intensities,
            volume=volume,
            tile_zyx=self.metadata[0].tile_zyx,
            threshold=self.threshold,
            device=self.device,
        )

    def take(self, device: Device) -> None:
        """Run on this device from here on."""
        self.close()
        share_threads(device)
        self.device = device
        self._place()

    def limit_tiles(self, voxels: int) -> None:
        """Plan no larger tiles from here on: memory did not suffice for them, here or in another process."""
        self.device = replace(self.device, tile_voxels=min(self.device.tile_voxels, voxels))

    def _is_trained(self, grid: Grid) -> bool:
        """Whether a grid's tiles are the least ones that there are."""
        return grid.tile_zyx == self.metadata[0].tile_zyx

    def _place(self) -> None:
        with self._placing:
            if self._lanes:
                return
            self._members = [
                Member(place_copy(network, self.device), metadata.intensity, exact=network)
                for network, metadata in zip(self.networks, self.metadata, strict=True)
            ]
            turn = Lock()
            self._lanes = [Predictor(self._members, self.device, turn) for _ in range(LANES)]
            for predictor in self._lanes:
                self._free.put(predictor)

    @contextmanager
    def _lane(self) -> Iterator[Predictor]:
        """Take a predictor that nobody uses, and put it back."""
        self._place()
        predictor = self._free.get()
        try:
            yield predictor
        finally:
            self._free.put(predictor)

    def grid(self, shape_zyx: Shape, tile_voxels: int | None = None) -> Grid:
        """Return the tiles of a volume. tile_voxels: of a tile at most; None: the device's limit."""
        device, first = self.device, self.metadata[0]
        most = device.tile_voxels if tile_voxels is None else tile_voxels
        return tiles.plan(
            shape_zyx,
            trained_zyx=first.tile_zyx,
            overlap=first.overlap,
            step=DIVISOR,
            most_voxels=most,
            most_kept_bytes=device.kept_bytes,
        )

    def scanned(self, volume: Volume) -> Volume | None:
        """Return which voxels of a volume were scanned, where the settings ask for it: `scanned_bits`; else None."""
        return scanned_bits(volume) if self.mask.clear_unscanned else None

    def logits(
        self,
        volume: Volume,
        *,
        scanned: Volume | None = None,
        on_tiles: Callable[[int], object] = lambda count: None,
    ) -> Iterator[tuple[int, Logits]]:
        """Yield (first z, float32 logits (z, y, x)) slabs: the mean over all members and views.

        Where `scanned` is given, as `scanned` returned it, voxels that were not have the logit UNSCANNED_LOGIT.
        """
        passes = [each for stage in self.stages for each in stage]
        with self._lane() as predictor:
            grid = self.grid(volume.shape)
            yield from predictor.slabs(volume, grid=grid, passes=passes, on_tiles=on_tiles, scanned=scanned)

    def predict(
        self,
        volume: Volume,
        *,
        mask: npt.NDArray[np.uint8] | None = None,
        sums: Logits | None = None,
        stages: Sequence[int] | None = None,
        scanned: Volume | None = None,
        on_tiles: Callable[[int], object] = lambda count: None,
        tile_voxels: int | None = None,
    ) -> ProbabilityStatistics:
        """Run some stages on a volume, and fill its mask, as far as the threshold, and the sums of its logits.

        `postprocess.mask.finish_mask` makes the final mask of it.

        Where memory does not suffice for the planned tiles, not even one at a time, the volume is begun again with
        smaller ones, and so are those after it. Only where no smaller ones are to be had, or where a later stage has
        added to the sums, a tile that is too large for a GPU runs on the CPU.

        Args:
            volume: uint8 (z, y, x), an array or a memory map, as the next two.
            mask: uint8 (z, y, x), set to 1 where the mean logit over all stages so far is above the threshold's, else
                to 0; None: not wanted.
            sums: float32 (z, y, x), the sums of logits; where the first stage is not 0 it holds what the earlier ones
                left. None: not wanted.
            stages: consecutive; None: all.
            scanned: as `scanned` returned it: tiles without a scanned voxel are not run. None: all are.
            on_tiles: called with how many tiles are done.
            tile_voxels: of a tile at most, as in `grid`.

        Raises:
            PredictionError: for logits that are not finite, or planes too wide for this machine's memory.
            ValueError: where neither mask nor sums are wanted.
        """
        if mask is None and sums is None:
            raise ValueError("expected a mask or sums to fill, got neither")
        stages = range(len(self.stages)) if stages is None else stages
        if sums is None and len(stages) > 1:
            sums = np.empty(volume.shape, np.float32)
        first, incidents = stages[0], list[str]()
        grid = self.grid(volume.shape, tile_voxels)
        _check_memory(grid)
        moments, seconds = np.zeros(3), 0.0
        tables = [intensity.table(volume) for intensity in dict.fromkeys(self.intensities)]
        while True:
            smaller_voxels = math.prod(grid.tile_zyx) // 2
            # What a later stage has added to the sums in part cannot be taken out again.
            may_shrink = first == 0 and not self._is_trained(grid)
            try:
                for stage in range(first, stages[-1] + 1):
                    target = _Target(stage=stage, mask=mask, sums=sums, scanned=scanned)
                    with self._lane() as predictor:
                        moments = self._stage(
                            predictor,
                            volume,
                            grid=grid,
                            tables=tables,
                            target=target,
                            on_tiles=on_tiles,
                            to_cpu=not (may_shrink and stage == 0),
                        )
                        incidents += predictor.incidents
                        seconds += predictor.seconds
                        too_large = predictor.too_large and not self._is_trained(grid)
                    if too_large:
                        self.limit_tiles(smaller_voxels)
                    first = stage + 1
                break
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error) or not may_shrink or first > 0:
                    raise
            self.limit_tiles(smaller_voxels)
            grid = self.grid(volume.shape, smaller_voxels)
            incidents += [f"memory did not suffice: begun again with tiles of {grid.tile_zyx}"]
        count, total, squares = moments
        mean = float(total / max(count, 1))  # of a volume without a scan no tile is run
        variance = max(0.0, float(squares / max(count, 1)) - mean**2)
        return ProbabilityStatistics(mean=mean, variance=variance, seconds=seconds, incidents=tuple(incidents))

    def _stage(
        self,
        predictor: Predictor,
        volume: Volume,
        *,
        grid: Grid,
        tables: Sequence[Table],
        target: "_Target",
        on_tiles: Callable[[int], object],
        to_cpu: bool,
    ) -> npt.NDArray[np.float64]:
        """Run one stage; return the moments of the probabilities over all stages so far."""
        passes = sum(len(done) for done in self.stages[: target.stage + 1])
        limit = logit(self.threshold) * passes

        def finish(slab: Slab) -> npt.NDArray[np.float64]:
            planes = slice(slab.z_start, slab.z_end)
            moments = slab.blend(
                sums=None if target.sums is None else target.sums[planes],
                add=target.stage > 0,
                mask=None if target.mask is None else target.mask[planes],
                limit=limit,
                with_moments=True,
                passes=passes,
                share=predictor.share,
            )
            for written in (target.mask, target.sums):
                if written is not None:
                    forget_planes(written, slab.z_end)
            return moments

        made = predictor.run(
            volume,
            grid=grid,
            passes=self.stages[target.stage],
            finish=finish,
            on_tiles=on_tiles,
            tables=tables,
            scanned=target.scanned,
            to_cpu=to_cpu,
        )
        moments: npt.NDArray[np.float64] = np.sum(list(made), axis=0)
        return moments


@dataclass(frozen=True, kw_only=True)
class _Target:
    """What a stage fills, and where it need not look."""

    stage: int
    mask: npt.NDArray[np.uint8] | None
    sums: Logits | None
    scanned: Volume | None


def _check_memory(grid: Grid) -> None:
    """Refuse planes whose logits take too much while they wait to be blended. Raises PredictionError."""
    most_bytes = machine_bytes() * LARGEST_KEPT_SHARE
    if grid.kept_bytes > most_bytes:
        raise PredictionError(
            f"planes of {grid.shape_zyx[1:]} voxels need {grid.kept_bytes / 1e9:.0f} GB for logits that wait to be "
            f"blended; expected at most {most_bytes / 1e9:.0f} GB: cut the volume along y and x"
        )
