"""A bundle on its way to Kaggle: how long it may take, whether it may go, and what goes."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from surface_package.build import manifest
from surface_package.kaggle import client
from surface_package.target import CODE_FILE, DATASET_FILE


class DeliveryError(RuntimeError):
    """The bundle may not go, or something did not arrive; the message says what is wrong and what to do."""


@dataclass(frozen=True, kw_only=True)
class Polling:
    """How long to wait for Kaggle, and how often to ask. Raises DeliveryError for a timeout of 0."""

    timeout_s: float = 3600
    """The longest wait for one step."""
    poll_s: float = 15
    """The pause between two questions."""

    def __post_init__(self) -> None:
        if self.timeout_s <= 0:
            raise DeliveryError(f"--timeout-s is {self.timeout_s}. Set a number of seconds above 0.")


@dataclass(frozen=True, kw_only=True)
class Delivery(Polling):
    """What to publish, and how. Raises ManifestError where there is no bundle."""

    bundle: Path
    root: Path = manifest.ROOT
    """The clone, with kernel-metadata.json and kernel/submit.py."""
    public: bool = False
    """Let everybody see dataset and kernel."""
    submit: bool = False
    """Spend a submission on the checked run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        manifest.read(self.bundle)

    def beside(self, ending: str) -> Path:
        """Return the path of what belongs to the bundle but is not in it: BUNDLE.rehearsed.json and the like."""
        return self.bundle.with_name(self.bundle.name + ending)

    def digest(self) -> str:
        """Return the manifest's sha256, which stands for the bundle: it holds the sha256 of every other file."""
        return manifest.digest(self.bundle)

    def files(self) -> dict[str, Path]:
        """Return what is uploaded, by name; DeliveryError on a folder, which the client would skip."""
        entries = sorted(self.bundle.iterdir())
        if folders := [entry.name for entry in entries if not entry.is_file()]:
            raise DeliveryError(f"{self.bundle} holds {', '.join(folders)}, no file. Build it again: a bundle is flat.")
        return {entry.name: entry for entry in entries if entry.name != DATASET_FILE}


def check_rehearsed(delivery: Delivery) -> None:
    """Raise DeliveryError unless BUNDLE.rehearsed.json says that this very manifest passed a rehearsal."""
    path = delivery.beside(".rehearsed.json")
    advice = f"Run: python -m surface_package rehearse {delivery.bundle} --data DIR"
    try:
        rehearsal = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DeliveryError(f"{delivery.bundle} was not rehearsed: no {path.name} beside it. {advice}") from None
    except ValueError as error:
        raise DeliveryError(f"{path} is not JSON: {error}. {advice}") from error
    if not isinstance(rehearsal, dict) or rehearsal.get("passed") is not True:
        raise DeliveryError(f"{path} is of a rehearsal that did not pass. {advice}")
    if rehearsal.get("manifest_sha256") != delivery.digest():
        raise DeliveryError(f"{delivery.bundle} has changed since it was rehearsed, says {path.name}. {advice}")


def check_whole(delivery: Delivery) -> None:
    """Raise DeliveryError, with the findings, unless the bundle agrees with its manifest in every file."""
    if findings := manifest.verify(delivery.bundle):
        listed = "".join(f"\n  {finding}" for finding in findings)
        raise DeliveryError(f"{delivery.bundle} does not verify:{listed}\n  Build and rehearse it again.")


def check_owner(reference: str) -> None:
    """Raise DeliveryError where another user is logged in than the owner of "owner/slug".

    Kaggle says so only after all was uploaded. A client that does not know who is logged in is asked for no more.
    """
    owner, name = reference.split("/")[0], client.user()
    if name and name.lower() != owner.lower():
        advice = f"Log in as {owner} with `kaggle auth login`, or run: surface_package init --owner {name}"
        raise DeliveryError(f"{reference} belongs to {owner}, and {name} is logged in to the client. {advice}")


@contextmanager
def staged(delivery: Delivery) -> Iterator[Path]:
    """Yield a folder beside the bundle of what `kernels push` reads and no more. It is removed afterwards."""
    with tempfile.TemporaryDirectory(dir=delivery.bundle.parent, prefix=f".{delivery.bundle.name}.publish-") as folder:
        for name in ("kernel-metadata.json", CODE_FILE):
            path = Path(folder, name)
            path.parent.mkdir(exist_ok=True)
            shutil.copyfile(delivery.root / name, path)
        yield Path(folder)


def message(delivery: Delivery) -> str:
    """Return what a dataset version and a submission are called: the manifest's digest and the commit of the build."""
    commit = manifest.read(delivery.bundle).get("commit") or "unknown"
    return f"manifest {delivery.digest()[:16]} commit {str(commit)[:12]}"
