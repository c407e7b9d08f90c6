"""A submission's masks, read page by page with Pillow, as the scorer does."""

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence

from surface_kernel.volumes.header import read_header


def check_masks(zip_path: Path, competition: Path) -> list[str]:
    """Compare a submission's masks with their images; return one line a finding.

    A finding is another shape than the image's, other values than 0 and 1, or a page that is not uint8.
    """
    findings = []
    with zipfile.ZipFile(zip_path) as archive:
        for name in archive.namelist():
            try:
                shape_zyx, fault = read_mask(archive.read(name))
                image_zyx = read_header(competition / "test_images" / name).shape_zyx
            except Exception as error:  # Pillow raises whatever its parser trips over
                findings.append(f"{name}: expected a mask and its image, got {type(error).__name__}: {error}")
                continue
            if shape_zyx != image_zyx:
                findings.append(f"{name}: expected a mask of {image_zyx} as its image has, got {shape_zyx}")
            if fault:
                findings.append(f"{name}: {fault}")
    return findings


def read_mask(content: bytes) -> tuple[tuple[int, int, int], str]:
    """Return a mask's shape (z, y, x), and what is wrong with its voxels, empty if nothing is."""
    depth, sizes, fault = 0, set(), ""
    with Image.open(io.BytesIO(content)) as opened:
        for page in ImageSequence.Iterator(opened):
            depth += 1
            sizes.add(page.size)
            values = np.unique(np.asarray(page)).tolist()
            if page.mode != "L" or not set(values) <= {0, 1}:
                fault = f"expected pages of uint8 0 and 1, got mode {page.mode} with the values {values[:5]}"
    if len(sizes) != 1:
        return (depth, 0, 0), f"expected pages of one size, got {sorted(sizes)}"
    width, height = sizes.pop()
    return (depth, height, width), fault
