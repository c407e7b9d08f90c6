"""What a kernel's run left: the log's line that says how it ended, and the zip as the scorer would read it."""

import json
import re
import zipfile
from pathlib import Path

from surface_package.build import protocol
from surface_package.build.manifest import sha256
from surface_package.build.protocol import ProtocolError, ScriptResult
from surface_package.kaggle.delivery import DeliveryError
from surface_package.rehearsal.masks import read_mask
from surface_package.rehearsal.sandbox import SUBMISSION

MASK_NAME = re.compile(r"[^./\\]+\.tif")  # the scorer's id is the name up to its first dot
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
ADVICE = "Read the .log beside it; running publish again pushes the kernel again."


def read_logs(folder: Path) -> str:
    """Return what a run printed, from the .log that the client put beside its output.

    Kaggle writes a JSON array of the pieces that it saw, each with its stream; a line may be cut between two.
    """
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in sorted(folder.glob("*.log"))]
    return "\n".join(map(_printed, texts))


def _printed(text: str) -> str:
    try:
        return "".join(piece["data"] for piece in json.loads(text) if piece["stream_name"] == "stdout")
    except (ValueError, TypeError, KeyError):  # not as Kaggle was seen to write it: then perhaps as it was printed
        return text


def read_result(folder: Path, program: str) -> ScriptResult:
    """Return what a run says of itself in the log in `folder`. Raises ProtocolError where it says nothing."""
    try:
        return protocol.read_result(read_logs(folder), program)
    except ProtocolError as error:
        log = next(iter(sorted(folder.glob("*.log"))), folder / "*.log")
        raise ProtocolError(f"{log}: {error}") from error


def check_result(folder: Path, manifest_sha256: str) -> None:
    """Raise DeliveryError unless the run says that it predicted every volume, with this bundle.

    Kaggle reports only how the kernel's last version ended, so an older run's output may come, or a run's that was
    given an older version of the dataset. And it calls a run complete whenever submit.py exits with 0, which it does
    for any valid zip.

    Raises:
        DeliveryError: also where the log does not say.
        zipfile.BadZipFile: the zip that came is not the one that the run left.
    """
    try:
        result = read_result(folder, protocol.SUBMIT)
    except ProtocolError as error:
        raise DeliveryError(f"{error}. Running publish again pushes the kernel again.") from error
    if result.manifest_sha256 != manifest_sha256:
        raise DeliveryError(
            f"the log in {folder} is of a run with another bundle: manifest {result.manifest_sha256[:16] or 'unknown'}"
            f", not {manifest_sha256[:16]}. Running publish again pushes the kernel again."
        )
    if result.verdict != protocol.COMPLETE:
        raise DeliveryError(
            f"the log in {folder} is of a run that ended {result.verdict!r} ({result.why}), not with every volume "
            "predicted. Read it and run_report.txt beside it; running publish again pushes the kernel again."
        )
    if SUBMISSION not in result.files:
        raise DeliveryError(f"the log in {folder} names no {SUBMISSION} among what the run left. {ADVICE}")
    if (folder / SUBMISSION).is_file() and sha256(folder / SUBMISSION) != result.files[SUBMISSION]:
        raise zipfile.BadZipFile("it is not the one that the run left, says its log")


def check_stray(folder: Path) -> None:
    """Raise DeliveryError where there is a .tif in `folder` beside the zip: the scorer counts every one."""
    if stray := sorted(str(path.relative_to(folder)) for path in folder.rglob("*.tif*")):
        raise DeliveryError(f"{folder} holds {', '.join(stray)}, but no .tif may be beside submission.zip. {ADVICE}")


def check_submission(path: Path) -> int:
    """Return the number of masks in a submission.zip: {id}.tif at its root, uint8 of 0 and 1 on every page.

    A mask's shape is not compared with its image, which is on Kaggle alone.

    Raises:
        DeliveryError: the zip is missing or empty, or holds anything else.
        zipfile.BadZipFile: it is damaged.
    """
    if not path.is_file():
        raise DeliveryError(f"the kernel ended well but left no {path.name} (looked in {path.parent}). {ADVICE}")
    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f"{damaged} has a wrong checksum")
        names = archive.namelist()
        wrong = [name for name in names if not MASK_NAME.fullmatch(name) or names.count(name) > 1]
        if wrong or not names:
            raise DeliveryError(f"{path} holds {wrong or 'nothing'}, not one {{id}}.tif for each volume. {ADVICE}")
        for name in names:
            if fault := _mask_fault(archive.read(name)):
                raise DeliveryError(f"{name} in {path}: {fault}. {ADVICE}")
    return len(names)


def _mask_fault(content: bytes) -> str:
    """Return what is wrong with a mask, page by page as Pillow reads it; empty if nothing is."""
    if content[:4] not in TIFF_STARTS:
        return f"expected a TIFF, got {content[:4]!r} at its start"
    try:
        _, fault = read_mask(content)
    except Exception as error:  # Pillow raises whatever its parser trips over
        return f"expected a mask that Pillow reads, got {type(error).__name__}: {error}"
    return fault
