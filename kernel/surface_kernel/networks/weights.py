"""A weights file that explains itself: one .safetensors, no pickle, all of it covered by a digest.

    8 bytes            length of the header, little-endian
    header             {"__metadata__":{"sha256":"<64 digits>", ...}, "<tensor>":{"dtype":..., ...}, ...}
    tensors            one after the other

The metadata holds everything a stranger needs to run the network: architecture, intensity, what it emits, tile,
threshold, and where it came from. `describe` reads that without torch and without the tensors. The digest is that of
the whole file with zeros for its own 64 digits, which always lie at the same place: it is checked before anything that
the file says is believed.
"""

import hashlib
import json
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors

from surface_kernel import disk
from surface_kernel.message import LENGTH, printable, shown
from surface_kernel.networks.architecture import Architecture, check_tile
from surface_kernel.volumes.intensity import Intensity

if TYPE_CHECKING:
    import torch

FORMAT = "surface-weights/2"
EMITS = "logits"  # a network that emits anything else is refused: probabilities are made in one place only
TILE_LIMIT_VOXELS = 1024  # along an axis
_EXPECTED = f"a weights file ({FORMAT})"
_LENGTH_BYTES = 8
_BEFORE_DIGEST = b'{"__metadata__":{"sha256":"'
_DIGEST = slice(_LENGTH_BYTES + len(_BEFORE_DIGEST), _LENGTH_BYTES + len(_BEFORE_DIGEST) + 64)
_NO_DIGEST = "0" * 64
_METADATA = {"sha256", "format", "architecture", "intensity", "tile_zyx", "overlap", "threshold", "emits", "provenance"}


class WeightsError(ValueError):
    """A weights file that cannot be trusted or run; the message names it, what was expected and what it holds."""


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What a weights file says about itself."""

    architecture: Architecture
    intensity: Intensity
    tile_zyx: tuple[int, int, int]
    """Voxels that the network sees at once."""
    overlap: float = 0.5
    """The least share of a tile's edge that neighbouring tiles have in common."""
    threshold: float = 0.5
    """The probability above which a voxel is surface, chosen in validation."""
    emits: str = EMITS
    """What the network returns: logits."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Settings hash, commit, fold, epoch, n_averaged, validation, as the training run knew them."""

    def __post_init__(self) -> None:
        check_tile(self.tile_zyx, self.architecture.norm)
        if max(self.tile_zyx) > TILE_LIMIT_VOXELS:
            raise WeightsError(f"tile: expected at most {TILE_LIMIT_VOXELS} voxels along an axis, got {self.tile_zyx}")
        if self.emits != EMITS:
            raise WeightsError(f"emits: expected a network that emits {EMITS!r}, got {self.emits!r}")
        if not 0 <= self.overlap < 1:
            raise WeightsError(f"overlap: expected a share from 0 to below 1, got {self.overlap}")
        if not 0 < self.threshold < 1:
            raise WeightsError(f"threshold: expected a probability between 0 and 1, got {self.threshold}")

    def to_strings(self) -> dict[str, str]:
        """Return the metadata as safetensors stores it: every value JSON in a string."""
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
    """Read what a weights file says about itself, without torch and without its tensors.

    Only `load` checks the digest, which takes the whole file.

    Raises:
        WeightsError: for a file that is none, or whose metadata cannot be run.
    """
    return _metadata(path, _strings(path))


