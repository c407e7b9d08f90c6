import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from package.fake_bundle import make_competition
from PIL import Image

from surface_kernel.volumes.mask_files import write_mask
from surface_package.rehearsal.masks import check_masks


def tiff(pages: list[Image.Image]) -> bytes:
    content = io.BytesIO()
    pages[0].save(content, format="TIFF", save_all=True, append_images=pages[1:])
    return content.getvalue()


def grey(shape_zyx: tuple[int, int, int], value: int = 1) -> list[Image.Image]:
    return [Image.fromarray(page) for page in np.full(shape_zyx, value, np.uint8)]


BITS = [page.convert("1") for page in grey((2, 3, 4))]
MASKS = [
    (tiff(grey((2, 3, 4))), []),
    (tiff(grey((2, 3, 4), 0)), []),
    (tiff(grey((3, 3, 4))), ["expected a mask of (2, 3, 4) as its image has, got (3, 3, 4)"]),
    (tiff(grey((2, 4, 3))), ["expected a mask of (2, 3, 4) as its image has, got (2, 4, 3)"]),
    (tiff(grey((2, 3, 4), 2)), ["expected pages of uint8 0 and 1, got mode L with the values [2]"]),
    (tiff(grey((2, 3, 4), 255)), ["expected pages of uint8 0 and 1, got mode L with the values [255]"]),
    (tiff(BITS), ["got mode 1 with the values"]),
    (tiff([*grey((1, 3, 4)), *grey((1, 3, 5))]), ["got (2, 0, 0)", "expected pages of one size, got [(4, 3), (5, 3)]"]),
    (tiff(grey((2, 3, 4)))[:40], ["expected a mask and its image, got "]),
    (b"II*\0", ["expected a mask and its image, got "]),
]


@pytest.mark.parametrize(("content", "findings"), MASKS)
def test_masks_are_read_as_the_scorer_reads_them(tmp_path: Path, content: bytes, findings: list[str]) -> None:
    competition = make_competition(tmp_path / "competition", a7=(2, 3, 4))
    with zipfile.ZipFile(tmp_path / "submission.zip", "w") as archive:
        archive.writestr("7.tif", content)
    found = check_masks(tmp_path / "submission.zip", competition)
    assert len(found) == len(findings)
    assert all(line.startswith("7.tif: ") and wanted in line for line, wanted in zip(found, findings, strict=True))


def test_the_kernels_own_masks_pass(tmp_path: Path) -> None:
    competition = make_competition(tmp_path / "competition", a7=(4, 5, 3))
    write_mask(tmp_path / "7.tif", np.random.default_rng(0).integers(0, 2, (4, 5, 3), np.uint8))
    with zipfile.ZipFile(tmp_path / "submission.zip", "w") as archive:
        archive.write(tmp_path / "7.tif", "7.tif")
    assert check_masks(tmp_path / "submission.zip", competition) == []


def test_a_mask_without_an_image_is_a_finding(tmp_path: Path) -> None:
    competition = make_competition(tmp_path / "competition", a7=(2, 3, 4))
    with zipfile.ZipFile(tmp_path / "submission.zip", "w") as archive:
        archive.writestr("8.tif", MASKS[0][0])
    (finding,) = check_masks(tmp_path / "submission.zip", competition)
    assert finding.startswith("8.tif: expected a mask and its image, got VolumeError: ")
