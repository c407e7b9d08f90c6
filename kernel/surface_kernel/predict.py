"""A volume through the networks: tiles in, logits out, slab by slab.

Only the z-layers of tiles that still overlap what is to come are kept, so memory does not grow with a volume's depth.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from surface_kernel.device import Device
from surface_kernel.intensity import Intensity, Table
from surface_kernel.settings import AXES, UNFLIPPED
from surface_kernel.stitch import gather
from surface_kernel.tiles import Grid

Volume = npt.NDArray[np.uint8]
Logits = npt.NDArray[np.float32]


class PredictionError(RuntimeError):
    """A prediction that cannot be used."""


@dataclass(frozen=True)
class Member:
    """One network of an ensemble, on its device, and how it wants to be fed."""

    network: nn.Module
    intensity: Intensity


def slabs(
    members: Sequence[Member],
    volume: Volume,
    grid: Grid,
    device: Device,
    views: Sequence[str] = (UNFLIPPED,),
    on_tiles: Callable[[int], object] = lambda count: None,
) -> Iterator[tuple[int, Logits]]:
    """Predict a volume; yield (first z, float32 logits (z, y, x)) slabs that follow one another and make up the whole.

    volume: uint8 (z, y, x), of the grid's shape. The logits are the mean over members and views. on_tiles is told how
    many tiles were just computed. Raises PredictionError when a logit is not finite.
    """
    if volume.shape != grid.shape_zyx:
        raise ValueError(f"found a volume of {volume.shape}, wanted the grid's {grid.shape_zyx}")
    tables = [member.intensity.table(volume) for member in members]
    starts_z, starts_y, starts_x = (np.asarray(axis, np.int64) for axis in grid.starts_zyx)
    weights_z, weights_y, weights_x = grid.weights_zyx
    layers_kept, depth = grid.layers_alive(), grid.shape_zyx[0]
    tiles = np.empty((layers_kept, len(starts_y), len(starts_x), *grid.tile_zyx), np.float32)
    for layer, start_z in enumerate(starts_z):
        into = tiles[layer % layers_kept].reshape(-1, *grid.tile_zyx)
        _predict_layer(members, tables, volume, grid, int(start_z), device, views, into, on_tiles)
        end_z = int(starts_z[layer + 1]) if layer + 1 < len(starts_z) else depth
        alive = np.arange(max(0, layer + 1 - layers_kept), layer + 1)
        slab = np.empty((end_z - int(start_z), *grid.shape_zyx[1:]), np.float32)
        slots, layer_starts, layer_weights = alive % layers_kept, starts_z[alive], weights_z[alive]
        gather(tiles, slots, layer_starts, layer_weights, starts_y, weights_y, starts_x, weights_x, int(start_z), slab)
        if not np.isfinite(slab).all():
            raise PredictionError(f"found logits that are not finite from z = {start_z} on, wanted numbers")
        yield int(start_z), slab


def _predict_layer(
    members: Sequence[Member],
    tables: Sequence[Table],
    volume: Volume,
    grid: Grid,
    start_z: int,
    device: Device,
    views: Sequence[str],
    into: Logits,
    on_tiles: Callable[[int], object],
) -> None:
    """Run one z-layer of tiles through every member and view, and leave the mean logits in `into` (tile, z, y, x)."""
    corners = grid.layer()
    grey = np.zeros((device.batch, *grid.tile_zyx), np.uint8)
    for first in range(0, len(corners), device.batch):
        batch = corners[first : first + device.batch]
        grey[:] = 0
        for row, (start_y, start_x) in enumerate(batch):
            box = tuple(
                slice(start, start + size)
                for start, size in zip((start_z, start_y, start_x), grid.tile_zyx, strict=True)
            )
            part = volume[box]
            grey[row, : part.shape[0], : part.shape[1], : part.shape[2]] = part
        # A short last batch is filled up: a network's last bits depend on how many tiles it sees together.
        into[first : first + len(batch)] = _mean_logits(members, tables, grey, device, views)[: len(batch)]
        on_tiles(len(batch))


@torch.inference_mode()
def _mean_logits(
    members: Sequence[Member], tables: Sequence[Table], grey: Volume, device: Device, views: Sequence[str]
) -> Logits:
    """Average the logits of every member and view on the device, and copy them back once."""
    tiles = torch.from_numpy(grey).to(device.name)
    total = torch.zeros((len(grey), 1, *grey.shape[1:]), dtype=torch.float32, device=device.name)
    for member, table in zip(members, tables, strict=True):
        values = torch.from_numpy(table).to(device.name)[tiles.int()][:, None]
        for view in views:
            axes = () if view == UNFLIPPED else tuple(2 + AXES.index(axis) for axis in view)
            with device.autocast():
                logits = member.network(values.flip(axes) if axes else values)
            total += (logits.flip(axes) if axes else logits).float()
    mean: Logits = (total / (len(members) * len(views)))[:, 0].cpu().numpy()
    return mean
