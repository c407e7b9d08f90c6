"""The start-up test of a device: which precision, memory layout and batch run this network fastest, and rightly.

"Rightly" means: on a tile of a real volume the probabilities are those of the CPU in float32, to within what half
precision may cost. So a GPU whose convolutions are wrong or missing is found before it spoils anything.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from surface_kernel.inference.cutting import look_up
from surface_kernel.networks.device import LAYOUTS, Device, DeviceError
from surface_kernel.networks.device_errors import out_of_memory
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
    bench = _Bench.of(networks, intensities, volume=volume, tile_zyx=tile_zyx, threshold=threshold)
    trials = [bench.time(candidate) for candidate in _candidates(device)]
    plain = [trial for trial in trials if trial.device.dtype == "float32"]
    if all(trial.fault for trial in plain):
        raise DeviceError(f"{device.name}: expected what the CPU computes, got {plain[0]}: this device is not used")
    in_order = sorted(trials, key=lambda trial: trial.tile_s * (1 if trial.device.dtype == "float32" else PENALTY))
    fastest = next((trial for trial in in_order if not trial.fault and not bench.disagreement(trial.device, 1)), None)
    if fastest is None:
        raise DeviceError(f"{device.name}: expected all members to compute what they do on the CPU, got others")
    for batch in _BATCHES if device.is_gpu or fastest.tile_s < _LONG_S else ():
        trials.append(bench.time(replace(fastest.device, batch=batch)))
        if trials[-1].fault or trials[-1].tile_s > fastest.tile_s * (1 - LEAST_GAIN):
            break
        fastest = trials[-1]
    return fastest, trials


def disagreement(
    networks: Sequence[nn.Module],
    intensities: Sequence[Intensity],
    *,
    volume: npt.NDArray[np.uint8],
    tile_zyx: tuple[int, int, int],
    threshold: float,
    device: Device,
) -> str:
    """Return why a device that was agreed on must not be used here; empty where all members agree with the CPU.

    The arguments are those of `run`; the device is taken as it is. Raises what a GPU raises that breaks.
    """
    bench = _Bench.of(networks, intensities, volume=volume, tile_zyx=tile_zyx, threshold=threshold)
    return bench.disagreement(replace(device, compiled=False), 0)


def remarks(device: Device, trials: Sequence[Trial]) -> list[str]:
    """Return what a person should know of a GPU beside its trials."""
    if not device.is_gpu:
        return []
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    lines = [f"{torch.cuda.get_device_name(device.name)}, cuDNN {cudnn}"]
    times_s = {trial.device.dtype: trial.tile_s for trial in reversed(trials) if trial.tile_s}
    if times_s.get("float16", 0.0) > times_s.get("float32", float("inf")):
        lines.append(
            "float16 is slower than float32 here: this cuDNN has no fast 3-D convolutions in float16 for this network "
            "on this GPU; another version of torch may"
        )
    return lines


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

    @classmethod
    def of(
        cls,
        networks: Sequence[nn.Module],
        intensities: Sequence[Intensity],
        *,
        volume: npt.NDArray[np.uint8],
        tile_zyx: tuple[int, int, int],
        threshold: float,
    ) -> Self:
        """Return a bench for a tile of a volume, on which the CPU has computed what is expected."""
        grey = _cut(volume, tile_zyx)
        tiles = [torch.from_numpy(intensity.table(volume)[grey])[None, None] for intensity in intensities]
        expected = [_logits(network, tile) for network, tile in zip(networks, tiles, strict=True)]
        return cls(networks, tiles=tiles, expected=expected, limit=logit(threshold))

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
        least = 2 if device.is_gpu else 1  # a GPU's first lap is a cold one: libraries load and choose
        while len(laps) < least or (len(laps) < 4 and time.perf_counter() - began_s < _ENOUGH_S):
            lap_s = time.perf_counter()
            with autocast(device):
                logits = _logits(network, tiles)  # the copy back waits for a GPU
            laps.append((time.perf_counter() - lap_s) / device.batch)
        assert logits is not None  # one lap is always run
        difference, dice = self._compare(0, logits)
        fault = "" if _agrees(difference, dice) else "differs too much"
        tile_s = min(laps[1:] or laps)
        return Trial(device=device, tile_s=tile_s, difference=difference, dice=dice, fault=fault)

    def disagreement(self, device: Device, first: int) -> str:
        """Return how some member from the first one on differs on this device, or fails; empty where all agree."""
        for member in range(first, len(self._networks)):
            try:
                with autocast(device):
                    logits = _logits(self._place(member, device), self._tiles[member].to(device.name))
            except (RuntimeError, MemoryError) as error:
                return " ".join(str(error).split())[:200]
            difference, dice = self._compare(member, logits)
            if not _agrees(difference, dice):
                return f"member {member}: |Δp| {difference:.2g}, Dice {dice:.4f}: differs too much from the CPU"
        return ""

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


def _agrees(difference: float, dice: float) -> bool:
    return difference <= LARGEST_DIFFERENCE and dice >= LEAST_DICE
