"""The start-up test of a device: which precision, memory layout and batch run this network fastest, and rightly.

"Rightly" means: on a tile of a real volume the probabilities are those of the CPU in float32, to within what half
precision may cost. So a GPU whose convolutions are wrong or missing is found before it spoils anything.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from surface_kernel.inference.cutting import look_up
from surface_kernel.inference.forward import out_of_memory
from surface_kernel.networks.device import LAYOUTS, Device, DeviceError
from surface_kernel.networks.placing import autocast, has_bfloat16, place_copy
from surface_kernel.probability import logit, probabilities
from surface_kernel.volumes.intensity import Intensity
from surface_kernel.volumes.volume import forget_planes

LARGEST_DIFFERENCE = 0.005  # mean |Δ probability|
LEAST_DICE = 0.999  # of the masks
PENALTY = 1.1  # a reduced precision must be that much faster to be taken: it is no better otherwise
LEAST_GAIN = 0.03  # of a larger batch, for the memory it takes
_BATCHES = (2, 4, 8)
_ENOUGH_S = 1.0  # spent on one candidate
_LONG_S = 0.5  # a tile that takes longer keeps every core of a CPU busy alone: larger batches are not tried

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One candidate."""

    device: Device
    tile_s: float = 0.0
    """Seconds a tile."""
    difference: float = 0.0
    """Mean |Δ probability| from the CPU's float32."""
    dice: float = 1.0
    """Of the masks, the CPU's and this one's."""
    fault: str = ""
    """Why it cannot be taken; empty where it can."""

    def __str__(self) -> str:
        how = f"{self.device.dtype}, {self.device.layout}, batch {self.device.batch}"
        if not self.tile_s:
            return f"{how}: {self.fault}"
        measured = f"{self.tile_s * 1e3:.0f} ms a tile, |Δp| {self.difference:.2g}, Dice {self.dice:.4f}"
        return f"{how}: {measured}{', ' * bool(self.fault)}{self.fault}"


def run(
    networks: Sequence[nn.Module],
    intensities: Sequence[Intensity],
    *,
    volume: npt.NDArray[np.uint8],
    tile_zyx: tuple[int, int, int],
    threshold: float,
    device: Device,
) -> tuple[Trial, list[Trial]]:
    """Try what there is on a tile of a volume.

    Args:
        networks: every member's, in float32 on the CPU; the first one is timed, all must agree.
        intensities: every member's.
        volume: uint8 (z, y, x), a real one.
        tile_zyx: the trained tile.
        threshold: a probability, for the masks that are compared.
        device: its name, threads and limits are taken.

    Returns:
        The fastest that agrees with the CPU's float32, and all trials.

    Raises:
        DeviceError: where the device does not even agree in float32.
    """
    grey = _cut(volume, tile_zyx)
    tiles = [torch.from_numpy(intensity.table(volume)[grey])[None, None] for intensity in intensities]
    expected = [_logits(network, tile) for network, tile in zip(networks, tiles, strict=True)]
    limit = logit(threshold)
    bench = _Bench(networks, tiles=tiles, expected=expected, limit=limit)
    trials = [bench.time(candidate) for candidate in _candidates(device)]
    plain = [trial for trial in trials if trial.device.dtype == "float32"]
    if all(trial.fault for trial in plain):
        raise DeviceError(f"{device.name}: expected what the CPU computes, got {plain[0]}: this device is not used")
    fastest = next(
        trial
        for trial in sorted(
            trials, key=lambda trial: trial.tile_s * (1 if trial.device.dtype == "float32" else PENALTY)
        )
        if not trial.fault and bench.all_agree(trial.device)
    )
    for batch in _BATCHES if device.is_gpu or fastest.tile_s < _LONG_S else ():
        trials.append(bench.time(replace(fastest.device, batch=batch)))
        if trials[-1].fault or trials[-1].tile_s > fastest.tile_s * (1 - LEAST_GAIN):
            break
        fastest = trials[-1]
    return fastest, trials


