"""A volume through the networks: tiles in, blended slabs out, nobody waiting for anybody.

Four things go on at a time, each a step ahead of the next: the next batch of tiles is cut out of the volume, the
network runs one, the logits of the one before come in and are checked, and planes that no further tile will touch are
blended. Only the z-layers of tiles that still overlap what is to come are kept, so memory does not grow with a
volume's depth, and the buffers serve the next volume too.
"""

import copy
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from threading import Lock
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from surface_kernel.inference.stitch import Blend, NotFiniteError, finite, logits_at, look_up, scanned, shared_by
from surface_kernel.inference.tiles import Grid
from surface_kernel.inference.views import UNTURNED, View, parse_all
from surface_kernel.networks.device import Device
from surface_kernel.networks.placing import autocast, set_current
from surface_kernel.volumes.intensity import Intensity, Table
from surface_kernel.volumes.volume import forget_planes

Volume = npt.NDArray[np.uint8]
Logits = npt.NDArray[np.float32]
Index = tuple[int, int, int]
Pass = tuple[int, View]  # a member's number, and how it sees the volume
Made = TypeVar("Made")
_GREYS = np.arange(256, dtype=np.uint8)


class PredictionError(RuntimeError):
    """A prediction that cannot be used."""


@dataclass(frozen=True)
class Member:
    """One network of an ensemble, on its device, and how it wants to be fed.

    exact: the same network in float32, wherever it is, for tiles that the fast one cannot do; none: itself.
    """

    network: nn.Module
    intensity: Intensity
    exact: nn.Module | None = None


@dataclass
class _Batch:
    """Some tiles on their way, and the tiles of zeros that come before or among them.

    inputs: one an intensity: (tile, z, y, x), what `look_up` made. landed: that its logits are in.
    """

    tiles: list[Index]
    zeros: list[Index]
    inputs: list[Tensor]
    landed: "Future[None] | None" = None


