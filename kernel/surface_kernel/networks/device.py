"""What runs a network: which device, in which precision and memory layout, how many tiles at a time, how large.

With all of it fixed, the same logits come out every time on a CPU. Change the batch or the number of threads, and the
last bits of the logits change with them: so a run reports its `Device`, and whoever resumes or shares it takes that.
A plain record, without torch: plans, ledgers and reports carry it. `placing` puts networks on it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

DTYPES = ("float32", "float16", "bfloat16")
LAYOUTS = ("contiguous", "channels_last")


class DeviceError(RuntimeError):
    """A device that was asked for and cannot be used."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """Where and how a network runs."""

    name: str
    """"cpu", "cuda" or "cuda:N"."""
    dtype: str
    """Of convolutions: one of DTYPES."""
    batch: int
    """Tiles of the trained size that the network sees together."""
    threads: int
    """Of the CPU, for torch."""
    layout: str = "channels_last"
    """Of activations and weights: one of LAYOUTS."""
    tile_voxels: int = 0
    """Most voxels of a tile, as memory has it (`tiles.plan`); 0: no larger than the trained one."""
    kept_bytes: int = 0
    """Most bytes of logits that wait to be blended; 0: no more than the trained tile needs."""
    compiled: bool = False
    """Through torch.compile."""

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES or self.layout not in LAYOUTS or min(self.batch, self.threads) < 1:
            expected = f"a dtype of {', '.join(DTYPES)}, a layout of {', '.join(LAYOUTS)}, batch and threads >= 1"
            raise DeviceError(f"device: expected {expected}, got {self!r}")

    @classmethod
    def from_mapping(cls, entries: Mapping[str, Any]) -> Self:
        """Read what `to_mapping` returned, in another process or an earlier run. Raises DeviceError."""
        names = [field.name for field in fields(cls)]
        if set(entries) != set(names):
            raise DeviceError(f"device: expected the entries {', '.join(names)}, got {', '.join(sorted(entries))}")
        return cls(**entries)

    def to_mapping(self) -> dict[str, Any]:
        """Return the entries that `from_mapping` reads."""
        return asdict(self)

    @property
    def is_gpu(self) -> bool:
        """Whether work on it goes on beside Python's."""
        return self.name.startswith("cuda")

    def __str__(self) -> str:
        compiled = ", compiled" if self.compiled else ""
        how = f"{self.dtype}, {self.layout}, {self.batch} tiles a batch, {self.threads} threads{compiled}"
        return f"{self.name}, {how}"


@dataclass(frozen=True, kw_only=True)
class DeviceRequest:
    """What a run asks of its device; without any wish the fastest there is, as the start-up test measures."""

    name: str | None = None
    """The only device to use; None: every GPU there is, else the CPU."""
    agreed: Device | None = None
    """How an earlier run's networks ran: nothing is tested, it is taken as it is."""
