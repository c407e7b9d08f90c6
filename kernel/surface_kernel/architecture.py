"""Which networks there are, said without torch, so that a wrong name is refused before anything is loaded."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

# Of the library's 124 encoders those that run in 3-D with one input channel; the others fail late and unclearly.
ENCODERS = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("resnext50_32x4d", "resnext101_32x4d", "resnext101_32x8d"),
    *("resnext101_32x16d", "resnext101_32x32d", "resnext101_32x48d"),
    *("dpn68", "dpn68b", "dpn92", "dpn98", "dpn107", "dpn131"),
    *("vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn"),
    *("densenet121", "densenet161", "densenet169", "densenet201"),
    *(f"efficientnet-b{size}" for size in range(8)),
    *(f"mobileone_s{size}" for size in range(5)),
)
DECODERS = ("Unet", "FPN", "Linknet")
DIVISOR = 32  # five halvings: what every axis of a tile must divide by


class ArchitectureError(ValueError):
    """A network that cannot be built; the message says what was found and what is there."""


@dataclass(frozen=True)
class Architecture:
    """A network of segmentation-models-pytorch-3d: one grey channel in, one logit out, at the same size."""

    decoder: str = "Unet"
    encoder: str = "resnet18"

    def __post_init__(self) -> None:
        if self.decoder not in DECODERS:
            raise ArchitectureError(f"decoder: found {self.decoder!r}, wanted one of {', '.join(DECODERS)}")
        if self.encoder not in ENCODERS:
            raise ArchitectureError(f"encoder: found {self.encoder!r}, wanted one of {', '.join(ENCODERS)}")

    @classmethod
    def from_mapping(cls, entries: Mapping[str, Any]) -> Self:
        """Check the entries of a settings or weights file. Raises ArchitectureError."""
        if set(entries) != {"decoder", "encoder"}:
            raise ArchitectureError(f"architecture: found {sorted(entries)}, wanted decoder and encoder")
        return cls(**entries)

    def to_mapping(self) -> dict[str, Any]:
        """Give the entries that `from_mapping` reads."""
        return asdict(self)


def check_tile(tile_zyx: tuple[int, int, int]) -> None:
    """Raise ArchitectureError unless every axis of the tile is a positive multiple of DIVISOR."""
    if len(tile_zyx) != 3 or any(not isinstance(n, int) or n < DIVISOR or n % DIVISOR for n in tile_zyx):
        raise ArchitectureError(f"tile: found {tuple(tile_zyx)} voxels, wanted three positive multiples of {DIVISOR}")