class Predictor:
    """Runs members on a device, one volume after another. Close it, or use it in `with`, to end its threads.

    incidents: what happened to the last volume that a report should tell: memory that did not suffice, tiles that had
    to be repeated. seconds: what it took, from its turn on.
    """

    def __init__(
        self, members: Sequence[Member], device: Device, turn: AbstractContextManager[Any] | None = None
    ) -> None:
        """Take members on a device. turn: held while networks run, where several predictors take turns at it."""
        self.members, self.device = list(members), device
        self.turn = nullcontext() if turn is None else turn
        self.incidents: list[str] = []
        self.seconds = 0.0
        self.intensities = list(dict.fromkeys(member.intensity for member in members))
        self.fed_with = [self.intensities.index(member.intensity) for member in members]
        self.feeder = ThreadPoolExecutor(1, "feed", initializer=set_current, initargs=(device,))
        self.lander = ThreadPoolExecutor(1, "land", initializer=set_current, initargs=(device,))
        self.blender, self._sharers = ThreadPoolExecutor(1, "blend"), ThreadPoolExecutor(device.threads, "share")
        self.share = shared_by(self._sharers, device.threads)
        self.copies = torch.cuda.Stream(device.name) if device.is_gpu else None  # type: ignore[no-untyped-call]
        self._free: list[Tensor] = []
        self._taking = Lock()
        self._exact: dict[tuple[int, str], nn.Module] = {}

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
        grid: Grid,
        passes: Sequence[Pass],
        finish: Callable[[Blend], Made],
        on_tiles: Callable[[int], object] = lambda count: None,
        tables: Sequence[Table] | None = None,
    ) -> Iterator[Made]:
        """Predict a volume; yield what `finish` makes of one slab after the other, which make up the whole.

        volume: uint8 (z, y, x), of the grid's shape; a memory map is read once, from the first plane to the last.
        passes: their logits are summed. finish: called in a thread of its own, one slab at a time; what it is given
        is good only until it returns. Where logits had to be mended it is called again, to go on with the same arrays.
        on_tiles is told how many tiles were just dealt with, those included that hold nothing but zeros: they are not
        run. tables: what `tables` gave for this volume, if it was asked before. Raises PredictionError when logits are
        not finite, in float32 neither.
        """
        if volume.shape != grid.shape_zyx:
            raise ValueError(f"found a volume of {volume.shape}, wanted the grid's {grid.shape_zyx}")
        set_current(self.device)
        tables = self.tables(volume) if tables is None else tables
        yield from _Course(self, volume, grid, passes, finish, on_tiles, tables).slabs()

    def tables(self, volume: Volume) -> list[Table]:
        """Give what networks are fed for every grey value of a volume, for each way in which members want to be fed."""
        return [intensity.table(volume) for intensity in self.intensities]

    def slabs(
        self,
        volume: Volume,
        grid: Grid,
        passes: Sequence[Pass],
        on_tiles: Callable[[int], object] = lambda count: None,
    ) -> Iterator[tuple[int, Logits]]:
        """Predict a volume; yield (first z, float32 mean logits (z, y, x)) slabs that are the caller's to keep."""

        made: dict[int, Logits] = {}

        def finish(blend: Blend) -> tuple[int, Logits]:
            sums = made.setdefault(blend.z_start, np.empty(blend.shape_zyx, np.float32))
            blend.run(sums, share=self.share)
            return blend.z_start, made.pop(blend.z_start) / np.float32(len(passes))

        yield from self.run(volume, grid, passes, finish, on_tiles)

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Give a buffer: one that was given back before, else a new one; on a GPU's machine in memory that it reaches.

        Fresh memory costs more to touch first than a tile costs to cut.
        """
        with self._taking:
            for place, kept in enumerate(self._free):
                if kept.shape == shape and kept.dtype == dtype:
                    return self._free.pop(place)
        return torch.empty(shape, dtype=dtype, pin_memory=self.device.is_gpu)

    def give_back(self, buffer: Tensor) -> None:
        """Keep a buffer for whoever wants one of its kind next."""
        with self._taking:
            self._free.append(buffer)

    def forget_others(self, tile_zyx: tuple[int, int, int]) -> None:
        """Let go of buffers for tiles of another size."""
        with self._taking:
            self._free = [kept for kept in self._free if kept.shape[-3:] == tile_zyx]

    def exact(self, member: int, device_name: str) -> nn.Module:
        """Give a member's network in float32 on a device: made when first wanted, and kept."""
        if (member, device_name) not in self._exact:
            source = self.members[member].exact or self.members[member].network
            self._exact[member, device_name] = copy.deepcopy(source).float().to(device_name)
        return self._exact[member, device_name]