def _candidates(device: Device) -> Iterator[Device]:
    dtypes = ["float32"]
    if device.is_gpu:
        dtypes += ["float16"] + ["bfloat16"] * (torch.cuda.get_device_capability(device.name) >= (8, 0))
    elif has_bfloat16():
        dtypes += ["bfloat16"]
    for dtype in dtypes:
        for layout in LAYOUTS:
            yield replace(device, dtype=dtype, layout=layout, batch=1)


def _cut(volume: npt.NDArray[np.uint8], tile_zyx: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """Cut the tile in the volume's middle, or the one of a few that holds the fewest zeros; padded with zeros."""
    places = [
        tuple(round(max(0, size - tile) * part) for size, tile in zip(volume.shape, tile_zyx, strict=True))
        for part in (0.5, 0.25, 0.75)
    ]
    cut, greys = [], np.arange(256, dtype=np.uint8)
    for place in places:
        tile = np.empty(tile_zyx, np.uint8)
        look_up(volume, place[0], place[1], place[2], greys, tile)
        cut.append(tile)
    forget_planes(volume, volume.shape[0])
    return max(cut, key=np.count_nonzero)


@torch.inference_mode()
def _logits(network: nn.Module, tiles: Tensor) -> Floats:
    logits: Floats = network(tiles)[:1, 0].float().cpu().numpy()
    return logits


class _Bench:
    def __init__(
        self, networks: Sequence[nn.Module], *, tiles: Sequence[Tensor], expected: Sequence[Floats], limit: float
    ) -> None:
        self._networks, self._tiles, self._expected, self._limit = networks, tiles, expected, limit
        self._placed: dict[tuple[int, Device], nn.Module] = {}

    def time(self, device: Device) -> Trial:
        """Run the first member a few times."""
        try:
            return self._time(device)
        except (RuntimeError, MemoryError) as error:  # a kernel that a card lacks is a RuntimeError like any other
            fault = "memory did not suffice" if out_of_memory(error) else " ".join(str(error).split())[:200]
            return Trial(device=device, fault=fault)

    def _time(self, device: Device) -> Trial:
        network = self._place(0, device)
        tiles = self._tiles[0].to(device.name).expand(device.batch, -1, -1, -1, -1).contiguous()
        began_s, laps = time.perf_counter(), list[float]()
        logits = None
        while not laps or (len(laps) < 4 and time.perf_counter() - began_s < _ENOUGH_S):
            lap_s = time.perf_counter()
            with autocast(device):
                logits = _logits(network, tiles)  # the copy back waits for a GPU
            laps.append((time.perf_counter() - lap_s) / device.batch)
        assert logits is not None  # one lap is always run
        difference, dice = self._compare(0, logits)
        fault = "" if difference <= LARGEST_DIFFERENCE and dice >= LEAST_DICE else "differs too much"
        tile_s = min(laps[1:] or laps)
        return Trial(device=device, tile_s=tile_s, difference=difference, dice=dice, fault=fault)

    def all_agree(self, device: Device) -> bool:
        """Whether the other members agree on this device too."""
        for member in range(1, len(self._networks)):
            with autocast(device):
                logits = _logits(self._place(member, device), self._tiles[member].to(device.name))
            difference, dice = self._compare(member, logits)
            if difference > LARGEST_DIFFERENCE or dice < LEAST_DICE:
                return False
        return True

    def _place(self, member: int, device: Device) -> nn.Module:
        """Place a member's network, and forget the one before."""
        key = member, replace(device, batch=1)
        if key not in self._placed:
            self._placed.clear()
            self._placed[key] = place_copy(self._networks[member], device)
        return self._placed[key]

    def _compare(self, member: int, logits: Floats) -> tuple[float, float]:
        """Return mean |Δ probability| and the masks' Dice; infinity for logits that are not finite."""
        expected = self._expected[member]
        if not np.isfinite(logits).all():
            return float("inf"), 0.0
        difference = np.abs(probabilities(logits) - probabilities(expected)).mean(dtype=np.float64)
        mask, true = logits > self._limit, expected > self._limit
        both = int(mask.sum()) + int(true.sum())
        return float(difference), 2 * int((mask & true).sum()) / both if both else 1.0
