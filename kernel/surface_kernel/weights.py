"""A weights file that explains itself: one .safetensors, no pickle, its tensors covered by a digest.

The metadata holds everything a stranger needs to run the network: architecture, intensity, what it emits, tile,
threshold, and where it came from. `describe` reads that without torch and without the tensors.
"""

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors

from surface_kernel.architecture import Architecture, ArchitectureError, check_tile
from surface_kernel.intensity import Intensity, IntensityError

if TYPE_CHECKING:
    import torch

FORMAT = "surface-weights/1"
EMITS = "logits"  # a network that emits anything else is refused: probabilities are made in one place only


class WeightsError(ValueError):
    """A weights file that cannot be trusted or run; the message names it, what was found and what was wanted."""


@dataclass(frozen=True)
class Metadata:
    """What a weights file says about itself.

    tile_zyx: voxels that the network sees at once. overlap: the least share of a tile's edge that neighbouring tiles
    have in common. threshold: the probability above which a voxel is surface, chosen in validation.
    provenance: settings hash, commit, fold, epoch, n_averaged, validation, as the training run knew them.
    """

    architecture: Architecture
    intensity: Intensity
    tile_zyx: tuple[int, int, int]
    overlap: float = 0.5
    threshold: float = 0.5
    emits: str = EMITS
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_tile(self.tile_zyx, self.architecture.norm)
        if self.emits != EMITS:
            raise WeightsError(f'found a network that emits "{self.emits}", wanted "{EMITS}"')
        if not 0 <= self.overlap < 1:
            raise WeightsError(f"found overlap {self.overlap}, wanted a share from 0 to below 1")
        if not 0 < self.threshold < 1:
            raise WeightsError(f"found threshold {self.threshold}, wanted a probability between 0 and 1")

    def to_strings(self) -> dict[str, str]:
        """Give the metadata as safetensors stores it: every value JSON in a string."""
        entries = {
            "format": FORMAT,
            "architecture": self.architecture.to_mapping(),
            "intensity": self.intensity.to_mapping(),
            "tile_zyx": list(self.tile_zyx),
            "overlap": self.overlap,
            "threshold": self.threshold,
            "emits": self.emits,
            "provenance": dict(self.provenance),
        }
        return {name: json.dumps(value, sort_keys=True) for name, value in entries.items()}


def describe(path: Path) -> Metadata:
    """Read what a weights file says about itself. Its tensors are not touched. Raises WeightsError."""
    return _parse(path, _strings(path))


def save(path: Path, state: Mapping[str, "torch.Tensor"], metadata: Metadata) -> None:
    """Write a network's state so that it appears complete under `path` or not at all: the same bytes each time."""
    from safetensors.torch import save as serialise

    content = serialise({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()})
    strings = metadata.to_strings()
    # The digest covers the tensor bytes alone, which do not depend on the metadata that holds it.
    strings["tensors_sha256"] = json.dumps(_tensors_sha256(content))
    tensors_from = _tensors_from(content)
    header = {"__metadata__": strings, **json.loads(content[8:tensors_from])}
    # The library writes the metadata in another order each time; here it is always this one.
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(struct.pack("<Q", len(text)) + text + content[tensors_from:])
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load(path: Path) -> tuple[Metadata, dict[str, "torch.Tensor"]]:
    """Read a weights file whole and check its digest. Tensors arrive on the CPU. Raises WeightsError."""
    from safetensors.torch import load as deserialise

    strings = _strings(path)
    metadata = _parse(path, strings)
    content = path.read_bytes()
    wanted, found = json.loads(strings.get("tensors_sha256", "null")), _tensors_sha256(content)
    if found != wanted:
        raise WeightsError(f"{path}: found tensors with sha256 {found}, wanted {wanted}: the file was changed")
    return metadata, deserialise(content)


def _strings(path: Path) -> dict[str, str]:
    if not path.is_file():
        raise WeightsError(f"{path}: found no such file, wanted weights in {FORMAT}")
    try:
        with safetensors.safe_open(path, framework="numpy") as opened:
            strings: dict[str, str] | None = opened.metadata()
    except (safetensors.SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: found no safetensors file ({error}), wanted weights in {FORMAT}") from error
    if not strings or strings.get("format") != json.dumps(FORMAT):
        found = (strings or {}).get("format", "no format")
        raise WeightsError(f"{path}: found {found} in the metadata, wanted {FORMAT}")
    return strings


def _parse(path: Path, strings: Mapping[str, str]) -> Metadata:
    try:
        entries = {name: json.loads(text) for name, text in strings.items()}
        return Metadata(
            architecture=Architecture.from_mapping(entries["architecture"]),
            intensity=Intensity.from_mapping(entries["intensity"]),
            tile_zyx=tuple(entries["tile_zyx"]),
            overlap=entries["overlap"],
            threshold=entries["threshold"],
            emits=entries["emits"],
            provenance=entries["provenance"],
        )
    except KeyError as error:
        raise WeightsError(f"{path}: found metadata without {error}, wanted all of {FORMAT}") from error
    except (ValueError, TypeError, ArchitectureError, IntensityError) as error:
        raise WeightsError(f"{path}: {error}") from error


def _tensors_sha256(content: bytes) -> str:
    return hashlib.sha256(memoryview(content)[_tensors_from(content) :]).hexdigest()


def _tensors_from(content: bytes) -> int:
    """Give the byte where the tensors begin: behind the header, whose length is the first 8 bytes, little-endian."""
    (header_bytes,) = struct.unpack("<Q", content[:8])
    return 8 + int(header_bytes)