class _Course:
    """One volume's way through a predictor."""

    def __init__(
        self,
        predictor: Predictor,
        volume: Volume,
        grid: Grid,
        passes: Sequence[Pass],
        finish: Callable[[Blend], Any],
        on_tiles: Callable[[int], object],
        tables: Sequence[Table],
    ) -> None:
        self._predictor, self._device = predictor, predictor.device
        self._volume, self._grid, self._passes, self._finish, self._on_tiles = volume, grid, passes, finish, on_tiles
        # A batch of larger tiles has fewer of them: never more voxels than in one that was tried, if it can be.
        ratio = math.prod(grid.trained_zyx or grid.tile_zyx) / math.prod(grid.tile_zyx)
        self._batch = self._together = max(1, int(self._device.batch * ratio))
        self._tables = list(tables)
        layers, *across = (len(axis) for axis in grid.starts_zyx)
        self._where = np.zeros((grid.slots, *across), np.int64)  # the tiles' logits, as `stitch.gather` wants it
        # And what holds them, with the buffers to give back after.
        self._kept: list[list[tuple[Tensor, list[Tensor]]]] = [[] for _ in range(grid.slots)]
        self._missing = np.full(layers, math.prod(across))  # tiles of each layer that are not in yet
        self._coming: deque[_Batch] = deque()
        self._blends: deque[tuple[Blend, Future[Any]]] = deque()
        self._counting = Lock()  # of the lander's thread and the caller's
        self._given, self._yielded = 0, 0  # layers handed to the blender, and slabs that came back
        predictor.incidents.clear()
        predictor.forget_others(grid.tile_zyx)

    def slabs(self) -> Iterator[Any]:
        """Yield what `finish` makes of the slabs."""
        batches = self._batches()
        fed = self._predictor.feeder.submit(next, batches, None)
        try:
            with self._predictor.turn:
                began_s = time.perf_counter()
                while batch := fed.result():
                    fed = self._predictor.feeder.submit(next, batches, None)
                    zeros = set(batch.zeros)  # a margin may have very many
                    for index in sorted(batch.zeros + batch.tiles):
                        yield from self._make_room(index)
                        if index in zeros:
                            self._where[self._place(index)] = 0
                            self._count_in([index])
                    if batch.tiles:
                        self._start(batch)
                    while len(self._coming) > 1:
                        self._settle(self._coming.popleft())
            while self._coming:
                self._settle(self._coming.popleft())
            while self._blends:
                yield self._blended()
            self._predictor.seconds = time.perf_counter() - began_s
        finally:  # nothing may write into the buffers any more, however this ended
            for future in (fed, *(batch.landed for batch in self._coming), *(future for _, future in self._blends)):
                if future is not None and not future.cancel():
                    future.exception()
            for slot in range(self._grid.slots):
                self._free_slot(slot)

    def _place(self, index: Index) -> Index:
        return index[0] % self._grid.slots, index[1], index[2]

    # --- cutting: in the feeder's thread ---------------------------------------------------------------------------

    def _batches(self) -> Iterator[_Batch]:
        """Cut the tiles out, batch after batch."""
        for tiles, zeros in self._grouped():
            yield _Batch(tiles, zeros, self._inputs(tiles, self._batch) if tiles else [])

    def _inputs(self, tiles: Sequence[Index], batch: int) -> list[Tensor]:
        """Cut tiles out into buffers, one an intensity; a GPU looks grey values up itself, since that is less to send.

        A short batch is filled up: a network's last bits depend on how many tiles it sees together.
        """
        tables: Sequence[npt.NDArray[Any]] = [_GREYS] if self._device.is_gpu else self._tables
        inputs = []
        for table in tables:
            dtype = torch.uint8 if self._device.is_gpu else torch.float32
            inputs.append(self._predictor.take((batch, *self._grid.tile_zyx), dtype))
            self._cut(tiles, table, inputs[-1].numpy())
            inputs[-1][len(tiles) :] = table[0].item()
        return inputs

    def _cut(self, tiles: Sequence[Index], table: npt.NDArray[Any], out: npt.NDArray[Any]) -> None:
        """Cut tiles out, their planes shared out over the threads."""
        depth = self._grid.tile_zyx[0]

        def work(first: int, last: int) -> None:
            while first < last:
                row, plane = divmod(first, depth)
                end = min(depth, plane + last - first)
                z, y, x = self._grid.corner(tiles[row])
                look_up(self._volume, z + plane, y, x, table, out[row, plane:end])
                first += end - plane

        self._predictor.share(work, len(tiles) * depth)

    def _grouped(self) -> Iterator[tuple[list[Index], list[Index]]]:
        """Yield the tiles of every batch, and those of zeros that lie before or among them.

        A batch spans two layers at most: a third would need room that the first's planes still hold.
        """
        tiles: list[Index] = []
        zeros: list[Index] = []
        for index in self._grid.indices():
            corner = self._grid.corner(index)
            if tiles and (len(tiles) == self._batch or index[0] > tiles[0][0] + 1):
                yield tiles, zeros
                tiles, zeros = [], []
            if index[1:] == (0, 0):
                forget_planes(self._volume, corner[0])
            (tiles if scanned(self._volume, *corner, *self._grid.tile_zyx) else zeros).append(index)
        yield tiles, zeros

    # --- the network: in the caller's thread -----------------------------------------------------------------------

    @torch.inference_mode()
    def _start(self, batch: _Batch) -> None:
        """Run a batch and let its logits come in. A GPU has only been told to when this returns."""
        logits = self._logits(batch.inputs, batch.tiles)
        copies = self._predictor.copies
        if copies is None:
            # A network may give back its input, as an identity does: then that buffer is held as long as the logits.
            place = logits.untyped_storage().data_ptr()
            same = [rows for rows in batch.inputs if rows.untyped_storage().data_ptr() == place]
            self._keep(batch, logits, same)
            self._count_in(batch.tiles)
            self._give_back(rows for rows in batch.inputs if not same or rows is not same[0])
            return
        landing = self._predictor.take(tuple(logits.shape), torch.float32)
        self._keep(batch, landing, [landing])
        copies.wait_stream(torch.cuda.current_stream(self._device.name))
        with torch.cuda.stream(copies):
            landing.copy_(logits, non_blocking=True)
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record(copies)
        logits.record_stream(copies)  # its memory must not serve the next batch before the copy is through
        batch.landed = self._predictor.lander.submit(self._land, batch.tiles, arrived)
        self._coming.append(batch)

    def _give_back(self, buffers: Iterable[Tensor]) -> None:
        for buffer in buffers:
            self._predictor.give_back(buffer)

    def _keep(self, batch: _Batch, logits: Tensor, buffers: list[Tensor]) -> None:
        """Note where a batch's logits lie, and hold them for as long as the last of their layers is wanted."""
        self._kept[batch.tiles[-1][0] % self._grid.slots].append((logits, buffers))
        for row, index in enumerate(batch.tiles):
            self._where[self._place(index)] = logits[row].data_ptr()

    def _logits(self, inputs: Sequence[Tensor], tiles: Sequence[Index]) -> Tensor:
        """Sum the logits over the passes, (tile, z, y, x) on the device, in as many parts as its memory wants."""
        made: list[Tensor] = []
        first = 0
        while first < len(inputs[0]):
            part = [rows[first : first + self._together] for rows in inputs]
            found = self._unless_out_of_memory(part)
            if found is None and self._together > 1:
                self._together //= 2
                self._tell(f"memory did not suffice: {self._together} tiles at a time from here on")
                continue
            if found is None:
                self._tell(f"memory did not suffice for {self._named(tiles, first)}: run on the CPU in float32")
                found = self._exactly(part, "cpu").to(self._device.name)
            made.append(found)
            first += len(found)
        return made[0] if len(made) == 1 else torch.cat(made)

    def _unless_out_of_memory(self, inputs: Sequence[Tensor]) -> Tensor | None:
        try:
            members = self._predictor.members
            with autocast(self._device):
                return self._sum(inputs, self._device.name, lambda member: members[member].network)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
        if self._device.is_gpu:  # only now: until here the error held what had been allocated
            torch.cuda.empty_cache()
        return None

    def _exactly(self, inputs: Sequence[Tensor], device_name: str) -> Tensor:
        return self._sum(inputs, device_name, lambda member: self._predictor.exact(member, device_name))

    def _sum(self, inputs: Sequence[Tensor], device_name: str, network: Callable[[int], nn.Module]) -> Tensor:
        values = [rows.to(device_name, non_blocking=True)[:, None] for rows in inputs]
        if self._device.is_gpu:
            grey = values[0].int()
            values = [torch.from_numpy(table).to(device_name)[grey] for table in self._tables]
        total: Tensor | None = None
        for member, view in self._passes:
            seen = view.of(values[self._predictor.fed_with[member]])
            logits = view.undo(network(member)(seen))[:, 0].float()
            total = logits if total is None else total + logits
        if total is None:
            raise ValueError("found no passes, wanted a member and a view at least")
        return total.contiguous()

    def _settle(self, batch: _Batch) -> None:
        """Wait until a batch has come in from a GPU."""
        assert batch.landed is not None  # it was started
        batch.landed.result()
        self._give_back(batch.inputs)

    @torch.inference_mode()
    def _mend(self, blend: Blend) -> None:
        """Repeat the tiles over some planes that are not finite, in float32. Raises PredictionError."""
        for layer, slot in enumerate(blend.slots, start=blend.bottom):
            for y, x in np.argwhere(self._where[slot]):
                index = layer, int(y), int(x)
                if finite(logits_at(self._where[slot, y, x], self._grid.tile_zyx)):
                    continue
                inputs = self._inputs([index], 1)
                # A copy: the network may give back its input, whose buffer serves other tiles soon.
                logits = self._exactly(inputs, self._device.name).cpu().clone()
                self._give_back(inputs)
                if not finite(logits.numpy()):
                    raise PredictionError(
                        f"found logits that are not finite in {self._named([index], 0)}, wanted numbers"
                    )
                self._kept[slot].append((logits, []))
                self._where[slot, y, x] = logits.data_ptr()
                self._tell(f"logits were not finite in {self._named([index], 0)}: repeated in float32")

    def _named(self, tiles: Sequence[Index], row: int) -> str:
        return f"the tile at {self._grid.corner(tiles[row])}" if row < len(tiles) else "a tile that fills up a batch"

    def _tell(self, incident: str) -> None:
        self._predictor.incidents.append(incident)

    # --- blending --------------------------------------------------------------------------------------------------

    def _land(self, tiles: Sequence[Index], arrived: torch.cuda.Event) -> None:
        """Wait for a batch's logits, in the lander's thread."""
        arrived.synchronize()
        self._count_in(tiles)

    def _count_in(self, tiles: Sequence[Index]) -> None:
        """Count tiles as dealt with, and let those planes be blended that wait for no other."""
        with self._counting:
            if tiles:
                self._on_tiles(len(tiles))
            for index in tiles:
                self._missing[index[0]] -= 1
            while self._given < len(self._missing) and self._missing[self._given] == 0:
                blend = self._blend(self._given)
                self._blends.append((blend, self._predictor.blender.submit(self._finish, blend)))
                self._given += 1

    def _blend(self, layer: int) -> Blend:
        """Describe the planes from a layer's start to the next one's: no further tile touches them."""
        starts_z = self._grid.starts_zyx[0]
        bottom = max(0, layer + 1 - self._grid.layers_alive)
        slots = np.arange(bottom, layer + 1) % self._grid.slots
        z_end = starts_z[layer + 1] if layer + 1 < len(starts_z) else self._grid.shape_zyx[0]
        return Blend(self._grid, self._where, bottom, slots, starts_z[layer], z_end)

    def _blended(self) -> Any:
        """Wait for the oldest slab that is being blended; where its logits are not finite, mend them first."""
        blend, future = self._blends.popleft()
        try:
            return future.result()
        except NotFiniteError:
            self._mend(blend)
        return self._predictor.blender.submit(self._finish, blend).result()

    def _make_room(self, index: Index) -> Iterator[Any]:
        """Wait until a tile's slot is free: until all planes of the layer that had it before are blended."""
        layer, slots = index[0], self._grid.slots
        while layer >= slots and self._yielded < layer - slots + self._grid.layers_alive:
            while not self._blends:
                self._settle(self._coming.popleft())
            yield self._blended()
            self._yielded += 1
        if index[1:] == (0, 0):
            self._free_slot(layer % slots)

    def _free_slot(self, slot: int) -> None:
        for _, buffers in self._kept[slot]:
            self._give_back(buffers)
        self._kept[slot].clear()


def out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that a device's memory did not suffice."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return "can't allocate memory" in text or "CUBLAS_STATUS_ALLOC_FAILED" in text  # the CPU's allocator, cuBLAS


def slabs(
    members: Sequence[Member],
    volume: Volume,
    grid: Grid,
    device: Device,
    views: Sequence[str] = (UNTURNED,),
    on_tiles: Callable[[int], object] = lambda count: None,
) -> Iterator[tuple[int, Logits]]:
    """Predict one volume; yield (first z, float32 logits (z, y, x)) slabs that make up the whole.

    The logits are the mean over members and views. The rest is as in `Predictor.run`.
    """
    passes = [(member, view) for member in range(len(members)) for view in parse_all(views)]
    with Predictor(members, device) as predictor:
        yield from predictor.slabs(volume, grid, passes, on_tiles)
