"""Which networks there are, said without torch, so that a wrong name is refused before anything is loaded."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

# Of segmentation-models-pytorch-3d's 124 those that run in 3-D with one input channel; the others fail late, unclearly.
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
RES_ENC_ENCODERS = ("resenc_s", "resenc_m", "resenc_l")
DECODERS = ("Unet", "FPN", "Linknet", "ResEncUNet")
NORMS = ("batch", "instance")
LIBRARIES = ("segmentation-models-pytorch-3d", "dynamic-network-architectures")
DIVISOR = 32  # five halvings, of every network here: what each axis of a tile must divide by


class ArchitectureError(ValueError):
    """A network that cannot be built; the message says what was found and what is there."""


@dataclass(frozen=True)
class Architecture:
    """A network with one grey channel in and one logit out, at the same size.

    decoder: of segmentation-models-pytorch-3d, with an encoder of ENCODERS; or "ResEncUNet", nnU-Net's U-Net with a
    residual encoder, with one of RES_ENC_ENCODERS. norm: "instance" puts InstanceNorm where "batch" has BatchNorm, so
    that a tile's logits do not depend on the others of its batch; FPN's GroupNorm and networks without any stay as
    they are.
    """

    decoder: str = "Unet"
    encoder: str = "resnet18"
    norm: str = "batch"

    def __post_init__(self) -> None:
        if self.decoder not in DECODERS:
            raise ArchitectureError(f"decoder: found {self.decoder!r}, wanted one of {', '.join(DECODERS)}")
        encoders = RES_ENC_ENCODERS if self.deep else ENCODERS
        if self.encoder not in encoders:
            wanted = f"wanted one of {', '.join(encoders)} for the decoder {self.decoder}"
            raise ArchitectureError(f"encoder: found {self.encoder!r}, {wanted}")
        if self.norm not in NORMS:
            raise ArchitectureError(f"norm: found {self.norm!r}, wanted one of {', '.join(NORMS)}")

    @property
    def deep(self) -> bool:
        """Say whether it can be trained on its coarser outputs too: see `network.supervise_deeply`."""
        return self.decoder == "ResEncUNet"

    @property
    def local(self) -> bool:
        """Say whether a logit depends on the voxels around it alone, however large the tile is.

        Norms of a tile's own statistics and squeeze-and-excitation take means over the whole tile: such a network sees
        tiles of the size that it was trained on.
        """
        excited = self.encoder.startswith("efficientnet") or self.encoder == "mobileone_s4"
        return self.norm == "batch" and self.decoder != "FPN" and not excited

    @property
    def library(self) -> str:
        """The distribution that builds it: one of LIBRARIES."""
        return LIBRARIES[self.deep]

    @classmethod
    def from_mapping(cls, entries: Mapping[str, Any]) -> Self:
        """Check the entries of a settings or weights file; older ones say no norm. Raises ArchitectureError."""
        if set(entries) | {"norm"} != {"decoder", "encoder", "norm"}:
            raise ArchitectureError(f"architecture: found {sorted(entries)}, wanted decoder, encoder and norm")
        return cls(**entries)

    def to_mapping(self) -> dict[str, Any]:
        """Give the entries that `from_mapping` reads."""
        return asdict(self)


def check_tile(tile_zyx: tuple[int, int, int], norm: str = "batch") -> None:
    """Raise ArchitectureError unless every axis of the tile is a positive multiple of DIVISOR.

    With InstanceNorm it must leave four voxels or more after five halvings. A single one has no variance, and torch
    refuses it; of two, one becomes +1 and the other −1 however little they differ, so that rounding decides: logits of
    a fresh network then changed by up to a quarter of their range with the tiles beside, with four by 1e-4 at most.
    BatchNorm has other tiles to compare with, or its running statistics.
    """
    if len(tile_zyx) != 3 or any(not isinstance(n, int) or n < DIVISOR or n % DIVISOR for n in tile_zyx):
        raise ArchitectureError(f"tile: found {tuple(tile_zyx)} voxels, wanted three positive multiples of {DIVISOR}")
    left = math.prod(n // DIVISOR for n in tile_zyx)
    if norm == "instance" and left < 4:
        wanted = "wanted 4 or more for InstanceNorm; take a larger tile or BatchNorm"
        raise ArchitectureError(f"tile: found {tuple(tile_zyx)} voxels, which halve to {left}, {wanted}")
