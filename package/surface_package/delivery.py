"""A bundle on its way to Kaggle: whether it may go, the folders it goes in, and the record of what has been done."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from surface_package import manifest
from surface_package.target import CODE_FILE, Target, dataset_metadata


class DeliveryError(RuntimeError):
    """The bundle may not go, or something did not arrive; the message says what was found and what to do."""


@dataclass(frozen=True)
class Delivery:
    """What to publish: a bundle, with the kernel-metadata.json and kernel/submit.py below `root`; waits in seconds.

    Raises ManifestError where there is no bundle, DeliveryError for a time-out of 0 or less.
    """

    bundle: Path
    root: Path = manifest.ROOT
    public: bool = False
    submit: bool = False
    timeout_s: float = 3600
    poll_s: float = 15

    def __post_init__(self) -> None:
        if self.timeout_s <= 0:
            raise DeliveryError(f"--timeout-s is {self.timeout_s}. Give a number of seconds above 0.")
        manifest.read(self.bundle)

    def beside(self, ending: str) -> Path:
        """The path of what belongs to the bundle but is not in it: BUNDLE.rehearsed.json and the like."""
        return self.bundle.with_name(self.bundle.name + ending)

    def digest(self) -> str:
        """The manifest's sha256, which stands for the bundle: it holds the sha256 of every other file."""
        return manifest.digest(self.bundle)

    def files(self) -> list[Path]:
        """What is uploaded, by name; raises DeliveryError on a folder, which the client would skip."""
        entries = sorted(self.bundle.iterdir())
        if folders := [entry.name for entry in entries if not entry.is_file()]:
            raise DeliveryError(f"{self.bundle} holds {', '.join(folders)}, no file. Build it again: a bundle is flat.")
        return [entry for entry in entries if entry.name != "dataset-metadata.json"]


@dataclass(frozen=True)
class Record:
    """What has been done for one bundle, kept as BUNDLE.published.json; versions are Kaggle's numbers, None not yet."""

    manifest_sha256: str
    dataset: str
    version_before_upload: int | None = None
    dataset_version: int | None = None
    kernel_sha256: str = ""
    kernel_version: int | None = None
    output_sha256: str = ""
    submitted: bool = False
    public_score: str = ""
    private_score: str = ""

    @classmethod
    def read(cls, delivery: Delivery, target: Target) -> "Record":
        """The bundle's record; a fresh one where there is none or it tells of another manifest or dataset."""
        fresh = cls(delivery.digest(), target.dataset)
        try:
            kept = cls(**json.loads(delivery.beside(".published.json").read_bytes()))
        except (OSError, ValueError, TypeError):
            return fresh
        return kept if (kept.manifest_sha256, kept.dataset) == (fresh.manifest_sha256, fresh.dataset) else fresh

    def pushed(self, kernel_sha256: str, version: int) -> "Record":
        """This record after a push: what was done with an earlier kernel version is forgotten."""
        sent = (self.manifest_sha256, self.dataset, self.version_before_upload, self.dataset_version)
        return Record(*sent, kernel_sha256, version)

    def write(self, delivery: Delivery) -> "Record":
        """Keep the record beside the bundle, whole or not at all."""
        path = delivery.beside(".published.json")
        partial = path.with_name(path.name + ".partial")
        partial.write_text(json.dumps(asdict(self), indent=2) + "\n")
        partial.replace(path)
        return self


def check_rehearsed(delivery: Delivery) -> None:
    """Raise DeliveryError unless BUNDLE.rehearsed.json tells of a passed rehearsal of this very manifest."""
    path = delivery.beside(".rehearsed.json")
    advice = f"Run: python -m surface_package rehearse {delivery.bundle} --data DIR"
    try:
        rehearsal = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DeliveryError(f"{delivery.bundle} was not rehearsed: no {path.name} beside it. {advice}") from None
    except ValueError as error:
        raise DeliveryError(f"{path} is not JSON: {error}. {advice}") from error
    if not isinstance(rehearsal, dict) or rehearsal.get("passed") is not True:
        raise DeliveryError(f"{path} tells of a rehearsal that did not pass. {advice}")
    if rehearsal.get("manifest_sha256") != delivery.digest():
        raise DeliveryError(f"{delivery.bundle} has changed since it was rehearsed, says {path.name}. {advice}")


def check_whole(delivery: Delivery) -> None:
    """Raise DeliveryError, with the findings, unless `kernel/submit.py --verify BUNDLE` ends with 0."""
    whole, lines = manifest.verify(delivery.bundle)
    if not whole:
        found = "".join(f"\n  {line}" for line in lines)
        raise DeliveryError(f"{delivery.bundle} does not verify:{found}\n  Build and rehearse it again.")


@contextmanager
def staged(delivery: Delivery, target: Target) -> Iterator[tuple[Path, Path]]:
    """Two folders for the length of the block: what `datasets` uploads and what `kernels push` reads, and no more.

    They lie beside the bundle, so that hard links can stand for hundreds of megabytes; the bundle is left as it is.
    """
    with tempfile.TemporaryDirectory(dir=delivery.bundle.parent, prefix=f".{delivery.bundle.name}.publish-") as folder:
        data, kernel = Path(folder, "dataset"), Path(folder, "kernel")
        data.mkdir()
        for file in delivery.files():
            try:
                os.link(file.resolve(), data / file.name)
            except OSError:
                shutil.copy2(file, data / file.name)
        (data / "dataset-metadata.json").write_text(json.dumps(dataset_metadata(target), indent=2) + "\n")
        for name in ("kernel-metadata.json", CODE_FILE):
            (kernel / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(delivery.root / name, kernel / name)
        yield data, kernel


def message(delivery: Delivery) -> str:
    """What a dataset version and a submission are called: the manifest's digest and the commit of the build."""
    commit = manifest.read(delivery.bundle).get("commit") or "unknown"
    return f"manifest {delivery.digest()[:16]} commit {str(commit)[:12]}"
