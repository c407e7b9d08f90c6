"""What a kernel's run left, judged as the scorer would read it."""

import re
import zipfile
from pathlib import Path

from surface_package.kaggle.delivery import DeliveryError
from surface_package.rehearsal.stage import read_mask

MASK_NAME = re.compile(r"[^./\\]+\.tif")  # the scorer's id is the name up to its first dot
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
ADVICE = "Read the .log beside it; running publish again pushes the kernel again."


def check_origin(folder: Path, manifest_sha256: str) -> None:
    """Raise DeliveryError where a log in `folder` names the manifest of another bundle, as submit.py prints it.

    Kaggle tells only how the kernel's last version stands, so an older run's output may come, or a run's that was given
    an older version of the dataset. A log that names none proves nothing.
    """
    for log in sorted(folder.glob("*.log")):
        named = re.findall(r"manifest sha256 ([0-9a-f]{64})", log.read_text(errors="replace"))
        if named and manifest_sha256 not in named:
            raise DeliveryError(
                f"{log} tells of a run over another bundle: manifest {named[-1][:16]}, wanted {manifest_sha256[:16]}. "
                "Running publish again pushes the kernel again."
            )


def check_verdict(folder: Path) -> None:
    """Raise DeliveryError where the last verdict that submit.py printed into a log in `folder` is not "complete".

    Kaggle calls a run complete whenever submit.py ends well, and it does that as soon as any valid zip stands.
    """
    for log in sorted(folder.glob("*.log")):
        verdicts = re.findall(r"verdict: ([^\"\\\n]+)", log.read_text(errors="replace"))
        if verdicts and not verdicts[-1].startswith("complete;"):
            raise DeliveryError(
                f"{log} tells of a run that ended {verdicts[-1]!r}, wanted every volume predicted. Read it and "
                "run_report.txt beside it; running publish again pushes the kernel again."
            )


def check_stray(folder: Path) -> None:
    """Raise DeliveryError where a .tif lies in `folder` beside the zip: the scorer counts every one it finds."""
    if stray := sorted(str(path.relative_to(folder)) for path in folder.rglob("*.tif*")):
        raise DeliveryError(f"{folder} holds {', '.join(stray)}, wanted no .tif beside submission.zip. {ADVICE}")


def check_submission(path: Path) -> int:
    """Number of masks in a submission.zip: {id}.tif at its root, uint8 of 0 and 1 on every page, and nothing else.

    A mask's shape is not held against its image, which lies on Kaggle alone. Raises DeliveryError on a missing, empty
    or otherwise filled zip, zipfile.BadZipFile on a damaged one.
    """
    if not path.is_file():
        raise DeliveryError(f"the kernel ended well but left no {path.name} (looked in {path.parent}). {ADVICE}")
    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f"{damaged} has a wrong checksum")
        names = archive.namelist()
        wrong = [name for name in names if not MASK_NAME.fullmatch(name) or names.count(name) > 1]
        if wrong or not names:
            raise DeliveryError(f"{path} holds {wrong or 'nothing'}, wanted one {{id}}.tif for each volume. {ADVICE}")
        for name in names:
            if fault := _mask_fault(archive.read(name)):
                raise DeliveryError(f"{name} in {path}: {fault}. {ADVICE}")
    return len(names)


def _mask_fault(content: bytes) -> str:
    """What is wrong with a mask, page by page as Pillow reads it; empty if nothing is."""
    if content[:4] not in TIFF_STARTS:
        return f"found {content[:4]!r} at its start, wanted a TIFF"
    try:
        _, fault = read_mask(content)
    except Exception as error:  # Pillow raises whatever its parser trips over
        return f"found {type(error).__name__}: {error}, wanted a mask that Pillow reads"
    return fault
