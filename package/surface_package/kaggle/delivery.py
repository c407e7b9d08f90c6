"""A bundle on its way to Kaggle: how long it may take, whether it may go, and what goes."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from surface_package.build import manifest
from surface_package.target import CODE_FILE, DATASET_FILE


class DeliveryError(RuntimeError):
    """The bundle may not go, or something did not arrive; the message says what was found and what to do."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """The longest wait for one step, and the pause between two questions, in seconds. Raises DeliveryError for 0."""

    timeout_s: float = 3600
    poll_s: float = 15

    def __post_init__(self) -> None:
        if self.timeout_s <= 0:
            raise DeliveryError(f"--timeout-s is {self.timeout_s}. Give a number of seconds above 0.")


@dataclass(frozen=True)
class Delivery(Patience):
    """What to publish, and how patiently: a bundle, with the kernel-metadata.json and kernel/submit.py below `root`.

    Raises ManifestError where there is no bundle.
    """

    bundle: Path
    root: Path = manifest.ROOT
    public: bool = False
    submit: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        manifest.read(self.bundle)

    def beside(self, ending: str) -> Path:
        """The path of what belongs to the bundle but is not in it: BUNDLE.rehearsed.json and the like."""
        return self.bundle.with_name(self.bundle.name + ending)

    def digest(self) -> str:
        """The manifest's sha256, which stands for the bundle: it holds the sha256 of every other file."""
        return manifest.digest(self.bundle)

    def files(self) -> dict[str, Path]:
        """What is uploaded, by name; raises DeliveryError on a folder, which the client would skip."""
        entries = sorted(self.bundle.iterdir())
        if folders := [entry.name for entry in entries if not entry.is_file()]:
            raise DeliveryError(f"{self.bundle} holds {', '.join(folders)}, no file. Build it again: a bundle is flat.")
        return {entry.name: entry for entry in entries if entry.name != DATASET_FILE}


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
def staged(delivery: Delivery) -> Iterator[Path]:
    """A folder beside the bundle, for the length of the block, of what `kernels push` reads and no more."""
    with tempfile.TemporaryDirectory(dir=delivery.bundle.parent, prefix=f".{delivery.bundle.name}.publish-") as folder:
        for name in ("kernel-metadata.json", CODE_FILE):
            path = Path(folder, name)
            path.parent.mkdir(exist_ok=True)
            shutil.copyfile(delivery.root / name, path)
        yield Path(folder)


def message(delivery: Delivery) -> str:
    """What a dataset version and a submission are called: the manifest's digest and the commit of the build."""
    commit = manifest.read(delivery.bundle).get("commit") or "unknown"
    return f"manifest {delivery.digest()[:16]} commit {str(commit)[:12]}"