def save(path: Path, state: Mapping[str, "torch.Tensor"], metadata: Metadata) -> None:
    """Write a weights file: the same bytes each time for the same state and metadata.

    Args:
        path: appears complete or not at all.
        state: of the network, as `state_dict` returns it, on any device.
        metadata: all that a stranger needs to run it.

    Raises:
        OSError: when it cannot be written.
    """
    from safetensors.torch import save as serialise

    content = serialise({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()})
    (length,) = struct.unpack_from("<Q", content)
    listed, tensors = json.loads(content[_LENGTH_BYTES : _LENGTH_BYTES + length]), content[_LENGTH_BYTES + length :]
    # The library writes the metadata in another order each time; here it is always this one.
    strings = {"sha256": _NO_DIGEST, **metadata.to_strings()}
    text = json.dumps({"__metadata__": strings, **listed}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    begin = struct.pack("<Q", len(text)) + text
    digest = hashlib.sha256(begin)
    digest.update(tensors)
    begin = begin[: _DIGEST.start] + digest.hexdigest().encode() + begin[_DIGEST.stop :]
    disk.put_parts(path, [begin, tensors])


def load(path: Path) -> tuple[Metadata, dict[str, "torch.Tensor"]]:
    """Read a weights file with its tensors and check its digest.

    Returns:
        Its metadata, and the state of its network, on the CPU.

    Raises:
        WeightsError: as `describe` does, and for a file that was changed.
    """
    from safetensors.torch import load as deserialise

    strings = _strings(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: expected {_EXPECTED}, got an unreadable one ({error})") from error
    if content[_LENGTH_BYTES : _DIGEST.start] != _BEFORE_DIGEST:
        raise WeightsError(f"{path}: expected {_EXPECTED}, got no sha256 at the head of the metadata")
    expected, got = strings["sha256"], _sha256(content)
    if got != expected:
        changed = "the file was changed; copy it again"
        raise WeightsError(f"{path}: expected sha256 {printable(expected)}, got {got}: {changed}")
    return _metadata(path, strings), deserialise(content)


def _strings(path: Path) -> dict[str, str]:
    """Read the metadata of a file's header, which safetensors checks against the file."""
    if not path.is_file():  # what is no file could keep us waiting for its bytes
        raise WeightsError(f"{path}: no such file; expected {_EXPECTED}")
    try:
        with safetensors.safe_open(path, framework="numpy") as opened:
            strings: dict[str, str] = opened.metadata() or {}
    except (safetensors.SafetensorError, OSError) as error:
        why = printable(str(error)[:LENGTH])
        raise WeightsError(f"{path}: expected {_EXPECTED}, got no safetensors file ({why})") from error
    if strings.get("format") != json.dumps(FORMAT):
        got = shown(strings.get("format", "no format"))
        raise WeightsError(f"{path}: expected {_EXPECTED}, got {got} in the metadata")
    if strings.keys() != _METADATA:
        raise WeightsError(f"{path}: expected metadata {sorted(_METADATA)}, got {shown(sorted(strings))}")
    return strings


def _metadata(path: Path, strings: Mapping[str, str]) -> Metadata:
    try:
        entries = {name: json.loads(text) for name, text in strings.items() if name != "sha256"}
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: expected {_EXPECTED}, got no readable JSON in the metadata ({error})") from error
    try:
        for name, kind in (("architecture", dict), ("intensity", dict), ("provenance", dict), ("tile_zyx", list)):
            if not isinstance(entries[name], kind):
                raise WeightsError(f"{name}: expected a {kind.__name__}, got {shown(entries[name])}")
        for name in ("overlap", "threshold"):
            if not _is_finite(entries[name]):
                raise WeightsError(f"{name}: expected a number, got {shown(entries[name])}")
        intensity = Intensity.from_mapping(entries["intensity"])
        if not _is_finite(intensity.limit):
            raise WeightsError(f"intensity.limit: expected a number, got {shown(intensity.limit)}")
        return Metadata(
            architecture=Architecture.from_mapping(entries["architecture"]),
            intensity=intensity,
            tile_zyx=tuple(entries["tile_zyx"]),
            overlap=entries["overlap"],
            threshold=entries["threshold"],
            emits=entries["emits"],
            provenance=entries["provenance"],
        )
    except (ValueError, TypeError, RecursionError) as error:
        raise WeightsError(f"{path}: {printable(str(error)[:600])}") from error


def _is_finite(value: Any) -> bool:
    """Whether a JSON value is a number that a float can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _sha256(content: bytes) -> str:
    """Return the digest of a file's bytes, those of the digest itself taken as zeros."""
    digest = hashlib.sha256(content[: _DIGEST.start] + _NO_DIGEST.encode())
    digest.update(memoryview(content)[_DIGEST.stop :])
    return digest.hexdigest()
