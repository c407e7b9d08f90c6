"""What travels between the first process and its workers: plain records, without torch.

to a worker      Unit, Device, TileLimit
from a worker    Loaded, Ready, TilesDone, TileLimit, Done, Failed, DeviceLost
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from surface_kernel.inference.settings import Settings
from surface_kernel.inference.tiles import Grid, Shape, plan
from surface_kernel.networks.architecture import DIVISOR
from surface_kernel.networks.device import Device

if TYPE_CHECKING:
    from surface_kernel.inference.engine import Engine

Load = Callable[[str | None, int | None], "Engine"]
"""Returns an engine, given the name of a device and the number of threads; it must be picklable."""

UNITS_AHEAD = 3  # of a worker: one is blended, one predicted, one decoded
FINISHING = 4  # masks that wait to be finished, at most


@dataclass(frozen=True, kw_only=True)
class StoredSums:
    """The file of the sums of logits that earlier stages left."""

    path: Path
    crc32: int


@dataclass(frozen=True, kw_only=True)
class Unit:
    """Some stages on one volume: the piece of work that a worker is given."""

    case: str
    path: Path
    """Of the image."""
    shape_zyx: Shape
    """As the image's header says."""
    mask: Path | None = None
    """Where to write the raw uint8 mask, if it is wanted."""
    sums: Path | None = None
    """Where to write the raw float32 sums of logits, if they are wanted."""
    scanned: Path | None = None
    """Where to write which voxels were scanned, packed to bits (`volumes.scanned`), for whoever finishes the mask and
    does not hold the volume; None: nobody asks, and every tile is run."""
    stages: tuple[int, ...] | None = None
    """Consecutive; None: all."""
    earlier: StoredSums | None = None
    """What the stages before left; the file is not changed."""
    image_sha256: str | None = None
    """Of the image that the stages before were predicted from; None: any."""
    record: Path | None = None
    """Where to write that the unit is done, once its other files are complete; None: nowhere."""
    trained_tile: bool = False
    """Whether to take tiles of the trained size only: an earlier try was killed for its memory."""

    @property
    def voxels(self) -> int:
        """Count the volume's voxels."""
        return math.prod(self.shape_zyx)

    @property
    def stage(self) -> int:
        """Return the last stage of a planned unit, which has one."""
        assert self.stages is not None  # only `predict` runs all stages at once
        return self.stages[-1]


@dataclass(frozen=True, kw_only=True)
class Done:
    """What became of a unit."""

    unit: Unit
    seconds: float = 0.0
    """That its networks took."""
    variance: float = 0.0
    """Of the probabilities."""
    incidents: tuple[str, ...] = ()
    """What went wrong and was mended, one sentence each."""
    error: str = ""
    """Why there is no result; empty where there is one."""
    again: bool = False
    """Whether the error may not come back: a full disk, a worker that died."""
    image_sha256: str = ""
    """Of the image; only of a unit with a record."""
    sums_crc32: int | None = None
    """Of the file of its sums; only of a unit with a record and sums."""
    took_s: float = 0.0
    """That it took its worker, waiting included."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """The engine is loaded."""

    gpus: int
    """Of the machine, where the engine runs on one; else 0."""


@dataclass(frozen=True, kw_only=True)
class Ready:
    """How the networks run from here on."""

    device: Device
    trials: tuple[str, ...]
    """Results of the start-up test, one line each; none where the device was given."""
    tile_s: float
    """Seconds for a tile of the trained size; 0 where no test was made."""
    flop: float
    """Of a network, for each voxel."""
    members: int
    stages: int
    passes: int
    """(member, view) pairs of all stages."""
    trained_zyx: Shape
    """The tile that the networks were trained on."""
    overlap: float
    """Of neighbouring tiles, as a share of a tile."""

    def grid(self, shape_zyx: Shape) -> Grid:
        """Plan a volume's tiles as the workers do."""
        return plan(
            shape_zyx,
            trained_zyx=self.trained_zyx,
            overlap=self.overlap,
            step=DIVISOR,
            most_voxels=self.device.tile_voxels,
            most_kept_bytes=self.device.kept_bytes,
        )

    def expect_s(self, grid: Grid) -> float:
        """Return what a volume is expected to take one worker, all stages; 0 where no test was made."""
        return self.passes * self.tile_s * grid.tiles * math.prod(grid.tile_zyx) / math.prod(self.trained_zyx)


@dataclass(frozen=True, kw_only=True)
class TilesDone:
    """Some more tiles are done."""

    count: int


@dataclass(frozen=True)
class TileLimit:
    """Memory does not suffice for larger tiles: no worker is to plan any from here on."""

    voxels: int


@dataclass(frozen=True, kw_only=True)
class DeviceLost:
    """The worker's GPU cannot be used on by this process, which ends; what it had is to be done elsewhere."""

    error: str
    again: bool
    """Whether another process may try the same GPU: not where it computes something wrong."""


@dataclass(frozen=True, kw_only=True)
class Failed:
    """The worker cannot go on at all."""

    error: str


Message = Loaded | Ready | TilesDone | TileLimit | Done | Failed | DeviceLost


@dataclass(frozen=True, kw_only=True)
class LoadEngine:
    """Loads weights files into an engine, in whichever process it is called."""

    files: tuple[Path, ...]
    settings: Settings

    def __call__(self, device_name: str | None, threads: int | None) -> "Engine":
        """Load. Raises as `Engine.load`."""
        from surface_kernel.inference.engine import Engine

        return Engine.load(self.files, self.settings, device_name=device_name, threads=threads)


def error_text(error: BaseException) -> str:
    """Return an error's message; after its kind, unless it is one of ours, which say all by themselves."""
    ours = type(error).__module__.startswith("surface_kernel")
    return " ".join((str(error) if ours else f"{type(error).__name__}: {error}").split())


def sides(shape_zyx: Sequence[int]) -> str:
    """Return a shape as people write it: 320×314×314."""
    return "×".join(str(size) for size in shape_zyx)
