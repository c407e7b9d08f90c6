"""A volume through the networks: tiles in, blended slabs out.

Four things go on at a time, each a step ahead of the next: the next batch of tiles is cut out of the volume
(`cutting`), the networks run one (`forward`), the logits of the one before come in from a GPU, and planes that no
further tile will touch are blended (`layers`, `slab`). The buffers serve the next volume too.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, Self, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from surface_kernel.inference.buffers import Buffers
from surface_kernel.inference.cutting import TileBatch, TileCutter
from surface_kernel.inference.forward import Ensemble, Forward, Member, Pass
from surface_kernel.inference.layers import LayerStore
from surface_kernel.inference.sharing import shared_by
from surface_kernel.inference.slab import NotFiniteError, Slab
from surface_kernel.inference.tiles import Grid, Shape
from surface_kernel.inference.views import UNTURNED, View, parse_all
from surface_kernel.networks.device import Device
from surface_kernel.networks.device_errors import out_of_memory
from surface_kernel.networks.placing import set_current
from surface_kernel.volumes.intensity import Table
from surface_kernel.volumes.scanned import fill_unscanned

Volume = npt.NDArray[np.uint8]
Logits = npt.NDArray[np.float32]
Made = TypeVar("Made")


class PredictionError(RuntimeError):
    """A prediction that cannot be used."""


class Predictor:
    """Runs members on a device, one volume after another. Close it, or use it in `with`, to end its threads.

    incidents: what happened to the last volume that a report should say: memory that did not suffice, tiles that had
    to be repeated. seconds: what it took, from its turn on. too_large: whether its tiles were too large for the GPU.
    """

    def __init__(
        self, members: Sequence[Member], device: Device, turn: AbstractContextManager[Any] | None = None
    ) -> None:
        """Take members on a device. turn: held while networks run, where several predictors take turns at it."""
        self.ensemble, self.device = Ensemble(members, device), device
        self.turn = nullcontext() if turn is None else turn
        self.incidents: list[str] = []
        self.seconds, self.too_large = 0.0, False
        self.buffers = Buffers(pinned=device.is_gpu)
        self.feeder = ThreadPoolExecutor(1, "feed", initializer=set_current, initargs=(device,))
        self.lander = ThreadPoolExecutor(1, "land", initializer=set_current, initargs=(device,))
        self.blender, self._sharers = ThreadPoolExecutor(1, "blend"), ThreadPoolExecutor(device.threads, "share")
        self.share = shared_by(self._sharers, device.threads)
        self.copies = torch.cuda.Stream(device.name) if device.is_gpu else None  # type: ignore[no-untyped-call]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the threads; what they do is finished first."""
        for pool in (self.feeder, self.lander, self.blender, self._sharers):
            pool.shutdown(wait=True, cancel_futures=True)

    def run(
        self,
        volume: Volume,
        *,
        grid: Grid,
        passes: Sequence[Pass],
        finish: Callable[[Slab], Made],
        on_tiles: Callable[[int], object] = lambda count: None,
        tables: Sequence[Table] | None = None,
        scanned: Volume | None = None,
        to_cpu: bool = True,
    ) -> Iterator[Made]:
        """Predict a volume; yield what `finish` makes of one slab after the other, which make up the whole.

        Args:
            volume: uint8 (z, y, x), of the grid's shape; a memory map is read once, from the first plane to the last.
            grid: the tiles.
            passes: their logits are summed.
            finish: called in a thread of its own, one slab at a time; what it is given is good only until it returns.
                Where logits had to be repeated it is called again, to go on with the same arrays.
            on_tiles: called with how many tiles are done, those included that were not run.
            tables: what `tables` returned for this volume, if it was asked before.
            scanned: `volumes.scanned.scanned_bits` of the volume: tiles without any scanned voxel are not run, and
                what lies under no other gets UNSCANNED_LOGIT. None: all are run.
            to_cpu: whether tiles that are too large for a GPU run on the CPU; else what they raise is raised here.

        Raises:
            PredictionError: when logits are not finite, in float32 neither.
            ValueError: for a volume of another shape.
        """
        if volume.shape != grid.shape_zyx:
            raise ValueError(f"expected a volume of the grid's shape {grid.shape_zyx}, got {volume.shape}")
        set_current(self.device)
        tables = self.tables(volume) if tables is None else tables
        # A batch of larger tiles has fewer of them: never more voxels than in one that was tried, if it can be.
        ratio = math.prod(grid.trained_zyx or grid.tile_zyx) / math.prod(grid.tile_zyx)
        batch = max(1, int(self.device.batch * ratio))
        self.incidents.clear()
        self.buffers.keep_only(grid.tile_zyx)
        cutter = TileCutter(
            volume,
            grid=grid,
            tables=tables,
            batch=batch,
            device=self.device,
            buffers=self.buffers,
            share=self.share,
            scanned=scanned,
        )
        forward = Forward(
            self.ensemble,
            passes=passes,
            tables=tables,
            batch=batch,
            report=self.incidents.append,
            on_pass=lambda: on_tiles(0),
            to_cpu=to_cpu,
        )
        yield from _VolumeRun(self, cutter=cutter, forward=forward, grid=grid, finish=finish, on_tiles=on_tiles).made()
        self.too_large = forward.too_large

    def fits(self, volume: Volume, tile_zyx: Shape) -> bool:
        """Whether memory suffices for one tile of this shape on the device, whichever member sees it."""
        forward = Forward(
            self.ensemble,
            passes=[(member, View()) for member in range(len(self.ensemble.members))],
            tables=self.tables(volume),
            batch=1,
            report=self.incidents.append,
            to_cpu=False,
        )
        inputs = [torch.zeros((1, *tile_zyx), dtype=torch.uint8)]
        try:
            forward.logits(TileBatch(tiles=[(0, 0, 0)], empty=[], corners=[(0, 0, 0)], inputs=inputs))[0].cpu()
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            fits = False
        else:
            fits = True
        torch.cuda.empty_cache()  # of a tile that no volume may have
        return fits

    def tables(self, volume: Volume) -> list[Table]:
        """Return what networks are fed for every grey value of a volume, one an intensity: float32 (256,)."""
        return [intensity.table(volume) for intensity in self.ensemble.intensities]

    def slabs(
        self,
        volume: Volume,
        *,
        grid: Grid,
        passes: Sequence[Pass],
        on_tiles: Callable[[int], object] = lambda count: None,
        scanned: Volume | None = None,
    ) -> Iterator[tuple[int, Logits]]:
        """Predict a volume; yield (first z, float32 mean logits (z, y, x)) slabs that are the caller's to keep.

        Where `scanned` is given, voxels that were not scanned have the logit UNSCANNED_LOGIT.
        """
        made: dict[int, Logits] = {}

        def finish(slab: Slab) -> tuple[int, Logits]:
            sums = made.setdefault(slab.z_start, np.empty(slab.shape_zyx, np.float32))
            slab.blend(sums=sums, share=self.share)
            field = made.pop(slab.z_start) / np.float32(len(passes))
            if scanned is not None:
                fill_unscanned(field, scanned[slab.z_start : slab.z_end])
            return slab.z_start, field

        yield from self.run(volume, grid=grid, passes=passes, finish=finish, on_tiles=on_tiles, scanned=scanned)


