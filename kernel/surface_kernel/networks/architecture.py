"""Which networks there are, known without torch, so that a wrong name is refused before anything is loaded."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from surface_kernel.message import shown

# Of segmentation-models-pytorch-3d's 124 those that run in 3-D with one input channel; the others fail late, unclearly.
ENCODERS = (
    *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)),
    *(f"resnext{kind}" for kind in ("50_32x4d", "101_32x4d", "101_32x8d", "101_32x16d", "101_32x32d", "101_32x48d")),
    *(f"dpn{kind}" for kind in ("68", "68b", "92", "98", "107", "131")),
    *(f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")),
    *(f"densenet{depth}" for depth in (121, 161, 169, 201)),
    *(f"efficientnet-b{size}" for size in range(8)),
    *(f"mobileone_s{size}" for size in range(5)),
)
RES_ENC_ENCODERS = ("resenc_xs", "resenc_s", "resenc_m", "resenc_l")
DECODERS = ("Unet", "FPN", "Linknet", "ResEncUNet")
NORMS = ("batch", "instance")
LIBRARIES = ("segmentation-models-pytorch-3d", "dynamic-network-architectures")
DIVISOR = 32  # five halvings, of every network here: what each axis of a tile must divide by


class ArchitectureError(ValueError):
    """A network or tile that cannot be; the message names the entry and what there is."""


@dataclass(frozen=True)
class Architecture:
    """A network with one grey channel in and one logit out, at the same size."""

    decoder: str = "Unet"
    """Of segmentation-models-pytorch-3d; or "ResEncUNet", nnU-Net's U-Net with a residual encoder."""
    encoder: str = "resnet18"
    """One of ENCODERS; for ResEncUNet one of RES_ENC_ENCODERS."""
    norm: str = "batch"
    """"instance" puts InstanceNorm where "batch" has BatchNorm, so that a tile's logits do not depend on the others of
    its batch; FPN's GroupNorm and networks without any norm stay as they are."""

    def __post_init__(self) -> None:
        if self.decoder not in DECODERS:
            raise ArchitectureError(f"decoder: expected one of {', '.join(DECODERS)}, got {shown(self.decoder)}")
        encoders = RES_ENC_ENCODERS if self.deep else ENCODERS
        if self.encoder not in encoders:
            expected = f"one of {', '.join(encoders)} for the decoder {self.decoder}"
            raise ArchitectureError(f"encoder: expected {expected}, got {shown(self.encoder)}")
        if self.norm not in NORMS:
            raise ArchitectureError(f"norm: expected one of {', '.join(NORMS)}, got {shown(self.norm)}")

    @property
    def deep(self) -> bool:
        """Whether it can be trained on its coarser outputs too: see `network.supervise_deeply`."""
        return self.decoder == "ResEncUNet"

    @property
    def local(self) -> bool:
        """Whether a logit depends on the voxels around it alone, however large the tile is.

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
            raise ArchitectureError(f"architecture: expected decoder, encoder and norm, got {sorted(entries)}")
        return cls(**entries)

    def to_mapping(self) -> dict[str, Any]:
        """Return the entries that `from_mapping` reads."""
        return asdict(self)


def check_tile(tile_zyx: tuple[int, int, int], norm: str = "batch") -> None:
    """Raise ArchitectureError for a tile that a network of this norm cannot be given.

    Every axis must be a positive multiple of DIVISOR, in voxels. With InstanceNorm the tile must leave four voxels or
    more after five halvings. A single one has no variance, and torch refuses it; of two, one becomes +1 and the other
    −1 however little they differ, so that rounding decides: logits of a fresh network then changed by up to a quarter
    of their range with the tiles beside, with four by 1e-4 at most. BatchNorm has other tiles to compare with, or its
    running statistics.
    """
    if len(tile_zyx) != 3 or any(not isinstance(n, int) or n < DIVISOR or n % DIVISOR for n in tile_zyx):
        raise ArchitectureError(f"tile: expected three positive multiples of {DIVISOR}, got {tuple(tile_zyx)} voxels")
    left = math.prod(n // DIVISOR for n in tile_zyx)
    if norm == "instance" and left < 4:
        expected = "at least 4 voxels after five halvings, for InstanceNorm"
        got = f"{left} of {tuple(tile_zyx)}; take a larger tile or BatchNorm"
        raise ArchitectureError(f"tile: expected {expected}, got {got}")
