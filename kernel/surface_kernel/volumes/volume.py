"""Volumes read: TIFFs and .npy files in, uint8 (z, y, x) arrays out.

A file's header is judged first (`header`). Plain LZW, deflate and uncompressed strips are decoded here, bounded by
what was declared; anything else and what is broken by Pillow (`decoder`), as the competition's scorer does: it reads
LZW wherever it is installed, while tifffile needs imagecodecs for that, which Kaggle's image lacks.
"""

import mmap
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from surface_kernel.volumes import decoder
from surface_kernel.volumes.header import LZW, NONE, Header, VolumeError, read_header

Volume = npt.NDArray[np.uint8]


def open_volume(path: Path) -> Volume:
    """Return a volume: a memory map where the file allows it, else decoded as `read` does.

    Args:
        path: a TIFF, or an .npy file of uint8 (z, y, x) in C order.

    Returns:
        uint8 (z, y, x). Changes to a memory map stay in memory.

    Raises:
        VolumeError, OSError: as `read` does.
    """
    header = read_header(path)
    if header.offset is None:
        return _decode(path, header)
    return np.memmap(path, dtype=np.uint8, mode="c", offset=header.offset, shape=header.shape_zyx)


def read(path: Path) -> Volume:
    """Read a TIFF.

    Returns:
        uint8 (z, y, x), C-contiguous, all of it in memory.

    Raises:
        VolumeError: as `read_header` does, and when a page cannot be decoded.
        OSError: when the disk fails meanwhile, or no process can be started for an unusual file.
    """
    return _decode(path, read_header(path))


def _decode(path: Path, header: Header) -> Volume:
    volume = np.empty(header.shape_zyx, np.uint8)
    if header.strips and _read_strips(path, header, volume):
        return volume
    try:
        decoder.decode(path, volume)
    except decoder.DecodeError as error:
        advice = "copy the file again, or convert it to an uncompressed TIFF"
        raise VolumeError(f"{path}: {error}; {advice}", header.shape_zyx) from error
    return volume


def _read_strips(path: Path, header: Header, out: Volume) -> bool:
    """Decode a volume's strips into `out`. Whether all were in order: where not, Pillow finds out what is wrong."""
    decode_strip, flat, first = _decoder_of(header.compression), out.reshape(-1), 0
    with path.open("rb", buffering=0) as file:
        for offset, count, size in header.strips:
            data = np.empty(count, np.uint8)
            if os.preadv(file.fileno(), [data.data], offset) < data.size:
                return False
            if not decode_strip(data, flat[first : first + size]):
                return False
            first += size
    return first == flat.size


def _decoder_of(compression: int) -> Callable[[Volume, Volume], bool]:
    """Return what decodes a strip into its place and says whether it filled it."""
    if compression == LZW:
        from surface_kernel.volumes import lzw  # numba: headers are read, and zeros written, without it

        decode: Callable[[Volume, Volume], bool] = lzw.decode
        return decode
    return _copy if compression == NONE else _inflate


def _copy(data: Volume, out: Volume) -> bool:
    if data.size < out.size:
        return False
    out[:] = data[: out.size]
    return True


def _inflate(data: Volume, out: Volume) -> bool:
    try:
        decoded = zlib.decompressobj().decompress(data.data, out.size)
    except zlib.error:
        return False
    if len(decoded) < out.size:
        return False
    out[:] = np.frombuffer(decoded, np.uint8)
    return True


def forget_planes(volume: npt.NDArray[Any], end: int) -> None:
    """Release the memory of the planes before `end` of a memory-mapped volume; they are read again when used again.

    An array that is no memory map is left as it is.
    """
    if isinstance(volume, np.memmap):
        bytes_ = volume.offset + min(end, len(volume)) * volume.strides[0]
        volume._mmap.madvise(mmap.MADV_DONTNEED, 0, bytes_ - bytes_ % mmap.PAGESIZE)  # type: ignore[attr-defined]
