"""Volumes written that are no masks: grey images as the competition has them, and float32 fields as .npy files."""

import io
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from surface_kernel import disk
from surface_kernel.volumes.header import Shape, VolumeError
from surface_kernel.volumes.volume import Volume


def write_lzw(path: Path, volume: Volume) -> None:
    """Write grey values as the competition does: an LZW TIFF, one page a slice.

    Args:
        path: appears complete or not at all.
        volume: uint8 (z, y, x).

    Raises:
        VolumeError: for another dtype or rank.
        OSError: when it cannot be written.
    """
    try:
        check_voxels(volume)
    except VolumeError as error:
        raise VolumeError(f"{path}: {error}") from error
    first, *rest = (Image.fromarray(page) for page in volume)
    file = io.BytesIO()
    first.save(file, format="TIFF", compression="tiff_lzw", save_all=True, append_images=rest)
    disk.put(path, file.getbuffer())


def write_npy(path: Path, planes: Iterable[npt.NDArray[np.float32]], shape_zyx: Shape) -> float:
    """Write planes, one after the other, as one .npy file: a field need not fit in memory.

    Args:
        path: appears complete or not at all.
        planes: float32 (y, x), as many as `shape_zyx` says.
        shape_zyx: of the whole array.

    Returns:
        The mean of all values.

    Raises:
        VolumeError: when there are more or fewer planes.
        OSError: when it cannot be written.
    """
    described = {"descr": "<f4", "fortran_order": False, "shape": shape_zyx}
    total, count = 0.0, 0

    def parts() -> Iterator[bytes | memoryview]:
        nonlocal total, count
        head = io.BytesIO()
        np.lib.format.write_array_header_1_0(head, described)
        yield head.getvalue()
        for plane in planes:
            yield np.ascontiguousarray(plane, "<f4").data
            total += float(plane.mean(dtype=np.float64))
            count += 1
        if count != shape_zyx[0]:
            raise VolumeError(f"{path}: expected {shape_zyx[0]} planes, got {count}")

    disk.put_parts(path, parts())
    return total / count


def check_voxels(array: Volume) -> None:
    """Raise VolumeError unless the array is uint8 (z, y, x) with voxels."""
    if array.dtype != np.uint8 or array.ndim != 3 or array.size == 0:
        raise VolumeError(f"expected uint8 (z, y, x) voxels, got a {array.dtype} array of shape {array.shape}")