class _VolumeRun(Generic[Made]):
    """One volume's way from the cutter through the networks into the layers, in the predictor's threads."""

    def __init__(
        self,
        predictor: Predictor,
        *,
        cutter: TileCutter,
        forward: Forward,
        grid: Grid,
        finish: Callable[[Slab], Made],
        on_tiles: Callable[[int], object],
    ) -> None:
        self._predictor, self._cutter, self._forward, self._finish = predictor, cutter, forward, finish
        self._layers = LayerStore(grid, on_slab=self._blend_soon, on_tiles=on_tiles)
        self._coming: deque[tuple[TileBatch, Future[None]]] = deque()  # batches whose logits come in from a GPU
        self._slabs: deque[tuple[Slab, Future[Made]]] = deque()  # slabs that are being blended

    def made(self) -> Iterator[Made]:
        """Yield what `finish` makes of the slabs."""
        batches = self._cutter.batches()
        fed = self._predictor.feeder.submit(next, batches, None)
        try:
            with self._predictor.turn:
                began_s = time.perf_counter()
                while batch := fed.result():
                    fed = self._predictor.feeder.submit(next, batches, None)
                    yield from self._make_room(batch)
                    if batch.tiles:
                        self._start(batch)
                    while len(self._coming) > 1:
                        self._settle()
            while self._coming:
                self._settle()
            while self._slabs:
                yield self._blended()
            self._predictor.seconds = time.perf_counter() - began_s
        finally:  # nothing may write into the buffers any more, however this ended
            futures = [landed for _, landed in self._coming] + [future for _, future in self._slabs]
            for future in (fed, *futures):
                if not future.cancel():
                    future.exception()
            self._layers.clear()

    def _make_room(self, batch: TileBatch) -> Iterator[Made]:
        """Wait until the slots of a batch's layers are free, and count its empty tiles."""
        empty = set(batch.empty)  # a margin may have very many
        for index in sorted(batch.empty + batch.tiles):
            while not self._layers.has_room(index):
                while not self._slabs:
                    self._settle()
                yield self._blended()
                self._layers.blended()
            self._layers.begin(index)
            if index in empty:
                self._layers.skipped(index)

    def _start(self, batch: TileBatch) -> None:
        """Run a batch and let its logits come in. A GPU's have only been asked for when this returns."""
        parts = self._forward.logits(batch)
        if self._predictor.copies is None:
            self._keep(batch, parts[0] if len(parts) == 1 else torch.cat(parts))
            self._layers.arrived(batch.tiles)
        else:
            self._fetch(batch, parts, self._predictor.copies)

    def _keep(self, batch: TileBatch, logits: Tensor) -> None:
        """Hold logits that lie in the CPU's memory."""
        # A network may give back its input, as an identity does: then that buffer is held as long as the logits.
        place = logits.untyped_storage().data_ptr()
        same = [rows for rows in batch.inputs if rows.untyped_storage().data_ptr() == place]
        self._layers.put(batch.tiles, logits.numpy(), lambda: self._predictor.buffers.give_back(same))
        self._predictor.buffers.give_back(rows for rows in batch.inputs if not same or rows is not same[0])

    def _fetch(self, batch: TileBatch, parts: Sequence[Tensor], copies: torch.cuda.Stream) -> None:
        """Let logits come in from a GPU, in a stream of their own beside the next batch's work."""
        buffers = self._predictor.buffers
        landing = buffers.take((sum(map(len, parts)), *parts[0].shape[1:]), torch.float32)
        self._layers.put(batch.tiles, landing.numpy(), lambda: buffers.give_back([landing]))
        copies.wait_stream(torch.cuda.current_stream(self._predictor.device.name))
        with torch.cuda.stream(copies):
            first = 0
            for logits in parts:
                landing[first : first + len(logits)].copy_(logits, non_blocking=logits.is_cuda)
                first += len(logits)
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record(copies)
        for logits in parts:
            if logits.is_cuda:  # its memory must not serve the next batch before the copy is through
                logits.record_stream(copies)
        self._coming.append((batch, self._predictor.lander.submit(self._land, batch, arrived)))

    def _land(self, batch: TileBatch, arrived: torch.cuda.Event) -> None:
        """Wait for a batch's logits, in the lander's thread."""
        arrived.synchronize()
        self._layers.arrived(batch.tiles)

    def _settle(self) -> None:
        """Wait until the oldest batch has come in from a GPU."""
        batch, landed = self._coming.popleft()
        landed.result()
        self._predictor.buffers.give_back(batch.inputs)

    def _blend_soon(self, slab: Slab) -> None:
        self._slabs.append((slab, self._predictor.blender.submit(self._finish, slab)))

    def _blended(self) -> Made:
        """Wait for the oldest slab that is being blended; where its logits are not finite, repeat them first."""
        slab, future = self._slabs.popleft()
        try:
            return future.result()
        except NotFiniteError:
            self._repeat(slab)
        return self._predictor.blender.submit(self._finish, slab).result()

    def _repeat(self, slab: Slab) -> None:
        """Compute the tiles over a slab that are not finite again, in float32. Raises PredictionError."""
        for index in slab.not_finite():
            batch = self._cutter.cut([index], empty=[], batch=1)
            logits = self._forward.exact_logits(batch)
            self._predictor.buffers.give_back(batch.inputs)
            if not torch.isfinite(logits).all():
                raise PredictionError(f"the logits of {batch.named(0)} are not finite, in float32 neither")
            self._layers.put([index], logits.numpy(), lambda: None)
            self._predictor.incidents.append(f"logits were not finite in {batch.named(0)}: repeated in float32")


def slabs(
    members: Sequence[Member],
    volume: Volume,
    *,
    grid: Grid,
    device: Device,
    views: Sequence[str] = (UNTURNED,),
    on_tiles: Callable[[int], object] = lambda count: None,
    scanned: Volume | None = None,
) -> Iterator[tuple[int, Logits]]:
    """Predict one volume; yield (first z, float32 logits (z, y, x)) slabs that make up the whole.

    The logits are the mean over members and views. The rest is as in `Predictor.slabs`.
    """
    passes = [(member, view) for member in range(len(members)) for view in parse_all(views)]
    with Predictor(members, device) as predictor:
        yield from predictor.slabs(volume, grid=grid, passes=passes, on_tiles=on_tiles, scanned=scanned)
